"""The dry run connects to no service except a database, and changes no file except a copy of it.

Uses Python's audit events, which report the actions of Python code. C libraries, and programs that are
started, are not restricted.
"""

from __future__ import annotations

import builtins
import inspect
import io
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import refusal

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CONNECT = inspect.unwrap(BaseDatabaseWrapper.connect).__code__
DEVICES = ("/dev/", "/proc/")
SHARED = "/dev/shm/"
SYSTEM = ("/run/systemd/", "/dev/log")
CHANGES = {
    "os.mkdir": (1, 2),
    "os.remove": (1, 1),
    "os.rmdir": (1, 1),
    "os.rename": (2, 2),
    "os.link": (2, 2),
    "os.symlink": (2, 2),
    "os.truncate": (1, -1),
    "os.chmod": (1, 2),
    "os.chown": (1, 3),
    "os.utime": (1, 3),
}
"""Audit events of changes: the number of leading paths, and the index of the directory's descriptor."""


class Outside:
    """The paths that this process may change, and the copies of changed files."""

    def __init__(self, scratch: str | None) -> None:
        self.on = True
        self.scratch = scratch
        self.copies: dict[str, str] = {}
        self.made = 0

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Raise Refused for a forbidden action."""
        if not self.on:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and not self.may_change(path):
                raise refusal.change(os.fsdecode(path))
        elif event in CHANGES:
            count, directory = CHANGES[event]
            beside = args[directory] if 0 < directory < len(args) else -1
            for path in args[:count]:
                if not self.may_change(path, beside):
                    raise refusal.change(os.fsdecode(path))
        elif event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
            peer = args[1]
            if peer is not None and not _is_allowed(peer) and not _for_database(sys._getframe(1)):
                raise refusal.connection(_named(peer))

    def may_change(self, path: Any, beside: int = -1) -> bool:
        """Whether a path is a descriptor, a device, or in the scratch directory."""
        if isinstance(path, int):
            return True
        text = os.fsdecode(path)
        if beside is not None and beside >= 0 and not os.path.isabs(text):
            with suppress(OSError):
                text = os.path.join(os.readlink(f"/proc/self/fd/{beside}"), text)
        text = os.path.abspath(text)
        if text.startswith(DEVICES) and not text.startswith(SHARED):
            return True
        return self.scratch is not None and f"{text}/".startswith(f"{self.scratch}/")

    def place(self, path: Any, *, writes: bool, keeps: bool = True) -> Any:
        """Return the path to use: a copy, which is created if the file is to be written; else the path."""
        if not self.on or isinstance(path, int) or self.scratch is None:
            return path
        text = os.path.abspath(os.fsdecode(path))
        if text in self.copies:
            return self.copies[text]
        if not writes or self.may_change(text) or not os.path.isdir(os.path.dirname(text)):
            return path
        self.made += 1
        copy = os.path.join(self.scratch, f"{self.made}-{os.path.basename(text)}"[:100])
        if keeps and os.path.isfile(text):
            shutil.copyfile(text, copy)
        self.copies[text] = copy
        return copy

    def moved(self, source: Any, target: Any) -> bool:
        """Move a copy, or a temporary file; return whether it was one."""
        if not self.on:
            return False
        here, there = (os.path.abspath(os.fsdecode(path)) for path in (source, target))
        if here not in self.copies and (not self.may_change(here) or self.may_change(there)):
            return False
        self.copies[there] = self.copies.pop(here, here)
        return True

    def removed(self, path: Any) -> bool:
        """Remove a copy; return whether there was one."""
        if not self.on or isinstance(path, int):
            return False
        copy = self.copies.pop(os.path.abspath(os.fsdecode(path)), None)
        return copy is not None


_outside = Outside(None)


def hold_back(scratch: str | None) -> None:
    """Start. Temporary files, and copies of others, are in ``scratch``, which the caller removes."""
    global _outside
    _outside = Outside(os.path.realpath(scratch) if scratch else None)
    tempfile.tempdir = scratch
    _redirect(_outside)
    sys.addaudithook(_outside.audit)


def let_go() -> None:
    """Lift all restrictions on this process."""
    _outside.on = False


def _redirect(outside: Outside) -> None:
    """Make Python functions that open, move and remove files use the copies."""
    real_open, real_os_open = io.open, os.open

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = isinstance(mode, str) and not {*mode}.isdisjoint("wax+")
        keeps = isinstance(mode, str) and "w" not in mode
        return real_open(outside.place(file, writes=writes, keeps=keeps), mode, *args, **kwargs)

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if kwargs.get("dir_fd") is None:
            path = outside.place(path, writes=bool(flags & WRITING), keeps=not flags & os.O_TRUNC)
        return real_os_open(path, flags, *args, **kwargs)

    builtins.open = io.open = open_
    if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10's paths keep the old io.open
        accessor.open = staticmethod(open_)
    os.open = os_open
    for name in ("rename", "replace"):
        setattr(os, name, _unless(outside.moved, getattr(os, name)))
    for name in ("remove", "unlink"):
        setattr(os, name, _unless(outside.removed, getattr(os, name)))


def _unless(done: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return None if done(*args) else real(*args, **kwargs)

    return call


def _is_allowed(peer: Any) -> bool:
    return isinstance(peer, (str, bytes)) and os.fsdecode(peer).startswith(SYSTEM)


def _for_database(frame: FrameType | None) -> bool:
    """Whether Django is opening a database connection, with a driver written in Python."""
    while frame is not None:
        if frame.f_code is CONNECT:
            return True
        frame = frame.f_back
    return False


def _named(peer: Any) -> str:
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"{peer[0]}:{peer[1]}"
    return os.fsdecode(peer) if isinstance(peer, (str, bytes)) else repr(peer)
