"""Decide whether to refuse requests because too many wait for a thread. Pure; called by scheduler.py.

As in CoDel (RFC 8289), a delay above the timeout is an overload only if it lasts for an interval. It lasts
that long after a burst, too. So the backlog must also have grown at every check of the interval, or not have
become shorter in STANDING_SECONDS. The worker detects an overload immediately in two cases: the backlog grows
faster than in a burst of four times the capacity, or the delay reaches MAX_DELAY_TIMEOUTS. While overloaded,
the worker keeps the queue so short that an admitted request starts immediately. It recovers as soon as the
load falls.

We measured CoDel's rule alone with a cap of 4 timeouts. At ten times the load, 95 % of refusals took up to
1.4 to 3.3 s, here 0.1 s. A cap for 0.2 s is below 3.3 timeouts, which a burst of CPU-bound requests exceeds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

INTERVAL = 2.0
"""Seconds for which the backlog must grow beyond the timeout."""
STANDING_SECONDS = 10.0
"""Seconds in which a backlog beyond the timeout must become shorter. After a burst of 6 s, a load of 90 %
leaves 5 s of it. Clients that each wait for a response before their next request leave all of it."""
STANDING_SHARE = 0.9
"""A backlog of this share of what it was has not become shorter."""
CHECK_SECONDS = 0.25
"""Interval between two checks whether the backlog grows."""
MAX_GROWTH = 7.5
"""Seconds of backlog that arrive in a second beyond which one check detects an overload. Four times the
capacity gives 3. It seems to give 5.7 while accepting leaves 0.6 of the capacity to CPU-bound requests."""
MAX_DELAY_TIMEOUTS = 6.0
"""Delay, in timeouts, that is an overload immediately: the same burst builds 3, or seems to build 5.7."""
LENGTH_COUNTS_SHARE = 0.25
"""The queue's length counts once its oldest request has waited this share of the timeout."""
TARGET_SHARE = 0.1
"""The queue wait that an overloaded worker allows, as a share of the timeout."""


class OverloadDetector:
    """Detect overload by how long requests wait in a queue. ``timeout`` in seconds; 0 never refuses."""

    __slots__ = ("_began", "_calm", "_growths", "_long_mark", "_mark", "is_on", "target_delay", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout, self.target_delay = timeout, timeout * TARGET_SHARE
        self.is_on = False
        self._mark = (math.inf, 0.0)  # when the length was last checked, and its value then
        self._began = 0.0  # when the delay exceeded the timeout
        self._long_mark = self._mark  # the same for the longest backlog since STANDING_SECONDS began
        self._growths = 0  # checks in a row at which the backlog had grown
        self._calm = 0.0  # when the worker last refused a request

    def update(
        self, delay: float, length: float, rate: float, now: float, *, others_do: bool = False
    ) -> bool:
        """Return whether to refuse a request that arrives now and would wait for ``delay`` seconds.

        ``length``: requests that wait, of which the worker serves ``rate`` a second. Growth is judged by the
        length alone, since the rate is an estimate. ``others_do``: other workers already refuse requests, so
        no burst explains a delay beyond the timeout here.
        """
        if self.is_on:
            return self._goes_on(delay, now)
        if delay <= self.timeout or not self.timeout:
            self._forget()
            return False
        since, before = self._mark
        growth = 0.0  # seconds of backlog a second
        if since == math.inf:
            self._mark = self._long_mark = now, length
            self._began = now
        elif now - since >= CHECK_SECONDS:
            growth = (length - before) / (now - since) / rate
            self._growths = self._growths + 1 if growth > 0 else 0
            self._mark = now, length
        stands = self._growths * CHECK_SECONDS >= INTERVAL
        longest_at, longest = self._long_mark
        if now - self._began >= 2 * STANDING_SECONDS:
            stands = stands or length >= STANDING_SHARE * longest
        if length > longest:
            self._long_mark = now, length
        elif now - longest_at >= STANDING_SECONDS:
            stands = stands or length >= STANDING_SHARE * longest
            self._long_mark = now, length
        too_long = delay > MAX_DELAY_TIMEOUTS * self.timeout
        self.is_on = others_do or stands or too_long or growth > MAX_GROWTH
        self._calm = now
        return self.is_on

    def _goes_on(self, delay: float, now: float) -> bool:
        if delay > self.target_delay:
            self._calm = now
        elif now - self._calm > INTERVAL:
            self.is_on = False
            self._forget()
        return delay > self.target_delay

    def _forget(self) -> None:
        self._mark, self._growths = (math.inf, 0.0), 0


class QueueState(NamedTuple):
    """The queue of a worker when a request arrives."""

    length: int
    oldest: float
    """Seconds that its first request has waited."""
    rate: float
    """Requests a second that the worker can serve."""
    unaccepted: float = 0.0
    """Connections in the kernel's accept queue, as this worker's share of them."""

    @property
    def total(self) -> float:
        """Requests that wait, in the queue or in the kernel."""
        return self.length + self.unaccepted

    @property
    def backlog(self) -> float:
        """Seconds that this worker needs for all waiting requests."""
        return self.total / self.rate


class AdmissionControl:
    """Applies the overload rules to one worker's queue."""

    def __init__(self, timeout: float) -> None:
        self.overload = OverloadDetector(timeout)

    def counts_unaccepted(self, oldest: float) -> bool:
        """Return whether the length of the queue, including the connections in the accept queue, counts.

        While the oldest request has waited only briefly, its wait is the better measure. The mean time of a
        request may come from other views.
        """
        return not self.overload.is_on and oldest >= LENGTH_COUNTS_SHARE * self.overload.timeout

    def delay(self, queue: QueueState) -> float:
        """Return a new request's wait, by the oldest request's wait or by the queue's length."""
        if self.overload.is_on or self.counts_unaccepted(queue.oldest):
            return max(queue.oldest, queue.backlog)
        return queue.oldest

    def excess(self, queue: QueueState, threads: int) -> int:
        """Return how many requests of a queue to refuse: none unless the queue is far too long."""
        fits = int(self.overload.target_delay * queue.rate)
        return queue.length - fits if queue.length > 2 * fits + threads else 0
