"""Call sites of threads and connections that the project starts while it loads: file and line of each.

Runs in the command's process, any thread, from the import of our app until fork_safety.py has warned, right
before the first fork. Under ``manage.py`` Django loads the settings before any app. The record then lacks
threads and connections that settings.py, or an app listed before ours in INSTALLED_APPS, starts at its
import. It has all that any app starts in ``ready()``, and all under ``python -m django_prodserve``.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import sysconfig
import threading
from contextlib import suppress
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings

from ..utils.tracebacks import is_own, short

COMMAND = "prodserve"
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STANDARD = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")


class CallSites:
    """Records the caller of ``Thread.start`` and ``socket.connect`` while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.threads: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        self.sockets: dict[int, str] = {}  # by inode: descriptors are reused
        self._undo: list[tuple[type, str, Any, Any]] = []

    def record(self) -> None:
        """Start. The wrapped functions behave as before, whatever happens in here."""
        if self.on:
            return
        self.on = True
        start, connect = threading.Thread.start, socket.socket.connect

        @functools.wraps(start)  # code that inspects it sees the original
        def noting_start(thread: threading.Thread) -> None:
            if self.on:
                with suppress(Exception):  # a thread without weak references or hash; any other error
                    self.threads[thread] = caller(sys._getframe(1))
            start(thread)

        @functools.wraps(connect)
        def noting_connect(connection: socket.socket, address: Any, /) -> None:
            if self.on:
                with suppress(Exception):
                    self.sockets[os.fstat(connection.fileno()).st_ino] = caller(sys._getframe(1))
            connect(connection, address)

        self._replace(threading.Thread, "start", noting_start)
        self._replace(socket.socket, "connect", noting_connect)

    def _replace(self, owner: type, name: str, noting: Any) -> None:
        self._undo.append((owner, name, vars(owner).get(name), noting))
        setattr(owner, name, noting)

    def stop(self) -> None:
        """Stop, and restore the original functions, unless other code has wrapped them since."""
        self.on = False
        while self._undo:
            owner, name, before, noting = self._undo.pop()
            if vars(owner).get(name) is not noting:
                continue
            if before is None:  # inherited
                delattr(owner, name)
            else:
                setattr(owner, name, before)

    def of_thread(self, thread: threading.Thread) -> str:
        """Return ``file, line N``; empty if it is not known."""
        with suppress(TypeError):
            return self.threads.get(thread, "")
        return ""

    def of_socket(self, descriptor: int) -> str:
        """Return ``file, line N``; empty if it is not known: a C library's, such as libpq's."""
        with suppress(OSError):
            return self.sockets.get(os.fstat(descriptor).st_ino, "")
        return ""


def caller(frame: FrameType | None) -> str:
    """Return the innermost line that led here: the project's; else an installed app's; else a package's."""
    app = package = ""
    installed = _installed_apps()
    while frame is not None:
        file, module = frame.f_code.co_filename, frame.f_globals.get("__name__", "")
        # manage.py is in every stack, and gives no information.
        if module != "__main__" and not file.startswith(("<", _OURS)):
            line = f"{short(file)}, line {frame.f_lineno}"
            if is_own(file):
                return line
            if module.partition(".")[0] in installed:
                app = app or line
            if not _is_standard(file):
                package = package or line
        frame = frame.f_back
    return app or package


def _installed_apps() -> set[str]:
    """Return the top-level packages of INSTALLED_APPS except Django; empty while the settings are loaded."""
    names = settings.INSTALLED_APPS if settings.configured else ()
    return {name.partition(".")[0] for name in names} - {"django"}


def _is_standard(file: str) -> bool:
    return file.startswith(_STANDARD) and not any(name in file for name in _INSTALLED)


CALL_SITES = CallSites()


def record_for(arguments: list[str]) -> None:
    """Start if this process runs our command; every other command stays unchanged."""
    if COMMAND in arguments[1:]:
        CALL_SITES.record()
