"""Threads and connections that are alive when workers are forked. A worker has no such thread, and a
connection with two users mixes their answers. Each is reported, with its fix.

Runs in the arbiter, main thread, once, right before the first fork. arbiter/hooks.py has closed ours.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ..utils.tracebacks import is_own, short
from .origins import CALL_SITES

TASKS = Path("/proc/self/task")
SYSTEM = ("/run/systemd/", "/dev/log")  # sockets of a service manager's journal and notifications
AWARE = {"jemalloc_bg_thd"}  # threads that their libraries restart in a fork by themselves
ELSEWHERE = "loguru-writer-"  # workers send to it, over a queue between processes
NUMBER = re.compile(r"\d+")
START = "start it in a receiver of django_prodserve.signals.worker_started"
OPEN = START.replace("start it", "open it")


class ForkSafetyCheck:
    """The threads and connections that are alive now, and whether they existed when this was created."""

    def __init__(self) -> None:
        self.early_threads = set(threading.enumerate())
        self.early_sockets = set(connected())

    def lines(self, *, preloaded: bool, returning: Iterable[str] = ()) -> Iterator[str]:
        """Yield a line for each thread and connection. ``preloaded``: workers share the code loaded here.

        ``returning`` are kinds of threads that were seen to run again in a fork.
        """
        left = Counter(returning)
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not _takes(left, kind(thread)):
                remedy = START + _or_later(preloaded, thread in self.early_threads)
                yield f"workers will not have the thread {thread.name!r}{started_by(thread)}: {remedy}"
        for name in foreign_threads():
            if _takes(left, f"{name} of a C library"):
                continue
            yield f"workers will not have the thread {name!r} of a C library: {OPEN}"
        for connection in connected():
            remedy = OPEN + _or_later(preloaded, connection in self.early_sockets)
            opened = CALL_SITES.of_socket(connection[0])
            where = f" (opened in {opened})" if opened else ""
            yield f"workers would share the open connection to {connection[1]}{where}: {remedy}"


def kinds_of_threads() -> Iterator[str]:
    """Yield the kind of each thread of this process except the main one; a fork yields the same kinds."""
    yield from (kind(thread) for thread in threading.enumerate() if thread is not threading.main_thread())
    yield from (f"{name} of a C library" for name in foreign_threads())


def kind(thread: threading.Thread) -> str:
    """Return a thread's name without a trailing number, its class and its function."""
    runs = next((f"{function.co_filename}:{function.co_firstlineno}" for function in _functions(thread)), "")
    return f"{re.sub(NUMBER, '#', thread.name)} {type(thread).__qualname__} {runs}"


def _takes(left: Counter[str], kind: str) -> bool:
    """Remove one thread of this kind from the rest; return whether there was one."""
    left[kind] -= 1
    return left[kind] >= 0 or kind.startswith(ELSEWHERE)


def _or_later(preloaded: bool, early: bool) -> str:
    """Return the advice --no-preload, which cannot help Django's apps: the command loads them earlier."""
    return ", or serve with --no-preload" if preloaded and not early else ""


def started_by(thread: threading.Thread) -> str:
    """Return which line started a thread, and its function: the project's own one if there is one.

    If the start was not recorded, return the location of the thread's code.
    """
    started = CALL_SITES.of_thread(thread)
    codes = [*_functions(thread), *_frames(thread)]
    found = next((code for code in codes if is_own(code.co_filename)), codes[0] if codes else None)
    if started:
        return f" (started in {started}{f', to run {found.co_name}' if found else ''})"
    if found is None:
        return ""
    return f" ({found.co_name} in {short(found.co_filename)}, line {found.co_firstlineno})"


def _functions(thread: threading.Thread) -> Iterator[CodeType]:
    """Yield the function that a thread was given: Timer's function, Thread's target, a subclass's run."""
    given: list[Any] = [getattr(thread, name, None) for name in ("function", "_target")]
    if type(thread).run is not threading.Thread.run:
        given.append(type(thread).run)
    for function in given:
        while hasattr(function, "func"):  # functools.partial
            function = function.func
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType):
            yield code


def _frames(thread: threading.Thread) -> Iterator[CodeType]:
    frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def foreign_threads(tasks: Path = TASKS) -> list[str]:
    """Return the names of threads that Python did not start, such as gRPC's; empty if the system lists none.

    Threads without a name of their own are skipped: they are the pools of OpenBLAS and similar libraries,
    which restart in a fork.
    """
    ours = {thread.native_id for thread in threading.enumerate()}
    names: dict[str, str] = {}
    with suppress(OSError):
        names = {task.name: (task / "comm").read_text().strip() for task in tasks.iterdir()}
    nameless = names.get(str(os.getpid()), "")
    known = {nameless, *AWARE}
    return sorted(name for task, name in names.items() if int(task) not in ours and name not in known)


def connected() -> list[tuple[int, str]]:
    """Return descriptor and peer of every connection that is open in this process."""
    found = []
    with suppress(OSError):
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # the listing itself; listeners and others without a peer
                peer = _peer(int(name))
                if peer and not peer.startswith(SYSTEM):
                    found.append((int(name), peer))
    return sorted(found)


def _peer(descriptor: int) -> str:
    """Return the peer of a socket; empty for a pipe, or for a pair within this process."""
    if descriptor < 3 or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return ""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        address = copy.getpeername()
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return address.decode("utf-8", "replace") if isinstance(address, bytes) else str(address)
