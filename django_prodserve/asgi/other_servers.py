"""The ASGI application of the project, for the worker classes asgi and uvicorn.

Built before the fork (in the worker with --no-preload).
"""

from __future__ import annotations

from copy import copy
from typing import Any, cast

from django.core.handlers.asgi import ASGIHandler

from .handler import load
from .leases import Leases
from .project import ASGIApplication, ProjectApplication


def load_for_others(project: ProjectApplication | None, leases: Leases, *, speedups: bool) -> ASGIApplication:
    """Return the project's application, with our handler where it has exactly Django's."""
    if project is not None and project.foreign:
        return project.application
    handler: ASGIApplication = load(leases, speedups=speedups)
    if project is None or type(project.application) is ASGIHandler:
        return handler
    router: Any = copy(project.application)  # of Channels; the project's own stays as it is
    router.application_mapping = {**router.application_mapping, "http": handler}
    return cast("ASGIApplication", router)
