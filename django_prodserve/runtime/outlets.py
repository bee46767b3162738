"""Where log lines leave: descriptors that nobody waits for.

Lives in the arbiter and in every worker, in whichever thread has something to say. A disk may be full, a
pipe's reader gone or stopped: no request, and no look at the workers, waits for that. What does not leave at
once is kept, up to a bound, and tried again; what does not fit is counted, and told once a minute.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import socket
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

KEPT = 2**20
"""Bytes that wait for a reader: some 4000 access lines."""
AT_ONCE = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512
"""Bytes that a pipe takes whole or not at all, so that no line of another process comes between."""
TOLD_EVERY = 60.0
LAST_WORDS = 1.0
"""Seconds that a process which ends waits for somebody to read what is left."""


class Outlet:
    """A descriptor, and what has not left through it yet."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.lost = 0
        """Lines that nobody will read."""
        self.fault = ""
        """Why the last attempt failed; nothing where it did not."""
        self._told, self._tell_at = 0, 0.0
        self._own = -1
        self._socket: socket.socket | None = None
        self._open(descriptor)
        self.forget()
        OUTLETS.add(self)

    def _open(self, descriptor: int) -> None:
        kind = os.fstat(descriptor).st_mode
        self._is_file = stat.S_ISREG(kind)
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        self._descriptor, self._asks = descriptor, False
        if not self._is_file and self._socket is None:
            # Others write to the same open pipe and may want to wait: only one of our own is ours to change.
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
            try:
                self._own = self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)
            except OSError:  # another user's, no reader, or no Linux
                self._asks = True
        if descriptor > 2 and self._own < 0:  # who opened it may close it while somebody writes
            self._own = self._descriptor = os.dup(descriptor)

    def reopen(self, descriptor: int) -> None:
        """Write elsewhere: a log was rotated."""
        with self._lock:
            self.close()
            self._open(descriptor)

    def close(self) -> None:
        """Give back what was opened here."""
        before, self._own = self._own, -1
        if before >= 0:
            os.close(before)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:  # Gunicorn makes new handlers where it reads its configuration anew
        self.close()

    def forget(self) -> None:
        """Keep nothing: a fork must not repeat its parent's lines."""
        self._lock = threading.RLock()  # a signal may come while the main thread writes
        self._waiting: deque[bytes] = deque()
        self._size = 0

    def put(self, data: bytes) -> None:
        """Write whole lines, now or when there is room."""
        with self._lock:
            if self._size + len(data) > KEPT and self._waiting:
                self.push()
            if self._size + len(data) > KEPT and self._waiting:
                self.lost += data.count(b"\n")
                return
            self._waiting.append(data)
            self._size += len(data)
            self.push()

    def push(self) -> bool:
        """Write what there is room for; say whether nothing is left."""
        with self._lock:
            waiting = self._waiting
            try:
                while waiting:
                    data = waiting[0]
                    wrote = self._write(data)
                    self._size -= wrote
                    self.fault = ""
                    if wrote == len(data):
                        waiting.popleft()
                    else:
                        waiting[0] = data[wrote:]
            except BlockingIOError:
                pass
            except OSError as error:
                self.fault = error.strerror or str(error)
                if isinstance(error, BrokenPipeError):  # nobody will ever read these
                    self.lost += sum(each.count(b"\n") for each in waiting)
                    waiting.clear()
                    self._size = 0
            return not waiting

    def _write(self, data: bytes) -> int:
        if self._is_file:
            return os.write(self._descriptor, data)
        if len(data) > AT_ONCE:
            end = data.rfind(b"\n", 0, AT_ONCE) + 1 or data.find(b"\n") + 1 or len(data)
            data = data[:end]
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._asks and not _has_room(self._descriptor):
            raise BlockingIOError
        return os.write(self._descriptor, data)

    def drain(self, seconds: float) -> None:
        """Wait for a reader that is slow, but not for long, and for no disk."""
        deadline = time.monotonic() + seconds
        while not self.push() and not self.fault and not self._is_file:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            _has_room(self._descriptor if self._socket is None else self._socket.fileno(), left)

    def report(self, now: float) -> str:
        """Return what an operator must know of it, once a minute; mostly nothing."""
        lost = self.lost - self._told
        if not (lost or (self.fault and self._waiting)) or now < self._tell_at:
            return ""
        self._tell_at, self._told = now + TOLD_EVERY, self.lost
        reason = self.fault or ("nobody reads it" if self._waiting else "it was not read for a while")
        return f"{self.name} cannot be written: {reason}. Requests are served; {lost or 'no'} lines are lost."


OUTLETS: weakref.WeakSet[Outlet] = weakref.WeakSet()


def _forget_all() -> None:
    for outlet in list(OUTLETS):
        outlet.forget()


os.register_at_fork(after_in_child=_forget_all)


def look(now: float) -> Iterator[str]:
    """Try again what is left, and yield what must be told. Once a second, from the main thread."""
    for outlet in list(OUTLETS):
        outlet.push()
        if line := outlet.report(now):
            yield line


def drain() -> None:
    """Let everything leave before this process ends, as far as somebody reads it."""
    for outlet in list(OUTLETS):
        outlet.drain(LAST_WORDS)


atexit.register(drain)


def _has_room(descriptor: int, seconds: float = 0.0) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(seconds * 1000))


class _Patient:
    """A handler of logging's that writes through an outlet."""

    outlet: Outlet | None = None
    is_json = False
    stream: Any

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)  # type: ignore[attr-defined]  # a handler's
        except Exception:  # arguments that do not fit their message
            self.handleError(record)  # type: ignore[attr-defined]
            return
        self.put(f"{line}\n".encode("utf-8", "backslashreplace"))

    def put(self, data: bytes) -> None:
        """Write whole lines."""
        outlet = self.outlet
        if outlet is not None:
            outlet.put(data)
        else:
            with suppress(OSError, ValueError):  # a stream that is no file: somebody captures it
                self.stream.write(data.decode())

    def flush(self) -> None:
        """Try again what is left."""
        if self.outlet is not None:
            self.outlet.push()


class ConsoleHandler(_Patient, logging.StreamHandler):  # type: ignore[type-arg]  # not generic before 3.11
    """Writes to standard output or standard error."""

    def __init__(self, stream: Any, name: str) -> None:
        super().__init__(stream)
        with suppress(OSError, ValueError, AttributeError):
            self.outlet = _console(stream.fileno(), name)


class FileHandler(_Patient, logging.FileHandler):
    """Writes to a file; Gunicorn opens another at SIGUSR1."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path)
        assert self.stream is not None
        self.outlet = Outlet(self.stream.fileno(), name)

    def _open(self) -> Any:
        stream = super()._open()
        if self.outlet is not None:
            self.outlet.reopen(stream.fileno())
        return stream

    def put(self, data: bytes) -> None:
        """Write whole lines; ``dictConfig`` has closed the file if somebody configured logging since."""
        if self.stream is None:
            with self.lock:  # type: ignore[union-attr]  # a handler has one
                self.stream = self.stream or self._open()
        super().put(data)


_CONSOLES: dict[int, Outlet] = {}


def _console(descriptor: int, name: str) -> Outlet:
    """Return the one outlet of a descriptor: lines keep their order, whoever writes them."""
    if descriptor not in _CONSOLES:
        _CONSOLES[descriptor] = Outlet(descriptor, name)
    return _CONSOLES[descriptor]
