"""The installable Django app.

Its import is the first code of prodserve that manage.py runs: before that, only the settings are loaded.
"""

import os
import sys

from django.apps import AppConfig

from .project.static_root import show_static_root
from .startup.origins import record_for

record_for(sys.argv)
show_static_root(os.environ)


class ProdserveConfig(AppConfig):
    """Add ``manage.py prodserve`` to a project."""

    name = "django_prodserve"
    verbose_name = "prodserve"

    def ready(self) -> None:
        """Register the preflight for ``manage.py check --deploy``."""
        from .startup import checks  # noqa: F401, registers itself
