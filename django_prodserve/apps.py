"""The installable Django app."""

from django.apps import AppConfig


class ProdserveConfig(AppConfig):
    """Add ``manage.py prodserve`` to a project."""

    name = "django_prodserve"
    verbose_name = "prodserve"

    def ready(self) -> None:
        """Register the preflight for ``manage.py check --deploy``."""
        from . import checks  # noqa: F401, registers itself
