"""Accept connections from the listening sockets when accept_policy.py decides that this worker should.

Lives in a worker, in the thread that waits for events. A connection that was accepted before its request
arrived counts as load for a moment, because it will need a thread.
"""

from __future__ import annotations

import errno
import math
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import SocketType
from typing import Any

from ..machine import tcp_info
from ..scoreboard import stop_flags
from ..scoreboard.board import Scoreboard
from ..scoreboard.slot import Slot
from .accept_policy import AcceptPolicy, Deferral
from .poller import Epoll, Poll

LISTENER_DEFER_SECONDS = 0.003
"""Seconds for which this worker leaves a connection to a less loaded one, which the kernel also woke."""
REQUEST_EXPECTED_SECONDS = 0.01
"""Seconds in which the worker expects a request on a connection that it accepted without one. Local requests
arrive sooner. The worker reserves no thread for a silent client beyond this."""
REBALANCE_SECONDS = 0.05
"""Interval between two decisions that move a keep-alive connection to another worker."""
AT_A_TIME_REFUSING = 48
"""Connections that an overloaded worker accepts in one batch. The batch is small enough not to delay a
running request beyond concurrency_limit.STALL_SECONDS."""
RESERVED_DESCRIPTORS = 128
"""File descriptors that connections leave free for the application."""
MAX_BACKLOG = 100_000
"""Upper bound for the length of a kernel's accept queue."""
RETRY_SECONDS = 0.5
"""Seconds until the next attempt if the process has no file descriptor left."""
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
GONE_ERRORS = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR, errno.EPERM}

NOT_DEFERRED = Deferral()

Arrived = Callable[[SocketType, Any, int, float, float], bool]
"""Called for each new connection; returns whether its request has already arrived."""


class Acceptor:
    """Accepts connections from the listeners when the accept policy allows it."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        poller: Epoll | Poll,
        board: Scoreboard,
        slot: Slot,
        most: int,
        make_room: Callable[[float], None],
        policy: AcceptPolicy,
    ) -> None:
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self.retry_at = math.inf
        """When this worker accepts connections that it left to other workers."""
        self._poller, self._board, self._slot, self._most = poller, board, slot, most
        self._make_room, self._policy = make_room, policy
        self.is_watching = False
        self._move_at = 0.0
        self.awaiting_request: dict[int, float] = {}
        """Connections whose first request has not arrived, by descriptor: when the worker accepted them."""
        self._deferred = NOT_DEFERRED
        self._lock = threading.Lock()  # drain returns only when accepted connections are registered

    def start(self) -> None:
        """Begin to accept connections."""
        for listener in self.listeners.values():
            listener.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        self.is_watching = True
        for descriptor in self.listeners:
            self._poller.watch(descriptor)

    def _leave(self, until: float) -> None:
        """Ignore the listeners until then."""
        self.retry_at = until
        if self.is_watching:
            self.is_watching = False
            for descriptor in self.listeners:
                self._poller.forget(descriptor)

    def accept(self, now: float, load: int, arrived: Arrived, *, overloaded: bool = False) -> None:
        """Accept this worker's share. Called when a listener is ready, or when ``retry_at`` has passed.

        ``load`` counts the requests that run or wait here. While ``overloaded``, the worker accepts
        connections in batches with pauses. Accepting connections one by one, only to refuse them, would
        starve running requests of the GIL.
        """
        with self._lock:
            if now < self.retry_at < math.inf:
                return
            self.retry_at = math.inf
            room = self._most - self._slot.connections
            if room <= 0:
                self._make_room(now)
                self._leave(now + 10 * LISTENER_DEFER_SECONDS)
            elif overloaded:
                self._take_many(room, now, arrived)
            else:
                self._take_share(room, now, load, arrived)

    def _take_many(self, room: int, now: float, arrived: Arrived) -> None:
        self._deferred = NOT_DEFERRED
        self._leave(now + LISTENER_DEFER_SECONDS)
        for descriptor in self.listeners:
            self._take(descriptor, min(room, AT_A_TIME_REFUSING), now, arrived)

    def _take_share(self, room: int, now: float, load: int, arrived: Arrived) -> None:
        for descriptor, taken in list(self.awaiting_request.items()):
            if taken < now - REQUEST_EXPECTED_SECONDS:
                del self.awaiting_request[descriptor]
        load += len(self.awaiting_request)
        deferred, before = self._deferred, self._slot.connections
        batch = self._policy.batch(before, self._peers, load, deferred)
        if batch == 0:
            seconds = deferred.seconds + LISTENER_DEFER_SECONDS if deferred.times else 0.0
            self._deferred = Deferral(deferred.times or 1, seconds)
            self._leave(now + LISTENER_DEFER_SECONDS)
            return
        late = deferred.times > 0 or load > self._slot.threads
        most = min(room, batch)
        remains = [self._take(descriptor, most, now, arrived, late=late) for descriptor in self.listeners]
        shared = deferred.times == 1 and self._slot.connections > before
        if deferred.times and any(remains) and not shared:
            self._deferred = deferred._replace(times=deferred.times + 1)
            self._leave(min(self.retry_at, now + LISTENER_DEFER_SECONDS))
        elif self.retry_at == math.inf:
            self._deferred = NOT_DEFERRED
            if not self.is_watching:
                self._watch()

    def _peers(self) -> list[tuple[int, int]]:
        return self._board.peers(self._slot)

    def peer_has_capacity(self, load: int) -> bool:
        """Return whether a request would queue in this worker and not in another one."""
        return self._policy.peer_has_capacity(load, self._peers)

    def _take(self, descriptor: int, most: int, now: float, arrived: Arrived, *, late: bool = True) -> bool:
        """Accept up to this many; return whether some may be left. ``late``: they may have waited long."""
        listener, shares = self.listeners[descriptor], self._deferred.times == 1
        for _ in range(most):
            if shares and not self._policy.has_fewest(self._slot.connections, self._peers):
                return True
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._leave(now + RETRY_SECONDS)
                elif error.errno not in GONE_ERRORS:
                    raise
                return False
            if not arrived(sock, peer, descriptor, now, tcp_info.waited(sock) if late else 0.0):
                self.awaiting_request[sock.fileno()] = now
        return True

    def should_rebalance(self, now: float, load: int) -> bool:
        """Return whether another worker would serve this connection sooner. ``load``: requests here.

        Connections move one at a time, so that they do not all leave and come back.
        """
        if now < self._move_at:
            return False
        self._move_at = now + REBALANCE_SECONDS
        return self._policy.should_rebalance(self._slot.connections, self._peers, load)

    def unaccepted(self) -> float:
        """Return how many connections wait in the accept queue, as this worker's share of them."""
        queues = map(tcp_info.accept_queue, self.listeners.values())
        return sum(queue[0] for queue in queues if queue) / (1 + len(self._peers()))

    def drain(self, arrived: Arrived, now: float) -> None:
        """Close the listeners, and first accept all waiting connections, unless other workers keep serving.

        The kernel would reset connections left in the accept queue.
        """
        is_last = stop_flags.closing() or not self._peers()
        with self._lock:
            self._deferred = NOT_DEFERRED
            for descriptor, listener in self.listeners.items():
                self._poller.forget(descriptor)
                with suppress(OSError):
                    if is_last:
                        self._take(descriptor, MAX_BACKLOG, now, arrived)
                listener.close()
            self.listeners = {}
            self.retry_at = math.inf


def descriptors_for(connections: int) -> int:
    """Let this process open as many files as this many connections need; return how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # macOS has another limit in addition to this one
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, max(16, soft - RESERVED_DESCRIPTORS))
