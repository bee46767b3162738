"""Serve a Django project in production with one command: ``manage.py prodserve``."""

__version__ = "0.1.0"
