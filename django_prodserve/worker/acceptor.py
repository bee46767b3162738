"""Which worker takes a new connection.

Lives in a worker, in the thread that waits for events. The kernel wakes every worker for a new connection.
One takes it that has a free slot and no more connections than the least loaded of those that have one too;
the others leave it. What still waits after 3 ms is taken by who has the fewest connections, and after another
3 ms by anybody, few at first: a worker that gets no CPU for a moment finds its share, and one that never
answers holds up nobody. Who has no free thread leaves it for 50 ms to those who have one; a connection that
was taken before its request had come will need a thread, too.

A kept connection cannot move to another worker. Where more requests wait here than there, and the worker
there has fewer connections, a client is told to make a new one.
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
from ..scoreboard.board import Board
from ..scoreboard.slot import Slot
from .poller import Epoll, Poll

PATIENCE = 0.003
"""Seconds that a connection is left to a less loaded worker: it is awake already."""
LONGEST_WAIT = 0.05
"""Seconds that a connection is left to a worker with a free thread by one that has none."""
REQUEST_IN = 0.01
"""Seconds in which a request is expected on a connection that was taken without one. Local ones come sooner;
what a silent client might need is not kept free for longer."""
MOVE_EVERY = 0.05
"""Seconds from one look whether a kept connection should go to another worker to the next."""
AT_A_TIME, AT_A_TIME_REFUSING = 16, 48
"""Connections taken before those that are here get their turn; and while most are refused, fewer than keep
a request that computes from its end for so long that others run beside it (concurrency_limit.PATIENCE)."""
RESERVED = 128
"""Descriptors that connections leave to the application."""
MANY = 100_000
"""More than a kernel queues."""
SHORTAGE = 0.5
"""Seconds until the next try where descriptors are used up."""
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
GONE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR, errno.EPERM}

Arrived = Callable[[SocketType, Any, int, float, float], bool]
"""Told of a connection; says whether its request has come already."""


class Acceptor:
    """Takes connections from the listeners, when it is this worker's turn."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        poller: Epoll | Poll,
        board: Board,
        slot: Slot,
        most: int,
        make_room: Callable[[float], None],
    ) -> None:
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self._kinds = {each.fileno(): (each.family, each.type, each.proto) for each in listeners}
        self.retry_at = math.inf
        """When connections that were left to others are taken all the same."""
        self._poller, self._board, self._slot, self._most = poller, board, slot, most
        self._make_room = make_room
        self.is_watching = False
        self._move_at = 0.0
        self.expected: dict[int, float] = {}
        """Connections whose first request is still to come, by descriptor: when they were taken."""
        self._left = 0  # how often in a row connections were left to others
        self._waited = 0.0  # seconds that they were left to somebody with a free thread, of whom we have none
        self._lock = threading.Lock()  # what was accepted is known when drain returns

    def start(self) -> None:
        """Begin to take connections."""
        for listener in self.listeners.values():
            listener.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        self.is_watching = True
        for descriptor in self.listeners:
            self._poller.watch(descriptor)

    def _leave(self, until: float) -> None:
        """Hear nothing of the listeners until then."""
        self.retry_at = until
        if self.is_watching:
            self.is_watching = False
            for descriptor in self.listeners:
                self._poller.forget(descriptor)

    def accept(self, now: float, load: int, arrived: Arrived, *, overloaded: bool = False) -> None:
        """Take what is this worker's to take. Called when a listener is ready, or ``retry_at`` has come.

        ``load`` is how many requests run or wait here. While ``overloaded``, connections are taken many at a
        time with a pause: who takes each as it comes to refuse it keeps the interpreter from what is served.
        """
        with self._lock:
            if now < self.retry_at < math.inf:
                return
            self.retry_at = math.inf
            room = self._most - self._slot.connections
            if room <= 0:
                self._make_room(now)
                self._leave(now + 10 * PATIENCE)
            elif overloaded:
                self._take_many(room, now, arrived)
            else:
                self._take_share(room, now, load, arrived)

    def _take_many(self, room: int, now: float, arrived: Arrived) -> None:
        self._left = 0
        self._leave(now + PATIENCE)
        for descriptor in self.listeners:
            self._take(descriptor, min(room, AT_A_TIME_REFUSING), now, arrived)

    def _take_share(self, room: int, now: float, load: int, arrived: Arrived) -> None:
        for descriptor, taken in list(self.expected.items()):
            if taken < now - REQUEST_IN:
                del self.expected[descriptor]
        load += len(self.expected)
        if self._left == 0 and not self._is_mine(load):
            self._left, self._waited = 1, 0.0
            self._leave(now + PATIENCE)
            return
        if self._left and self._waited < LONGEST_WAIT and self.is_full_beside_free(load):
            self._waited += PATIENCE
            self._leave(now + PATIENCE)
            return
        before = self._slot.connections
        most = min(room, self._at_a_time())
        late = self._left > 0 or load > self._slot.threads
        left = [self._take(descriptor, most, now, arrived, late=late) for descriptor in self.listeners]
        shared = self._left == 1 and self._slot.connections > before
        if self._left and any(left) and not shared:
            self._left += 1
            self._leave(min(self.retry_at, now + PATIENCE))
        elif self.retry_at == math.inf:
            self._left = 0
            if not self.is_watching:
                self._watch()

    def _at_a_time(self) -> int:
        """Return how many to take: ever more while a less loaded worker leaves them lying."""
        late = self._left
        return 1 if late == 0 else AT_A_TIME if late == 1 else min(AT_A_TIME, 2 ** (late // 2 - 1))

    def _is_mine(self, load: int | None = None) -> bool:
        """Say whether nobody is better placed: with a free thread, if anybody has one, or less to do."""
        slot = self._slot
        threads, mine = slot.threads, slot.connections
        if mine <= 1 and (load is None or load < threads):
            return True  # nobody has fewer; to look would take 4 % of a request on a new connection
        peers = self._board.peers(slot)
        if load is not None:
            free = [connections for connections, busy in peers if busy < threads]
            if load < threads:
                return all(mine <= connections + 1 for connections in free)
            if free:
                return False
        return all(mine <= connections + 1 for connections, _ in peers)

    def is_full_beside_free(self, load: int) -> bool:
        """Say whether a request would wait here and not in another worker."""
        threads = self._slot.threads
        return load >= threads and any(busy < threads for _, busy in self._board.peers(self._slot))

    def _take(self, descriptor: int, most: int, now: float, arrived: Arrived, *, late: bool = True) -> bool:
        """Take up to so many; say whether some may be left. ``late``: they may have waited for long."""
        listener = self.listeners[descriptor]
        accept, kind = listener._accept, self._kinds[descriptor]  # type: ignore[attr-defined]
        for _ in range(most):
            if self._left == 1 and not self._is_mine():
                return True
            try:
                accepted, peer = accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._leave(now + SHORTAGE)
                elif error.errno not in GONE:
                    raise
                return False
            sock = SocketType(*kind, accepted)  # the class of Python around it would take 3 us more
            if not arrived(sock, peer, descriptor, now, tcp_info.waited(sock) if late else 0.0):
                self.expected[sock.fileno()] = now
        return True

    def is_crowded(self, now: float, load: int) -> bool:
        """Say whether a kept connection is better off with another worker; ``load``: requests that are here.

        One after the other, so that they do not all go and come back.
        """
        if now < self._move_at:
            return False
        self._move_at = now + MOVE_EVERY
        mine, peers = self._slot.connections, self._board.peers(self._slot)
        return any(connections + 2 <= mine and busy + 2 <= load for connections, busy in peers)

    def unaccepted(self) -> float:
        """Return how many connections wait to be accepted, as this worker's share of them."""
        queues = map(tcp_info.accept_queue, self.listeners.values())
        return sum(queue[0] for queue in queues if queue) / (1 + len(self._board.peers(self._slot)))

    def drain(self, arrived: Arrived, now: float) -> None:
        """Take all that the kernel has accepted, unless others serve on, and close: nobody may be reset."""
        is_last = stop_flags.closing() or not self._board.peers(self._slot)
        with self._lock:
            self._left = 0
            for descriptor, listener in self.listeners.items():
                self._poller.forget(descriptor)
                with suppress(OSError):
                    if is_last:
                        self._take(descriptor, MANY, now, arrived)
                listener.close()
            self.listeners = {}
            self.retry_at = math.inf


def descriptors_for(connections: int) -> int:
    """Let this process open as many files as so many connections need; return how many it can have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # macOS has another limit beside this one
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return connections if soft == resource.RLIM_INFINITY else min(connections, max(16, soft - RESERVED))
