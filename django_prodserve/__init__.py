"""Serve a Django project in production with one command: ``manage.py prodserve``."""

from .utils import early_signals

__version__ = "0.1.0"

early_signals.watch()
