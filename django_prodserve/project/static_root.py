"""The STATIC_ROOT that the project reads while it is loaded: a library may look for its manifest there, once.

If prodserve collects into its own private directory, it knows that directory only after the project was
loaded. Then the command restarts itself, and shows that directory as STATIC_ROOT until the project is loaded.
Runs in the command's process, main thread.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from django.conf import settings

SHOWN = "_PRODSERVE_STATIC_ROOT"
"""The variable that names the directory for a command that restarts itself."""


class _State:
    before: Any = None
    shown = read = False


def show_static_root(environ: MutableMapping[str, str]) -> None:
    """Set STATIC_ROOT to the variable's value. Called when the app is imported, before any ``ready()``."""
    root = environ.pop(SHOWN, "")
    if root:
        _State.before, _State.shown = settings.STATIC_ROOT, True
        settings.STATIC_ROOT = root


def record_static_root() -> None:
    """Note whether the project has read STATIC_ROOT, and restore the project's value. Called first of all.

    Django's settings keep each value that was read in their own dictionary.
    """
    if _State.shown:
        settings.STATIC_ROOT = _State.before
    else:
        _State.read = "STATIC_ROOT" in vars(settings) and bool(settings.STATIC_ROOT)


def has_read_static_root() -> bool:
    """Return whether the project has read its own STATIC_ROOT while it was loaded."""
    return _State.read
