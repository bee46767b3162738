"""Names of objects in a project, for messages."""

from __future__ import annotations

from typing import Any


def full_name(application: Any) -> str:
    """Return module and name of an application: its own, or those of its class."""
    named = application if hasattr(application, "__qualname__") else type(application)
    return f"{named.__module__}.{named.__qualname__}"
