"""Send responses while their thread still produces them, and wait for slower clients.

Lives in a worker: ``push`` and ``end`` in the thread that runs the request, ``flush`` in the one that waits
for events, ``expire`` in the main thread. They share the write buffer, under its lock. A thread runs ahead of
its client; if it is far ahead, it waits. Half of the threads may wait as long as their clients keep the
minimum rate, the others only briefly.
"""

from __future__ import annotations

import time
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any

from ..http import limits
from ..http.exceptions import ClientGoneError
from ..scoreboard.slot import Slot
from .connection import OWNED, STREAM, WRITE, Connection
from .poller import WRITE as WRITABLE
from .poller import Epoll, Poll
from .write_buffer import WriteBuffer


def sends_files(config: Any) -> bool:
    """Return Gunicorn's setting ``sendfile``: its own property returns False for True."""
    stated = config.settings["sendfile"].get()
    return bool(config.sendfile if stated is None else stated)


class StreamFlowControl:
    """The streams of one worker."""

    def __init__(self, poller: Epoll | Poll, slot: Slot, slots: int, *, sends_files: bool = True) -> None:
        self._poller, self._slot = poller, slot
        self.sends_files = sends_files
        """Whether the kernel may send files from your project: Gunicorn's ``sendfile``."""
        self._slots = slots
        self._holding = 0

    def resize(self, slots: int) -> None:
        """Follow the number of threads that may run requests: half of them may wait for slow readers."""
        self._slots = slots

    def push(self, connection: Connection, data: bytes) -> None:
        """Send the data, or keep it until the client accepts it; ClientGoneError if it is gone."""
        out = connection.write_buffer
        if out is None:
            sent = connection.send_nowait(data)
            if sent == len(data):
                return
            out = connection.write_buffer = WriteBuffer()
            data = data[sent:]
        with out.lock:
            if not out.pieces and not out.broken:
                data = data[connection.send_nowait(data) :]
            if out.broken:
                raise ClientGoneError("the client is gone")
            if data:
                out.add(data)
                self._arm_writer(connection)
            if out.size > limits.STREAM_AHEAD:
                self._wait_for_reader(out)

    def _arm_writer(self, connection: Connection) -> None:
        """Let the thread that waits for events send the rest."""
        if connection.state != STREAM:
            connection.state, connection.bytes_since_check = STREAM, 0
            connection.deadline = time.monotonic() + limits.STALL_SECONDS
            connection.sock.setblocking(False)  # sendfile has no flag that avoids waiting
        if not connection.armed:
            connection.armed = True
            if connection.is_registered:
                self._poller.arm(connection.fd, WRITABLE)
            else:
                connection.is_registered = True
                self._poller.add(connection.fd, WRITABLE)

    def _wait_for_reader(self, out: WriteBuffer) -> None:
        """Wait until the client has caught up, for as long as this stream may occupy its thread."""
        self._holding += 1
        patience = limits.STREAM_HOLD_SECONDS if self._holding > max(1, self._slots // 2) else float("inf")
        until = time.monotonic() + patience
        try:
            while out.size > limits.STREAM_AHEAD // 2 and not out.broken:
                if not out.room.wait(1.0) and time.monotonic() > until:
                    self._abort(out)
        finally:
            self._holding -= 1
        if out.broken:
            raise ClientGoneError("the client reads too slowly")

    def _abort(self, out: WriteBuffer) -> None:
        out.broken = True
        self._slot.aborted += 1
        out.room.notify_all()

    def flush(self, connection: Connection) -> bool:
        """Send what the socket accepts; False if the thread has ended meanwhile: nothing was done."""
        out = connection.write_buffer
        if out is None:
            return True
        with out.lock:
            connection.armed = False
            if connection.state != STREAM:
                return False
            try:
                connection.bytes_since_check += out.flush(connection.sock)
            except ClientGoneError:
                out.broken = True
            if out.pieces and not out.broken:
                self._arm_writer(connection)
            out.room.notify_all()
        return True

    def end(self, connection: Connection, now: float) -> bool:
        """Finish a stream; return whether some of it is left, which the event loop sends without a thread."""
        out = connection.write_buffer
        assert out is not None
        with out.lock:
            if out.broken:
                raise ClientGoneError("the client is gone")
            connection.armed = False
            if not out.pieces:
                connection.state, connection.write_buffer = OWNED, None
                return False
            connection.sock.setblocking(False)
            connection.state, connection.deadline, connection.bytes_since_check = (
                WRITE,
                now + limits.STALL_SECONDS,
                0,
            )
            return True

    def expire(self, connection: Connection, now: float) -> None:
        """Terminate a stream whose client has not kept the minimum rate."""
        out = connection.write_buffer
        if out is None:
            return
        with out.lock:
            if connection.state != STREAM or connection.deadline > now:
                return
            if not out.pieces or connection.bytes_since_check >= limits.STALL_SECONDS * limits.MIN_RATE:
                connection.deadline, connection.bytes_since_check = now + limits.STALL_SECONDS, 0
                return
            self._abort(out)
            with suppress(OSError):
                connection.sock.shutdown(SHUT_RDWR)
