"""Where the log leaves the process: descriptors whose readers cannot block it.

Used in the command's process, in the arbiter and in every worker, in any thread that logs. A disk may be
full, a pipe's reader gone or stopped: no start, no request and no check of the workers waits for that. Data
that cannot be written immediately is buffered, up to a limit, and tried again. Data beyond the limit is
dropped, counted, and reported once a minute.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator

MAX_KEPT_BYTES = 2**20
"""Bytes buffered for a reader: some 4000 access lines."""
AT_ONCE = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512
"""Bytes that a pipe accepts as a whole or not at all, so that lines of other processes cannot mix in."""
REPORT_SECONDS = 60.0
LAST_WRITE_SECONDS = 1.0
"""Seconds that an ending process waits for a reader of its remaining data."""


class NonBlockingWriter:
    """A descriptor, and the data that was not yet written to it."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.lost = 0
        """Lines that were dropped."""
        self.fault = ""
        """Why the last attempt failed; empty if it did not."""
        self._told, self._tell_at = 0, 0.0
        self._own = -1
        self._socket: socket.socket | None = None
        self._open(descriptor)
        self.forget()
        OUTLETS.add(self)

    def _open(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        kind = found.st_mode
        self._given, self._file = descriptor, (found.st_dev, found.st_ino)
        self._is_file = stat.S_ISREG(kind)
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(descriptor))
            if socket.getdefaulttimeout() is not None:  # of the project: it would block each write
                self._socket.settimeout(None)
        self._descriptor, self._asks = descriptor, False
        if not self._is_file and self._socket is None:
            # Other processes write to the same pipe and may want to block: only our own copy may be changed.
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
            try:
                self._own = self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)
            except OSError:  # another user's, no reader, or not Linux
                self._asks = True
        if descriptor > 2 and self._own < 0:  # its opener may close it during a write
            self._own = self._descriptor = os.dup(descriptor)

    def reopen(self, descriptor: int) -> None:
        """Write to another descriptor: a log was rotated."""
        with self._lock:
            self.close()
            self._open(descriptor)

    def follow(self) -> None:
        """Write to the descriptor's new target: Gunicorn's ``capture_output`` or the project changed it."""
        with self._lock:
            try:
                found = os.fstat(self._given)
                if (found.st_dev, found.st_ino) != self._file:
                    self.reopen(self._given)
            except OSError:  # the descriptor was closed: the copy that was opened here still works
                return

    def close(self) -> None:
        """Close the descriptor that was opened here."""
        before, self._own = self._own, -1
        if before >= 0:
            os.close(before)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __del__(self) -> None:  # Gunicorn creates new handlers when it reads its configuration again
        self.close()

    def forget(self) -> None:
        """Drop the buffer: a fork must not repeat its parent's lines."""
        self._lock = threading.RLock()  # a signal may arrive while the main thread writes
        self._waiting: deque[bytes] = deque()
        self._size = 0

    def waiting(self) -> bytes:
        """Return the data that was not yet written."""
        return b"".join(self._waiting)

    def put(self, data: bytes) -> None:
        """Write whole lines, now or when there is room."""
        with self._lock:
            if self._size + len(data) > MAX_KEPT_BYTES and self._waiting:
                self.push()
            if self._size + len(data) > MAX_KEPT_BYTES and self._waiting:
                self.lost += data.count(b"\n")
                return
            self._waiting.append(data)
            self._size += len(data)
            self.push()

    def push(self) -> bool:
        """Write as much as there is room for; return whether nothing is left."""
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
                if isinstance(error, BrokenPipeError):  # no process will ever read these
                    self.lost += sum(block.count(b"\n") for block in waiting)
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
        """Wait for a slow reader, but not for long, and for no disk."""
        deadline = time.monotonic() + seconds
        while not self.push() and not self.fault and not self._is_file:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            _has_room(self._descriptor if self._socket is None else self._socket.fileno(), left)

    def report(self, now: float) -> str:
        """Return a report of lost lines for the operator, once a minute; mostly empty."""
        lost = self.lost - self._told
        if not (lost or (self.fault and self._waiting)) or now < self._tell_at:
            return ""
        self._tell_at, self._told = now + REPORT_SECONDS, self.lost
        if self.fault:
            what = f"cannot be written: {self.fault}"
        else:
            what = "is blocked: its reader has stopped" if self._waiting else "was blocked for a while"
        lines = "1 line is" if lost == 1 else f"{lost or 'no'} lines are"
        return f"{self.name} {what}. Requests are served; {lines} lost."


OUTLETS: weakref.WeakSet[NonBlockingWriter] = weakref.WeakSet()


_CONSOLES: dict[int, NonBlockingWriter] = {}


def console(descriptor: int, name: str) -> NonBlockingWriter:
    """Return the single writer of a descriptor: lines keep their order, whichever thread writes them."""
    outlet = _CONSOLES.get(descriptor)
    if outlet is None:
        outlet = _CONSOLES[descriptor] = NonBlockingWriter(descriptor, name)
    elif outlet.name.startswith("Standard "):
        outlet.name = name  # of the log that was found to use it
    return outlet


def follow() -> None:
    """Check whether standard output and standard error have new targets."""
    for outlet in list(_CONSOLES.values()):
        outlet.follow()


def unsent() -> list[tuple[NonBlockingWriter, bytes]]:
    """Return the unwritten data, for the child of a fork whose parent will never write it."""
    return [(outlet, outlet.waiting()) for outlet in list(OUTLETS)]


def _forget_all() -> None:
    for outlet in list(OUTLETS):
        outlet.forget()


os.register_at_fork(after_in_child=_forget_all)


def report_lost(now: float) -> Iterator[str]:
    """Retry the rest, and yield reports of lost lines. Once a second, from the main thread."""
    follow()
    for outlet in list(OUTLETS):
        outlet.push()
        if line := outlet.report(now):
            yield line


def drain() -> None:
    """Write everything before this process ends, as far as readers accept it."""
    for outlet in list(OUTLETS):
        outlet.drain(LAST_WRITE_SECONDS)


atexit.register(drain)


def _has_room(descriptor: int, seconds: float = 0.0) -> bool:
    if not hasattr(
        select, "poll"
    ):  # eventlet has removed it, which is rejected soon (startup/monkey_patching.py)
        return True
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    return bool(poller.poll(seconds * 1000))
