"""Names of objects in a project, for messages."""

from __future__ import annotations

from typing import Any


def full_name(thing: Any) -> str:
    """Return module and name of a function, a class or an object, of which it is those of its class."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
