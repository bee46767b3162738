"""The installable Django app."""

from django.apps import AppConfig


class ProdserveConfig(AppConfig):
    """Add ``manage.py prodserve`` to a project."""

    name = "django_prodserve"
    verbose_name = "prodserve"
