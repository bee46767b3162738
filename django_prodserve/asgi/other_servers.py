"""The ASGI application of the project, for the worker classes asgi and uvicorn. Built before the fork."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.utils.module_loading import import_string

from ..utils.tracebacks import project_error
from .handler import load
from .leases import Leases


def load_for_others(leases: Leases, *, speedups: bool) -> Any:
    """Return the project's application, with our handler where it has exactly Django's."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return load(leases, speedups=speedups)
    try:
        application: Any = import_string(path)
    except Exception as error:  # an import may raise anything
        raise project_error(f"{path} (ASGI_APPLICATION) cannot be loaded", error) from error
    if type(application) is ASGIHandler:
        return load(leases, speedups=speedups)
    parts = getattr(application, "application_mapping", None)  # Channels' router
    if isinstance(parts, dict) and type(parts.get("http")) in (ASGIHandler, type(None)):
        parts["http"] = load(leases, speedups=speedups)
    return application
