"""What becomes of connections on which nothing happens: too late, idle for long, or in the way of the end.

Lives in a worker, in the main thread. It takes a connection as whoever gets its event does, and so never one
that somebody else works on.
"""

from __future__ import annotations

from functools import partial

from ..http import limits
from ..http.exceptions import ClientGoneError
from . import error_responses
from .connection import BODY, HEAD, IDLE, STREAM, WRITE, Connection
from .poller import READ
from .poller import WRITE as WRITABLE
from .reactor import Reactor


class Deadlines:
    """The deadlines of one worker's connections."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def tick(self, now: float) -> None:
        """Once a second: end what has taken too long."""
        reactor = self._reactor
        for connection in list(reactor.connections.values()):
            if connection.deadline > now:
                continue
            if connection.state == STREAM:
                reactor.streams.expire(connection, now)
            elif connection.acquire():
                self._expire(connection, now)

    def _expire(self, connection: Connection, now: float) -> None:
        """Do what is due on a connection that is ours for it."""
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
            elif state == IDLE:
                connection.release()
                reactor.close_idle(connection, now)
            else:
                reactor.slot.aborted += state == WRITE
                reactor.drop(connection)
        except ClientGoneError:
            reactor.drop(connection)

    def turn_away(self, now: float) -> None:
        """Refuse what waits for threads that are stuck: another worker has taken over."""
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
        """Close connections that have been idle since the worker began to retire."""
        reactor = self._reactor
        for connection in list(reactor.connections.values()):
            if connection.state == IDLE and connection.deadline <= before + reactor.keep_alive:
                reactor.close_idle(connection, before)
