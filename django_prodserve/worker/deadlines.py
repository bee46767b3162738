"""Handle connections without events: past their deadline, idle for long, or open while the worker stops.

Lives in a worker, in the main thread. The main thread acquires a connection as any thread that gets its event
does. So it never touches one that another thread works on.
"""

from __future__ import annotations

from functools import partial

from ..http import limits
from ..http.exceptions import ClientGoneError
from . import error_responses
from .connection import BODY, HANDSHAKE, HEAD, IDLE, STREAM, WRITE, Connection
from .poller import READ
from .poller import WRITE as WRITABLE
from .reactor import Reactor


class Deadlines:
    """The deadlines of one worker's connections."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def tick(self, now: float) -> None:
        """Once a second: end connections whose deadline has passed."""
        reactor = self._reactor
        for connection in list(reactor.connections.values()):
            if connection.deadline > now:
                continue
            if connection.state == STREAM:
                reactor.streams.expire(connection, now)
            elif connection.acquire():
                self._expire(connection, now)

    def _expire(self, connection: Connection, now: float) -> None:
        """Handle the passed deadline of a connection that this thread has acquired."""
        reactor, state = self._reactor, connection.state
        try:
            if connection.deadline > now:
                reactor.arm(connection, WRITABLE if state == WRITE else READ)
            elif (
                state in (BODY, WRITE)
                and connection.bytes_since_check >= limits.STALL_SECONDS * limits.MIN_RATE
            ):
                connection.deadline, connection.bytes_since_check = now + limits.STALL_SECONDS, 0
                reactor.arm(connection, WRITABLE if state == WRITE else READ)
            elif state in (HEAD, BODY):
                reactor.send_error(connection, error_responses.request_timeout, now, keep=False)
            elif state == HANDSHAKE:
                connection.release()
                reactor.eviction.end_handshake(connection, "timeout")
            elif state == IDLE:
                connection.release()
                reactor.eviction.close_idle(connection, now)
            else:
                reactor.slot.aborted += state == WRITE
                reactor.drop(connection)
        except ClientGoneError:
            reactor.drop(connection)

    def turn_away(self, now: float) -> None:
        """Refuse requests that wait for hung threads: another worker has taken over."""
        reactor = self._reactor
        while (connection := reactor.scheduler.pop_queued()) is not None:
            reactor.slot.count_refused()
            try:
                reactor.send_error(
                    connection, partial(error_responses.service_unavailable, keep=False), now, keep=False
                )
            except ClientGoneError:
                reactor.drop(connection)

    def hurry(self, before: float) -> None:
        """Close connections that have been idle, or in a handshake, since the worker began to retire."""
        reactor = self._reactor
        for connection in list(reactor.connections.values()):
            if connection.state == HANDSHAKE and connection.deadline <= before + limits.HANDSHAKE_SECONDS:
                reactor.eviction.end_handshake(connection, "timeout")
            if connection.state == IDLE and connection.deadline <= before + reactor.keep_alive:
                reactor.eviction.close_idle(connection, before)
