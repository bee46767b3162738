"""How many requests run at a time: fewer than there are threads if they would only wait for the GIL.

Lives in a worker, on its main thread; pure. Threads help requests that wait for I/O. CPU-bound requests end
no sooner if they run concurrently. Each keeps the GIL from all others, including short requests and the event
loop, and each hand-over costs CPU. The limit follows measurements, as in Envoy's adaptive concurrency filter:
a probe lets a few requests run alone, and compares the CPU time of each with the time it was blocked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .sampling import UncontendedSamples

MIN_CONCURRENCY = 2
"""Lowest limit, even for requests that hardly wait: one computes in the moments in which another waits."""
MIN_EVENTS_PER_SECOND = 20
"""Events a second below which there is no limit, unless many requests run."""
STALL_CHECK_SECONDS = 0.01
"""Interval at which the main thread checks whether the requests that run have stalled."""
IDLE_CPU_SECONDS = 0.02
"""Seconds in which requests waited and the CPU was idle, after which more may run at the next such check. An
interval of 30 ms without an end does not suffice: of eight requests that wait 100 ms, one ends sooner. With
that rule, such waits after 2 ms of CPU had a p99 of 400 to 660 ms (tests/bench/shift.py)."""
MAX_RAISE = 8.0
"""Maximum factor of such a raise: requests that hardly compute need several at the same time."""
STALL_SECONDS = 0.05
"""Seconds in which no request ended, after which one more may run: it may be a short one."""
CPU_BOUND_SHARE = 0.5
"""CPU time of the process as a share of elapsed time from which its requests count as CPU-bound."""
DISABLED_SECONDS = 5.0
"""Seconds without a limit after the limit left the CPU idle, or with a raised one after a stall."""
RAISED_SECONDS = 1.5
"""Seconds for which a raised limit stays after each evaluation that finds the CPU idle."""
FULL_SHARE = 0.95
"""The same share from which a raised limit ends immediately: the CPU was idle for a moment only."""
FORGET_SECONDS = 10.0
"""Seconds without load after which the limit is forgotten."""
BURST_SECONDS = 0.05
"""How long an unprofiled burst runs unrestricted before a probe starts."""
QUEUED_SECONDS = 0.25
"""Seconds with queued requests that suffice to decide whether the limit left the CPU idle."""
PROBE_REQUESTS = 8
"""Requests that a probe measures."""
PROBE_AGAIN_SECONDS, PROBE_CPU_BOUND_SECONDS, PROBE_IO_BOUND_SECONDS = 0.9, 5.0, 60.0
"""Seconds between probes: 0.9 after an inconclusive one, 5 for CPU-bound load, 60 for I/O-bound load."""
PROBE_MAX_SECONDS = 0.15
"""Maximum of a probe of I/O-bound requests: 8 of 40 ms would delay others for a third of a second."""
MIN_SAMPLES = 3
"""Samples that a profile needs."""
SAMPLE_DECAY = 0.5
"""Weight that older samples keep when new ones arrive."""


class WorkerUsage(NamedTuple):
    """Counters of a worker since its start."""

    running: int
    ended: int
    """Requests that have ended."""
    cpu: float
    """CPU seconds of the process."""
    now: float
    run_delay: float = 0.0
    """Seconds that its threads waited for a CPU (schedstat)."""


class AdaptiveConcurrencyLimit:
    """The limit of one worker with ``max_threads`` threads and a share of ``cpus`` CPUs.

    C code that releases the GIL computes on all CPUs, so the lowest limit is their number plus one. With
    ``adaptive`` off, all threads may run requests at any time, and no request is measured.
    """

    __slots__ = (
        "_adaptive",
        "_begins",
        "_burst_start",
        "_disabled_until",
        "_forget_at",
        "_idle_since",
        "_judged",
        "_looked",
        "_mark",
        "_min_limit",
        "_more",
        "_probe_until",
        "_profile",
        "_queued",
        "_raised_until",
        "_sampled",
        "_stalled_since",
        "limit",
        "max_threads",
        "steady_limit",
    )

    def __init__(self, max_threads: int, cpus: float = 1.0, *, adaptive: bool = True) -> None:
        self._adaptive = adaptive
        self.max_threads = self.limit = self.steady_limit = max_threads
        """``limit``: how many may run now; ``steady_limit``: how many may run outside of a probe."""
        self._min_limit = max(MIN_CONCURRENCY, math.ceil(cpus) + 1)
        self._profile = UncontendedSamples(0.0, 0.0, 0.0)
        self._disabled_until = self._raised_until = self._forget_at = 0.0  # monotonic times
        self._sampled = -math.inf  # when requests were last measured, or a probe began
        self._more = 0  # the limit that a stall needed, for example because of streams
        self._queued = (
            0.0,
            0.0,
        )  # seconds with queued requests since the last evaluation, and their CPU seconds
        self._probe_until = 0  # the number of ended requests at which a probe ends; 0: no probe
        self._begins = True  # the load: few requests ran at the last evaluation
        self._burst_start: WorkerUsage | None = None  # when an unprofiled burst was first seen
        self._judged = self._mark = self._looked = WorkerUsage(0, 0, 0.0, 0.0)
        """At the last evaluation; when a request last ended; when a request last waited."""
        self._idle_since = WorkerUsage(0, 0, 0.0, 0.0)  # the begin of the interval in which it may be idle
        self._stalled_since: WorkerUsage | None = None  # when the running requests seemed to be blocked

    def resize(self, max_threads: int) -> None:
        """Follow the number of threads; a limit below it stays until it is next evaluated."""
        was_limiting, self.max_threads = self.is_limiting, max_threads
        if not was_limiting:
            self.limit = self.steady_limit = max_threads
        self.limit, self.steady_limit = min(self.limit, max_threads), min(self.steady_limit, max_threads)

    @property
    def is_limiting(self) -> bool:
        return self.limit < self.max_threads

    @property
    def needs_stall_checks(self) -> bool:
        """Return whether the main thread should call ``raise_if_stalled`` every STALL_CHECK_SECONDS."""
        return self.is_limiting or self._burst_start is not None

    @property
    def _is_known(self) -> bool:
        return self._profile.number >= MIN_SAMPLES and self._profile.cpu > 0

    @property
    def _between_probes(self) -> float:
        if not self._is_known:
            return PROBE_AGAIN_SECONDS
        waits = self._profile.blocked > self._profile.cpu
        is_io_bound = waits or self.steady_limit == self.max_threads
        return PROBE_IO_BOUND_SECONDS if is_io_bound else PROBE_CPU_BOUND_SECONDS

    def recompute(
        self, events: int, samples: UncontendedSamples, seen: WorkerUsage, *, refusing: bool = False
    ) -> None:
        """Evaluate the limit, once a second or when ``needs_recompute`` returns True.

        ``samples`` come from requests that ran alone. If none ran alone although the CPU is busy, a probe
        begins. While ``refusing``, one request fewer runs, because the worker answers 503 in moments in which
        a request waits.
        """
        if not self._adaptive:
            return
        if samples.number:
            self._profile = UncontendedSamples(
                *(SAMPLE_DECAY * old + new for old, new in zip(self._profile, samples, strict=True))
            )
            self._sampled = seen.now
        before, self._judged = self._judged, seen
        computes = _computes(before, seen)
        queued, cpu = self._queued
        if queued >= QUEUED_SECONDS and cpu + seen.run_delay - before.run_delay < CPU_BOUND_SHARE * queued:
            self._disabled_until = seen.now + DISABLED_SECONDS
        self._probe_until, self._burst_start, self._queued = 0, None, (0.0, 0.0)
        self.limit = self.steady_limit = self.max_threads
        self._begins = seen.running <= self._min_limit
        is_busy = computes and (events >= MIN_EVENTS_PER_SECOND or seen.running > self._min_limit)
        if is_busy:
            self._forget_at = seen.now + FORGET_SECONDS
        if seen.now < self._raised_until and not computes:  # the profile is not that of this load
            self._raised_until = max(self._raised_until, seen.now + RAISED_SECONDS)
        elif _computes(before, seen, FULL_SHARE):
            self._raised_until = 0.0
        if seen.now < self._disabled_until or seen.now >= self._forget_at:
            return
        if self._is_known:
            _, computed, waited = self._profile
            # While one computes, waited / computed others can wait: double it, since no request alternates
            # evenly.
            limit = self._min_limit - refusing + int(2 * waited / computed)
            more = self._more if seen.now < self._raised_until else 0
            self.limit = self.steady_limit = min(self.max_threads, max(limit, more))
        if is_busy and seen.running > 1 and seen.now - self._sampled >= self._between_probes:
            self._sampled = seen.now
            self._probe_until, self.limit = seen.ended + seen.running + PROBE_REQUESTS, 1

    def is_crowded(self, running: int) -> bool:
        """Return whether an unprofiled burst, or the first burst after a pause, needs an evaluation soon."""
        is_new = self._begins and running > self._min_limit and not (self._is_known and self.is_limiting)
        return is_new and self._adaptive

    def is_probing(self, running: int) -> bool:
        """Return whether an evaluation may be needed before the second is over."""
        return bool(self._probe_until) or self._burst_start is not None or self.is_crowded(running)

    def needs_recompute(self, seen: WorkerUsage) -> bool:
        """Return whether a probe has ended, or an unprofiled burst has lasted for BURST_SECONDS."""
        if self._probe_until:
            waits = seen.now - self._judged.now >= PROBE_MAX_SECONDS and not _computes(self._judged, seen)
            return seen.ended >= self._probe_until or waits
        if self._burst_start is None:
            if self.is_crowded(seen.running):
                self._begins, self._burst_start, self._judged = False, seen, seen
            return False
        return seen.now - self._burst_start.now >= BURST_SECONDS

    def raise_if_stalled(self, seen: WorkerUsage, run_delay: Callable[[], float]) -> bool:
        """Raise the limit if the CPU is idle, or no request ends, while others wait; return whether it rose.

        ``run_delay`` is called at two checks if the CPU seems to be idle, because threads may wait for one.
        """
        looked, self._looked = self._looked, seen
        since = seen.now - looked.now
        if since > STALL_SECONDS:  # no request waited meanwhile
            self._mark = self._idle_since = seen
            self._stalled_since = None
            return False
        self._queued = self._queued[0] + since, self._queued[1] + seen.cpu - looked.cpu
        if seen.ended != self._mark.ended:
            self._mark = seen
        used = self._use_while_idle(seen, run_delay)
        if used is not None:
            factor = min(MAX_RAISE, 1 / max(used, 1 / MAX_RAISE))
            more = min(self.max_threads, math.ceil(factor * self.limit))
            self._more, self._raised_until = more, seen.now + DISABLED_SECONDS
        elif seen.now - self._mark.now >= STALL_SECONDS:
            more = min(self.max_threads, self.limit + 1)
        else:
            return False
        self._mark = self._idle_since = seen
        self._stalled_since = None
        limit = max(self.steady_limit, more) if self._probe_until else more
        self._probe_until, self.limit, self.steady_limit = 0, limit, max(limit, self.steady_limit)
        return True

    def _use_while_idle(self, seen: WorkerUsage, run_delay: Callable[[], float]) -> float | None:
        """Return the share of one CPU in use if that is little, and the threads do not wait for a CPU."""
        passed = seen.now - self._idle_since.now
        if passed < IDLE_CPU_SECONDS:
            return None
        used = (seen.cpu - self._idle_since.cpu) / passed
        if used < CPU_BOUND_SHARE:
            before, self._stalled_since = self._stalled_since, seen._replace(run_delay=run_delay())
            if before is None:
                return None
            if not _computes(before, self._stalled_since):
                return used
        self._idle_since, self._stalled_since = seen, None
        return None


def _computes(before: WorkerUsage, seen: WorkerUsage, share: float = CPU_BOUND_SHARE) -> bool:
    """Return whether the process computed since then, or would have if it had got a CPU."""
    spent = seen.cpu - before.cpu + seen.run_delay - before.run_delay
    return spent >= share * (seen.now - before.now)
