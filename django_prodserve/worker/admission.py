"""Judge whether requests are refused because too many wait for a thread. Pure; scheduler.py asks.

Overload is detected (1) if the queue delay stays above the timeout for WINDOW without falling, (2) if it
exceeds AT_ONCE timeouts, or (3) if it exceeds RUSH timeouts and arrivals exceed completions RUSHES times. No
burst of four times the capacity for two seconds does any of these. While overloaded, the worker keeps the
queue so short that it serves an admitted request at once; it recovers as soon as the load falls.

CoDel's rule (RFC 8289) with one hard cap in place of (2), (3) and the rate of this queue was tried: at ten
times the load, 95 % of refusals took up to 1.4 to 3.3 s with a cap of 4 timeouts, 0.7 s with 6, 0.04 s today.
A cap that refuses in 0.2 s must be below 3.3 timeouts, but a burst of requests that compute reaches nearly 6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

WINDOW = 2.0
"""Seconds that a wait must stand."""
LOOK = 0.25
"""Seconds between two looks at whether it becomes shorter."""
AT_ONCE = 6.0
"""A wait of this many timeouts is an overload at once: 4 times the capacity for 2 s builds 3 of them, and
seems to build nearly 6 while to take connections leaves 0.6 of the capacity to requests that compute..."""
RUSH, RUSHES = 2.0, 8.5
"""...and so is one of RUSH timeouts if RUSHES times as much has come as was served: in that burst it is 7."""
PAUSE, FEW = 0.25, 8
"""Seconds without a queue after which another begins, and requests that must have been served of it."""
LAST = 4.0
"""Seconds, up to twice as many, of which it counts what was served."""
SEEN = 0.25
"""The queue's length counts where its eldest has waited this share of the timeout."""
SHARE = 0.1
"""The wait that is left to the queue while overloaded, as a share of the timeout."""


class Overload:
    """Judge a queue by how long it makes wait. ``timeout`` in seconds; 0 never refuses. Pure."""

    __slots__ = ("_calm", "_grows", "_mark", "_since", "is_on", "target", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout, self.target = timeout, timeout * SHARE
        self.is_on = False
        self._since = math.inf  # since when the wait stands beyond the timeout
        self._mark = (0.0, 0.0)  # when it was last looked at, and what it was then
        self._grows = True
        self._calm = 0.0  # when something was last refused

    def refuses(self, wait: float, now: float, *, others_do: bool = False, comes: float = 0.0) -> bool:
        """Say whether a request is refused that arrives now and would wait this long.

        ``others_do``: other workers refuse already. Who waits beyond the timeout here waits in no burst.
        ``comes``: how many times as much has come as was served, since there is a queue.
        """
        if self.is_on:
            return self._goes_on(wait, now)
        if wait <= self.timeout or not self.timeout:
            self._since = math.inf
            return False
        if self._since == math.inf:
            self._since, self._mark, self._grows = now, (now, wait), True
        elif now - self._mark[0] >= LOOK:
            self._grows = wait >= self._mark[1]
            self._mark = now, wait
        stands = now - self._since >= WINDOW
        most = RUSH if comes > RUSHES else AT_ONCE
        self.is_on = others_do or wait > most * self.timeout or (stands and self._grows)
        self._calm = now
        return self.is_on

    def _goes_on(self, wait: float, now: float) -> bool:
        if wait > self.target:
            self._calm = now
        elif now - self._calm > WINDOW:
            self.is_on, self._since = False, math.inf
        return wait > self.target


class QueueState(NamedTuple):
    """The queue of a worker, as a request finds it."""

    length: int
    oldest: float
    """Seconds that its first request has waited."""
    ended: int
    """Requests, since the worker began."""
    rate: float
    """Requests a second that the worker can serve, as the mean of all says."""
    unaccepted: float = 0.0
    """Connections in the kernel's accept queue, as this worker's share of them."""


class Gate:
    """Judges one worker's queue."""

    def __init__(self, timeout: float) -> None:
        self.overload = Overload(timeout)
        self._queued = -math.inf  # when there was a queue last
        self._since = self._later = 0.0, 0  # when there began to be one, or it was long enough, and had ended
        self._length = 0.0

    def counts_unaccepted(self, oldest: float) -> bool:
        """Say whether the queue's length counts, and with it what the kernel holds."""
        return not self.overload.is_on and oldest >= SEEN * self.overload.timeout

    def delay(self, queue: QueueState, now: float) -> float:
        """Return how long a request waits that arrives now: as its elders do, or as their number says."""
        oldest = queue.oldest
        if not queue.length:
            return 0.0
        if self.overload.is_on:
            return max(oldest, queue.length / queue.rate)
        if not self.counts_unaccepted(oldest):
            return oldest  # the mean may be that of other views
        # Most of them wait in the kernel: a thread that accepts must wait for the GIL, too.
        self._length = queue.length + queue.unaccepted
        ended, passed = queue.ended - self._since[1], now - self._since[0]
        return max(oldest, self._length / (ended / passed if ended >= FEW and passed > 0 else queue.rate))

    def refuses(self, delay: float, ended: int, now: float, *, others_do: bool) -> bool:
        """Say whether a request is refused that arrives now and would wait this long."""
        return self.overload.refuses(delay, now, others_do=others_do, comes=self._comes(ended))

    def note(self, ended: int, now: float) -> None:
        """Take note that there is a queue, or soon may be."""
        if now - self._queued > PAUSE:
            self._since = self._later = now, ended
            self._length = 0.0
        elif now - self._later[0] > LAST:
            self._since, self._later = self._later, (now, ended)
        self._queued = now

    def _comes(self, ended: int) -> float:
        """Return how many times as much has come as was served, since there is a queue."""
        ended -= self._since[1]
        return (self._length + ended) / ended if ended >= FEW else 0.0

    def excess(self, length: int, rate: float, threads: int) -> int:
        """Return how many of a queue are too many: none unless it is far too long."""
        fits = int(self.overload.target * rate)
        return length - fits if length > 2 * fits + threads else 0
