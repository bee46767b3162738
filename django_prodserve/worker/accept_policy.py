"""Decide whether this worker accepts a new connection or defers to a less loaded worker. Pure.

The kernel wakes every worker for a new connection. A worker accepts if it has a free thread and no more
connections than the least loaded worker with a free thread; otherwise it defers. A connection that still
waits after 3 ms goes to the worker with the fewest connections. After another 3 ms any worker accepts it, at
first only a few at a time. So a worker without CPU gets its share later, and a hung worker delays no
connection. A worker without a free thread defers for up to 50 ms to workers that have one.

A keep-alive connection cannot move to another worker. If requests queue here and another worker has fewer
requests and fewer connections, this worker closes the connection after its response. The client then
reconnects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

MAX_DEFERRAL_SECONDS = 0.05
"""How long a worker without a free thread defers to a worker that has one."""
MAX_BATCH = 16
"""Connections that a worker accepts before it serves those that it has."""
MIN_DIFFERENCE = 2
"""Difference in requests, and in connections, from which a keep-alive connection should move."""

Peers = Callable[[], Sequence[tuple[int, int]]]
"""Return (connections, load) of every other worker. A decision reads it only if it depends on the peers,
because reading costs 4 % of a request on a new connection."""


class Deferral(NamedTuple):
    """How often and how long this worker has deferred in a row."""

    times: int = 0
    seconds: float = 0.0
    """Spent on workers with a free thread while this worker had none."""


class AcceptPolicy:
    """The rules for a worker of ``threads`` threads; ``load`` counts its requests, running and queued.

    The number may grow; of other workers it knows the least number only.
    """

    __slots__ = ("_least", "threads")

    def __init__(self, threads: int) -> None:
        self._least = self.threads = threads

    def batch(self, mine: int, peers: Peers, load: int, deferred: Deferral) -> int:
        """Return how many connections to accept now; 0 defers. ``mine`` counts this worker's connections."""
        times, seconds = deferred
        if times == 0:
            return int(self._is_best_placed(mine, peers, load))
        if seconds < MAX_DEFERRAL_SECONDS and self.peer_has_capacity(load, peers):
            return 0
        return MAX_BATCH if times == 1 else min(MAX_BATCH, 2 ** (times // 2 - 1))

    def _is_best_placed(self, mine: int, peers: Peers, load: int) -> bool:
        least = self._least
        if load < self.threads:
            return mine <= 1 or all(mine <= theirs + 1 for theirs, busy in peers() if busy < least)
        return all(mine <= theirs + 1 and busy >= least for theirs, busy in peers())

    def has_fewest(self, mine: int, peers: Peers) -> bool:
        """Return whether no worker has fewer connections, by more than one."""
        return mine <= 1 or all(mine <= theirs + 1 for theirs, _ in peers())

    def peer_has_capacity(self, load: int, peers: Peers) -> bool:
        """Return whether a request would queue in this worker and not in another one."""
        return load >= self.threads and any(busy < self._least for _, busy in peers())

    def should_rebalance(self, mine: int, peers: Peers, load: int) -> bool:
        """Return whether another worker would serve this keep-alive connection sooner."""
        mine, load = mine - MIN_DIFFERENCE, load - MIN_DIFFERENCE
        return any(theirs <= mine and busy <= load for theirs, busy in peers())
