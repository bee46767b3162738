"""A small bookshop, served by ``manage.py prodserve``."""
