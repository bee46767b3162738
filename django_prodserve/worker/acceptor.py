"""Which worker takes a new connection.

Lives in a worker, in the thread that waits for events. The kernel wakes every worker for a new connection.
One takes it that has a free slot and no more connections than the least loaded of those that have one too;
the others leave it. What still waits after 3 ms is taken by who has the fewest connections, and after another
3 ms by anybody: a worker that never answers, or whose figures are old, holds up nobody.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..runtime.board import Board
from ..runtime.slot import Slot
from .poller import READ, Epoll, Poll

PATIENCE = 0.003
"""Seconds that a connection is left to a less loaded worker: it is awake already."""
AT_A_TIME = 16
"""Connections taken before those that are here get their turn."""
MANY = 100_000
"""More than a kernel queues."""
SHORTAGE = 0.5
"""Seconds until the next try where descriptors are used up."""
OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
GONE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR, errno.EPERM}

Arrived = Callable[[socket.socket, Any, int, float, float], None]


class Acceptor:
    """Takes connections from the listeners, when it is this worker's turn."""

    def __init__(
        self, listeners: Sequence[socket.socket], poller: Epoll | Poll, board: Board, slot: Slot, most: int
    ) -> None:
        self.listeners = {listener.fileno(): listener for listener in listeners}
        self.retry_at = math.inf
        """When connections that were left to others are taken all the same."""
        self._poller, self._board, self._slot, self._most = poller, board, slot, most
        self._left = 0  # how often in a row connections were left to others

    def start(self) -> None:
        """Begin to take connections."""
        for descriptor, listener in self.listeners.items():
            listener.setblocking(False)
            self._poller.add(descriptor, READ)

    def accept(self, now: float, has_slot: bool, arrived: Arrived) -> None:
        """Take what is this worker's to take. Called when a listener is ready, or ``retry_at`` has come."""
        if now < self.retry_at < math.inf:
            return
        self.retry_at = math.inf
        room = self._most - self._slot.connections
        if room <= 0:
            self.retry_at = now + 10 * PATIENCE
            return
        if self._left == 0 and not (has_slot and self._is_mine()):
            self._left, self.retry_at = 1, now + PATIENCE
            return
        most = min(room, AT_A_TIME) if self._left else 1
        before = self._slot.connections
        left = [self._take(descriptor, most, now, arrived) for descriptor in self.listeners]
        if self._left and any(left):
            took_none = self._slot.connections == before
            self._left, self.retry_at = 2 if took_none else 1, min(self.retry_at, now + PATIENCE)
        elif self.retry_at == math.inf:
            self._left = 0
            for descriptor in self.listeners:
                self._poller.arm(descriptor, READ)

    def _is_mine(self) -> bool:
        """Say whether no other worker has fewer connections: of those with a free slot, or late of all."""
        slot = self._slot
        threads, mine, late = slot.threads, slot.connections, self._left > 0
        return all(
            mine <= connections + 1 for connections, busy in self._board.peers(slot) if late or busy < threads
        )

    def _take(self, descriptor: int, most: int, now: float, arrived: Arrived) -> bool:
        """Take up to so many; say whether some may be left."""
        listener, late = self.listeners[descriptor], self._left > 0
        for _ in range(most):
            if self._left == 1 and not self._is_mine():
                return True
            try:
                sock, peer = listener.accept()
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self.retry_at = now + SHORTAGE
                elif error.errno not in GONE:
                    raise
                return False
            arrived(sock, peer, descriptor, now, waited_in_kernel(sock) if late else 0.0)
        return True

    def drain(self, arrived: Arrived, now: float) -> None:
        """Close; where nobody else serves, take what the kernel has accepted first: nobody may be reset."""
        is_last = not self._board.peers(self._slot)
        for descriptor, listener in self.listeners.items():
            self._poller.forget(descriptor)
            with suppress(OSError):
                if is_last:
                    self._take(descriptor, MANY, now, arrived)
            listener.close()
        self.listeners.clear()
        self.retry_at = math.inf


def waited_in_kernel(sock: socket.socket) -> float:
    """Return how many seconds ago this connection's last bytes came: they waited to be accepted. 1.7 us."""
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return 0.0
    with suppress(OSError):
        facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
        # tcpi_last_data_recv in linux/tcp.h: milliseconds.
        return float(struct.unpack_from("=I", facts, 52)[0]) / 1000
    return 0.0
