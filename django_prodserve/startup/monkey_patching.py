"""Find out whether gevent or eventlet has replaced threads, select, os or sockets under this server.

Patched, a server would say that it is ready, answer nothing and ignore SIGTERM: its threads are greenlets
then, and no hub runs them. Asked when the command starts, when the project is loaded, and in each worker.
Costs some microseconds and imports neither library.
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
OTHERS = {"threading": "thread"}  # as eventlet calls it
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
"""What the libraries replace: the replacement names its module, or there is none."""
CALL = re.compile(
    r"^(?!\s*def )[^#\n]*?\b(?:patch_(?:all|thread|select|socket|os)|monkey_patch)\s*\(.*$", re.MULTILINE
)


def found() -> str:
    """Return what is patched and by which library, as ``gevent has patched os, select``; mostly nothing."""
    names = {name for name in WATCHED if _admitted(name)} | {name for name in WATCHED if _is_replaced(name)}
    if not names:
        return ""
    library = next((candidate for candidate in LIBRARIES if candidate in sys.modules), "a library")
    return f"{library} has patched {', '.join(name for name in WATCHED if name in names)}"


def refuse() -> None:
    """Raise ProdserveError where something is patched, with the line to remove."""
    if what := found():
        for connection in connections.all(initialized_only=True):
            connection.inc_thread_sharing()  # this thread has another number now, and must close them
        raise ProdserveError(f"{what}: {CONSEQUENCE}", remedy())


CONSEQUENCE = "this server runs requests on threads of the system, and could neither answer nor stop."


def remedy() -> str:
    """Return what to remove, and from where."""
    instead = "Or serve with Gunicorn's own gevent worker."
    if "gevent.monkey" in sys.orig_argv:
        return f"Start without `-m gevent.monkey`. {instead}"
    return f"Remove {_place() or 'the call of monkey.patch_all() or monkey_patch()'}. {instead}"


def _admitted(name: str) -> bool:
    """Ask the libraries themselves."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    asked = (
        (gevent, "is_module_patched", name),
        (eventlet, "is_monkey_patched", OTHERS.get(name, name)),
    )
    return any(getattr(module, ask, _no)(word) for module, ask, word in asked)


def _no(name: str) -> bool:
    return False


def _is_replaced(name: str) -> bool:
    """Look at the functions: whichever library replaced them, and however."""
    for module, owner, attribute in REPLACED:
        if module == name:
            function = getattr(owner, attribute, None)
            if function is None and (attribute != "poll" or sys.platform != "win32"):
                return True
            if str(getattr(function, "__module__", "")).partition(".")[0] in LIBRARIES:
                return True
    return False


def _place() -> str:
    """Return the line of the project's own that calls a patching function, rather one that an import runs."""
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
    """Yield the files of the program and of the project's modules."""
    main = sys.modules.get("__main__")
    for module in (main, *list(sys.modules.values())):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and is_own(file):
            yield file
