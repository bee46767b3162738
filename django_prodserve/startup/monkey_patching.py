"""Detect whether gevent or eventlet has replaced threads, select, os or sockets in this process.

A patched server would report that it is ready, answer nothing and ignore SIGTERM: its threads are then
greenlets, and no hub runs them. The check runs when the command starts, when the project is loaded, and in
each worker. It takes some microseconds and imports neither library.
"""

from __future__ import annotations

import _thread
import os
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from django.db import connections

from ..errors import ProdserveError
from ..utils.tracebacks import is_own, short

WATCHED = ("threading", "select", "os", "socket")
OTHERS = {"threading": "thread"}  # eventlet's name for it
LIBRARIES = ("gevent", "eventlet")
REPLACED: tuple[tuple[str, Any, str], ...] = (
    ("threading", _thread, "start_new_thread"),
    ("threading", threading, "Lock"),
    ("select", select, "select"),
    ("select", select, "poll"),
    ("os", os, "fork"),
    ("os", os, "read"),
    ("socket", socket, "socket"),
    ("socket", time, "sleep"),
)
"""The functions that the libraries replace: a replacement names its module, or has none."""
CALL = re.compile(
    r"^(?!\s*def )[^#\n]*?\b(?:patch_(?:all|thread|select|socket|os)|monkey_patch)\s*\(.*$", re.MULTILINE
)


def found() -> str:
    """Return the patched modules and the library, as ``gevent has patched os, select``; mostly empty."""
    names = {name for name in WATCHED if _admitted(name)} | {name for name in WATCHED if _is_replaced(name)}
    if not names:
        return ""
    library = next((candidate for candidate in LIBRARIES if candidate in sys.modules), "a library")
    return f"{library} has patched {', '.join(name for name in WATCHED if name in names)}"


def refuse() -> None:
    """Raise ProdserveError if something is patched, with the line to remove."""
    if what := found():
        for connection in connections.all(initialized_only=True):
            connection.inc_thread_sharing()  # this thread has another number now, and must close them
        raise ProdserveError(f"{what}: {CONSEQUENCE}", remedy())


CONSEQUENCE = "this server runs requests on threads of the system, and could neither answer nor stop."


def remedy() -> str:
    """Return which line to remove, and from where."""
    instead = "Or serve with Gunicorn's own gevent worker."
    if "gevent.monkey" in sys.orig_argv:
        return f"Start without `-m gevent.monkey`. {instead}"
    return f"Remove {_place() or 'the call of monkey.patch_all() or monkey_patch()'}. {instead}"


def _admitted(name: str) -> bool:
    """Query the libraries themselves."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    asked = (
        (gevent, "is_module_patched", name),
        (eventlet, "is_monkey_patched", OTHERS.get(name, name)),
    )
    return any(getattr(module, ask, _no)(word) for module, ask, word in asked)


def _no(name: str) -> bool:
    return False


def _is_replaced(name: str) -> bool:
    """Check the functions: this detects any library that replaced them, in any way."""
    for module, owner, attribute in REPLACED:
        if module == name:
            function = getattr(owner, attribute, None)
            if function is None and (attribute != "poll" or sys.platform != "win32"):
                return True
            if str(getattr(function, "__module__", "")).partition(".")[0] in LIBRARIES:
                return True
    return False


def _place() -> str:
    """Return the project's line that calls a patching function; prefer it to one that an import runs."""
    indented = ""
    for file in _own_files():
        try:
            with open(file, encoding="utf-8") as source:
                text = source.read()
        except (OSError, ValueError):
            continue
        for call in CALL.finditer(text):
            number = text.count("\n", 0, call.start()) + 1
            place = f"`{call[0].strip()}` ({short(file)}, line {number})"
            if not call[0][0].isspace():
                return place
            indented = indented or place
    return indented


def _own_files() -> Iterator[str]:
    """Yield the files of the program and the modules of the project."""
    main = sys.modules.get("__main__")
    for module in (main, *list(sys.modules.values())):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and is_own(file):
            yield file
