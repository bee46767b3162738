"""Close connections that nobody uses: to make room for new ones, and after their deadline.

Lives in a worker, in the thread that waits for events and, for deadlines, in the main thread. A connection
may be in use by another thread meanwhile: whoever acquires it decides.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Protocol

from .connection import HANDSHAKE, IDLE, Connection
from .poller import READ

if TYPE_CHECKING:
    from .handshakes import Handshakes

CLOSED_AT_ONCE = 32
"""Connections that the worker closes in one batch to make room for new ones."""


class ConnectionHost(Protocol):
    """What the eviction needs from the reactor."""

    connections: dict[int, Connection]
    handshakes: Handshakes | None

    def arm(self, connection: Connection, events: int) -> None:
        """Hand the connection to the thread that gets its next event."""

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        """Close a connection, after what the client still reads."""


class Eviction:
    """Chooses connections of a reactor to close, and closes them unless they are in use again."""

    def __init__(self, host: ConnectionHost) -> None:
        self._host = host

    def make_room(self, now: float) -> None:
        """Close connections to make room: handshakes that have taken longest, or those idle for longest."""
        if self._host.handshakes is not None and self._end_handshakes():
            return
        idle = [each for each in self._connections() if each.state == IDLE and each.number]
        for connection in heapq.nsmallest(CLOSED_AT_ONCE, idle, key=lambda each: each.deadline):
            self.close_idle(connection, now)

    def _end_handshakes(self) -> bool:
        """Close the oldest handshakes that are not over; return whether there were any."""
        begun = [each for each in self._connections() if each.state == HANDSHAKE]
        oldest = heapq.nsmallest(CLOSED_AT_ONCE, begun, key=lambda each: each.deadline)
        ended = [self.end_handshake(connection, "no-room") for connection in oldest]
        return any(ended)

    def _connections(self) -> list[Connection]:
        return list(self._host.connections.values())

    def end_handshake(self, connection: Connection, reason: str) -> bool:
        """Close a connection whose handshake is not over; return False if it is over meanwhile."""
        handshakes = self._host.handshakes
        if handshakes is None or not connection.acquire():
            return False
        if connection.state != HANDSHAKE:
            self._host.arm(connection, READ)
            return False
        handshakes.fail(connection, reason)
        return True

    def close_idle(self, connection: Connection, now: float) -> None:
        """Close a connection that looked idle, unless its next request has arrived meanwhile."""
        if connection.acquire():
            if connection.state == IDLE and not connection.holds_unread():
                self._host.close(connection, now, politely=True)
            else:
                self._host.arm(connection, READ)
