"""Serve a Django project in production with one command: ``manage.py prodserve``."""

from . import early

__version__ = "0.1.0"

early.watch()
