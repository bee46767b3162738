"""The socket of one websocket: what arrives, what is to be sent, and a client that does neither.

Lives in a worker, in the asyncio loop's thread. The connection stays one of the reactor's, owned by the loop:
so it counts in the balance between workers and in their limits, and a copy of the process closes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections import deque
from contextlib import suppress
from socket import MSG_DONTWAIT, SO_ERROR, SOL_SOCKET, SocketType
from typing import TYPE_CHECKING, Protocol

from ..http import limits

if TYPE_CHECKING:
    from .tls_socket import TLSSocket

AHEAD_BYTES = 64 * 1024
"""Bytes by which an application may be ahead of its client before a send waits."""
JOINED_BYTES = 16 * 1024
"""Maximum size of a message that is copied behind its head, which costs less than a second piece."""
PIECES_AT_A_TIME = 16


class Endpoint(Protocol):
    """The connection, as far as a link needs it."""

    sock: SocketType | TLSSocket
    fd: int


class WebSocketLink:
    """Reads and writes the bytes of one websocket. Subclasses give them a meaning."""

    __slots__ = (
        *("_is_polite", "_loop", "_out", "_pieces", "_reads", "_rooms", "_writes"),
        *("aborted", "bytes_sent", "checked", "connection", "ends", "moved", "position"),
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Endpoint) -> None:
        self._loop, self.connection = loop, connection
        self._reads = self._writes = False
        self._pieces: deque[bytes | memoryview] | None = None
        self._out = 0
        """Bytes that the client has not accepted yet."""
        self._rooms: list[asyncio.Future[None]] | None = None
        self.ends = self.aborted = self._is_polite = False
        """Whether the link closes after its last byte, whether the client read too slowly, and whether it may
        still be sending."""
        self.position = self.bytes_sent = self.moved = 0
        """All bytes written, those of messages, and those that have left since the time of the last check."""
        self.checked = 0.0

    # For subclasses.

    @property
    def is_full(self) -> bool:
        """Return whether no more may be read now."""
        raise NotImplementedError

    @property
    def read_size(self) -> int:
        """Return how many bytes to read at a time."""
        raise NotImplementedError

    def arrived(self, data: bytes) -> None:
        """Take bytes of the client."""
        raise NotImplementedError

    def gone(self) -> None:
        """Note that the client is gone: nothing can be read or sent any more."""
        raise NotImplementedError

    def closed(self, *, politely: bool) -> None:
        """Return the connection to the reactor, which closes it."""
        raise NotImplementedError

    # Reading.

    def read_on(self) -> None:
        """Read what arrives."""
        if not (self._reads or self.ends):
            self._reads = True
            self._loop.add_reader(self.connection.fd, self._readable)

    def stop_reading(self) -> None:
        """Let the kernel hold what arrives; the client waits when its buffers are full."""
        if self._reads:
            self._reads = False
            self._loop.remove_reader(self.connection.fd)

    @property
    def is_reading(self) -> bool:
        return self._reads

    def _readable(self) -> None:
        if self.is_full:
            self.stop_reading()
            return
        try:
            data = self.connection.sock.recv(self.read_size, MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.arrived(data)
        else:
            self.gone()

    def has_failed(self) -> bool:
        """Return whether the kernel has found the client gone; for a link that does not read."""
        return bool(self.connection.sock.getsockopt(SOL_SOCKET, SO_ERROR))

    # Writing.

    def write(self, head: bytes, data: bytes = b"") -> None:
        """Send bytes, now or when the client has room."""
        if self.ends:
            return
        size = len(data)
        self.bytes_sent += size
        self.position += len(head) + size
        if size <= JOINED_BYTES:
            head, size = head + data, 0
        if not self._out:
            try:
                if size:
                    sent = self.connection.sock.sendmsg((head, data), (), MSG_DONTWAIT)
                else:
                    sent = self.connection.sock.send(head, MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.gone()
                return
            left = len(head) + size - sent
            if not left:
                return
            self._begin_writing()
            if sent < len(head):
                self._keep(memoryview(head)[sent:])
                sent = len(head)
            if size:
                self._keep(memoryview(data)[sent - len(head) :])
            return
        self._keep(head)
        if size:
            self._keep(data)

    def _keep(self, piece: bytes | memoryview) -> None:
        assert self._pieces is not None
        self._pieces.append(piece)
        self._out += len(piece)

    def _begin_writing(self) -> None:
        self._writes, self._pieces = True, deque()
        self.moved, self.checked = 0, self._loop.time()
        self._loop.add_writer(self.connection.fd, self._writable)

    def _stop_writing(self) -> None:
        self._pieces, self._out = None, 0
        if self._writes:
            self._writes = False
            self._loop.remove_writer(self.connection.fd)

    def _writable(self) -> None:
        pieces, some = self._pieces, []
        assert pieces is not None
        for number, piece in enumerate(pieces):
            if number == PIECES_AT_A_TIME:
                break
            some.append(piece)
        try:
            sent = self.connection.sock.sendmsg(some, (), MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.gone()
            return
        self._out -= sent
        self.moved += sent
        while sent and sent >= len(pieces[0]):
            sent -= len(pieces.popleft())
        if sent:
            pieces[0] = memoryview(pieces[0])[sent:]
        if not pieces:
            self._stop_writing()
            self.written()
        if not self.is_ahead:
            self._wake()

    def written(self) -> None:
        """Continue after the last byte: close the link, if it ends."""
        if self.ends:
            self.closed(politely=self._is_polite)

    @property
    def arrived_bytes(self) -> int:
        """Return how many bytes the client's system has acknowledged."""
        unacknowledged = 0
        with suppress(OSError):  # not on every system
            found = fcntl.ioctl(self.connection.fd, termios.TIOCOUTQ, bytes(4))
            unacknowledged = int.from_bytes(found, sys.byteorder)
        return self.position - self._out - unacknowledged

    @property
    def is_ahead(self) -> bool:
        """Return whether the client is far behind."""
        return self._out > AHEAD_BYTES

    async def room(self) -> None:
        """Wait until the client has caught up, or is gone."""
        if self._rooms is None:
            self._rooms = []
        while self.is_ahead:
            future = self._loop.create_future()
            self._rooms.append(future)
            await future

    def _wake(self) -> None:
        if self._rooms:
            rooms, self._rooms = self._rooms, None
            for room in rooms:
                if not room.done():
                    room.set_result(None)

    def is_stalled(self, now: float) -> bool:
        """Return whether the client has not kept the minimum rate."""
        if not self._out or now - self.checked < limits.STALL_SECONDS:
            return False
        moved, self.moved, self.checked = self.moved, 0, now
        return moved < limits.STALL_SECONDS * limits.MIN_RATE

    # The end.

    def finish(self, *, politely: bool) -> None:
        """Close the link after its last byte; ``politely`` if the client may still be sending."""
        if not self.ends:
            self.stop_reading()
            self.ends, self._is_polite = True, politely
            if not self._out:
                self.closed(politely=politely)

    def cut(self) -> None:
        """Close the link now."""
        is_new = not self.ends or bool(self._out)
        self.ends = True
        self.stop_reading()
        with suppress(OSError, ValueError):
            self._stop_writing()
        self._wake()
        if is_new:
            self.closed(politely=False)
