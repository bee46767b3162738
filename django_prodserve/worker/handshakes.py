"""Let clients begin TLS: the first bytes of a connection, until its handshake is over.

Lives in a worker, in the thread that waits for events. A handshake costs 0.3 to 0.6 ms of CPU, as much as
several requests, and anybody may ask for one. So handshakes run last, after all other events, for at most
``SLICE_SECONDS`` in a row. While requests wait, they get no more than ``SHARE`` of the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gunicorn.http.errors import ParseException

from ..http import limits
from ..http.exceptions import ClientGoneError
from ..http.proxy_protocol import IncompleteError, Preface
from ..http.response import complete
from .connection import IDLE, Connection
from .poller import READ
from .poller import WRITE as WRITABLE
from .tls_socket import HandshakeError, TLSSocket

if TYPE_CHECKING:
    from ..http.parser import ParserSettings
    from ..tls.contexts import TLSContexts

SLICE_SECONDS = 0.002
"""Time for handshakes after which the worker looks for other events: four of them with an EC key."""
SHARE = 0.25
"""Share of the time for handshakes while requests wait."""
HANDSHAKE_RECORD = b"\x16"
"""How every TLS connection begins: the type of the record with the client's hello."""
PLAIN_HTTP = (
    b"This port speaks HTTPS, and your request came in plain HTTP.\nWrite https:// in front of the address.\n"
)


def plain_http() -> bytes:
    """Return the response to a request in plain HTTP; nginx answers the same status."""
    lines = ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(PLAIN_HTTP)}"]
    return complete("400 Bad Request", lines, PLAIN_HTTP, keep=False)


class TimeShare:
    """How long handshakes may take now. ``limited``: requests wait meanwhile."""

    def __init__(self) -> None:
        self._left, self._at = SLICE_SECONDS, 0.0

    def slice(self, now: float, *, limited: bool) -> float:
        """Return the seconds for which handshakes may run from now on; zero or less: not yet."""
        if not limited:
            return SLICE_SECONDS
        self._left = min(SLICE_SECONDS, self._left + (now - self._at) * SHARE)
        self._at = now
        return self._left

    def spend(self, seconds: float) -> None:
        """Record that handshakes took so long; the last one may have taken more than was left."""
        self._left = max(-SLICE_SECONDS, self._left - seconds)

    def wait(self, *, limited: bool) -> float:
        """Return the seconds until handshakes may run again."""
        return max(0.0, -self._left / SHARE) if limited else 0.0


class HandshakeHost(Protocol):
    """What handshakes need from the reactor."""

    def receive(self, connection: Connection, now: float) -> None:
        """Read the bytes of a request that have arrived."""

    def arm(self, connection: Connection, events: int) -> None:
        """Hand the connection to the thread that gets its next event."""

    def drop(self, connection: Connection) -> None:
        """Close a connection."""

    def refuse_plain(
        self, connection: Connection, data: bytes, make: Callable[[], bytes], now: float
    ) -> None:
        """Answer a request that arrived in plain HTTP, and close."""

    def refuse(self, connection: Connection, error: Exception, now: float) -> None:
        """Answer a request that the worker cannot accept, and close."""

    def guard(self, step: Callable[[Connection, float], None], connection: Connection, now: float) -> None:
        """Run a step; an error costs one connection, not the worker."""


class HandshakeCounters(Protocol):
    """Where a worker publishes its handshakes: a slot of the scoreboard."""

    def count_handshake(self, *, resumed: bool) -> None:
        """Count a handshake that is complete."""

    def count_failed_handshake(self, reason: str) -> None:
        """Count one that is not, by a word."""


class Handshakes:
    """The handshakes of one worker."""

    def __init__(
        self,
        host: HandshakeHost,
        contexts: TLSContexts,
        settings: ParserSettings,
        slot: HandshakeCounters,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._contexts, self._slot, self._clock = host, contexts, slot, clock
        self._preface = Preface(settings) if settings.proxy_protocol != "off" else None
        self._ready: deque[Connection] = deque()
        """Connections whose bytes have arrived. Those that have begun come first: they need less CPU."""
        self._share = TimeShare()

    def enqueue(self, connection: Connection, now: float) -> None:
        """Keep a connection with an event until the other events are handled. It stays owned."""
        if connection.tls is not None and connection.tls.has_begun:
            self._ready.appendleft(connection)
        else:
            self._ready.append(connection)

    def run(self, *, requests_wait: bool) -> None:
        """Continue handshakes until the slice is over, or the share while requests wait."""
        if not self._ready:
            return
        started = now = self._clock()
        seconds = self._share.slice(now, limited=requests_wait)
        while self._ready and now - started < seconds:
            self._host.guard(self.step, self._ready.popleft(), now)
            now = self._clock()
        if requests_wait:
            self._share.spend(now - started)

    def timeout(self, *, requests_wait: bool) -> float | None:
        """Return how long the worker may wait for events; None if no handshake is due."""
        return self._share.wait(limited=requests_wait) if self._ready else None

    def step(self, connection: Connection, now: float) -> None:
        """Continue one handshake with what has arrived."""
        try:
            if now > connection.deadline:  # it has waited for its turn
                raise HandshakeError("timeout")
            if not self._continue(connection, now):
                return
        except BlockingIOError:
            self._host.arm(connection, READ)
        except HandshakeError as error:
            self.fail(connection, error.reason)
        except ParseException as error:  # a PROXY header that is wrong, or not allowed
            self._slot.count_failed_handshake("not-tls")
            self._host.refuse(connection, error, now)
        except (OSError, ClientGoneError):
            self.fail(connection, "closed")
        else:
            self._host.receive(connection, now)

    def fail(self, connection: Connection, reason: str) -> None:
        """Count a failed handshake, and close the connection."""
        self._slot.count_failed_handshake(reason)
        self._host.drop(connection)

    def _continue(self, connection: Connection, now: float) -> bool:
        """Return whether the handshake is over, so that a request may follow."""
        tls, data = connection.tls, b""
        if tls is None:
            data = self._first_bytes(connection)
            if not data.startswith(HANDSHAKE_RECORD):
                self._refuse(connection, data, now)
                return False
            tls = TLSSocket(connection.sock, self._contexts)  # type: ignore[arg-type]  # it is bare
            connection.speak_tls(tls)
        if not tls.handshake(data):
            self._host.arm(connection, WRITABLE if tls.has_unsent else READ)
            return False
        self._slot.count_handshake(resumed=tls.is_resumed)
        connection.state, connection.deadline = IDLE, now + limits.HEAD_SECONDS
        return True

    def _first_bytes(self, connection: Connection) -> bytes:
        """Return the bytes from which on the client speaks; a balancer may introduce it in plain before."""
        data = connection.receive()
        if not data:
            raise HandshakeError("closed")
        if self._preface is None or connection.introduced is not None:
            return data
        data, connection.buffer = connection.buffer + data, b""
        try:
            said, rest = self._preface.take(data, connection.peer)
        except IncompleteError:
            connection.buffer = data
            raise BlockingIOError from None
        if said.environ:  # otherwise the header may follow inside TLS, where Gunicorn expects it
            connection.introduced = said.environ
            connection.peer = said.client or connection.peer
        if not rest:
            raise BlockingIOError
        return rest

    def _refuse(self, connection: Connection, data: bytes, now: float) -> None:
        """Answer what is not TLS: HTTP in plain words, anything else not at all."""
        if data[:1].isalpha():
            self._slot.count_failed_handshake("http")
            self._host.refuse_plain(connection, data, plain_http, now)
        else:
            self.fail(connection, "not-tls")
