"""The response to a request on the asyncio loop: nobody waits for a slow client but its own task.

Lives in a worker, in the loop's thread, until the response is complete; then the reactor sends what is left.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..http import limits
from ..http.exceptions import ClientGoneError
from .request_handler import ConnectionResponse
from .write_buffer import WriteBuffer

if TYPE_CHECKING:
    from ..http.parser import RequestHead
    from ..scoreboard.slot import Slot
    from .connection import Connection
    from .streaming import StreamFlowControl

STREAM_AHEAD = limits.MAX_OUTPUT_IN_MEMORY
"""How far a stream may run ahead of its client before its task waits: a waiting task costs nothing."""


class AsyncResponse(ConnectionResponse):
    """A response that a task produces."""

    __slots__ = ("_loop", "_room", "_writes", "bytes_moved", "checked")

    def __init__(
        self,
        connection: Connection,
        request: RequestHead,
        streams: StreamFlowControl,
        slot: Slot,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(connection, request, streams, slot, 0, must_close=False)
        self._loop = loop
        self._writes = False  # whether the loop waits until the socket has room
        self._room: asyncio.Future[None] | None = None
        self.bytes_moved, self.checked = 0, 0.0
        """Bytes that the client has accepted since the time of the last check."""

    def send(self, data: bytes, last: bool) -> None:
        """Send what the client accepts now; the loop, or after the last piece the reactor, sends the rest."""
        connection = self.connection
        out = connection.write_buffer
        if out is None:
            sent = connection.send_nowait(data)
            if sent == len(data):
                return
            out = connection.write_buffer = WriteBuffer()
            out.add(memoryview(data)[sent:])
        else:
            out.add(data)
        if not (last or self._writes):
            connection.sock.setblocking(False)  # sendfile has no flag that avoids waiting
            self._writes, self.bytes_moved, self.checked = True, 0, time.monotonic()
            self._loop.add_writer(connection.fd, self._flush)

    def idle(self) -> None:
        """Do nothing: the loop watches the client of a stream."""

    @property
    def is_ahead(self) -> bool:
        """Return whether the task must wait for its client before it produces more."""
        out = self.connection.write_buffer
        return out is not None and out.size > STREAM_AHEAD

    async def room(self) -> None:
        """Wait until the client has caught up; ClientGoneError if it is gone or too slow."""
        while self.is_ahead:
            self._room = self._loop.create_future()
            try:
                await self._room
            finally:
                self._room = None

    def _flush(self) -> None:
        out = self.connection.write_buffer
        assert out is not None
        try:
            self.bytes_moved += out.flush(self.connection.sock)
        except ClientGoneError as error:
            self.give_up(error)
            return
        if not out.pieces:
            self.connection.write_buffer = None
            self.stop_writing()
        if not self.is_ahead:
            self._wake(None)

    def check(self, now: float) -> None:
        """End a stream whose client has not kept the minimum rate."""
        if self._writes and now - self.checked >= limits.STALL_SECONDS:
            if self.bytes_moved < limits.STALL_SECONDS * limits.MIN_RATE:
                self._slot.aborted += 1
                self.give_up(ClientGoneError("the client reads too slowly"))
            self.bytes_moved, self.checked = 0, now

    def give_up(self, error: ClientGoneError) -> None:
        """Send no more; the task gets the error at its next wait or piece."""
        self.stop_writing()
        out = self.connection.write_buffer
        if out is not None:
            out.broken = True
        self._wake(error)

    @property
    def is_broken(self) -> bool:
        """Return whether the client is gone or was too slow."""
        out = self.connection.write_buffer
        return out is not None and out.broken

    def stop_writing(self) -> None:
        """Let the reactor send the rest."""
        if self._writes:
            self._writes = False
            with suppress(OSError, ValueError):
                self._loop.remove_writer(self.connection.fd)

    def _wake(self, error: ClientGoneError | None) -> None:
        room = self._room
        if room is not None and not room.done():
            if error is None:
                room.set_result(None)
            else:
                room.set_exception(error)
