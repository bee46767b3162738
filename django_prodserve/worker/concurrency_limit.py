"""How many requests run at a time: fewer than there are threads, where they would only wait for the GIL.

Lives in a worker, on its main thread. Threads are there for requests that wait. Those that compute are
answered no sooner for running side by side: each holds the GIL from all others, quick ones and the event loop
among them, and every hand-over costs. They take turns, first come, first served. It is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .sampling import UncontendedSamples

ALWAYS = 2
"""Requests that run at a time however little they wait: one computes in moments in which another waits."""
BUSY = 20
"""Events a second from which on it matters."""
LOOK = 0.01
"""Seconds between two looks at whether those that run are the ones that compute."""
DOUBT = 0.03
"""Seconds without the end of a request in which the CPU must have been idle, too, until more may run."""
PATIENCE = 0.05
"""Seconds without the end of a request after which another runs beside them: it may be a quick one."""
COMPUTES = 0.5
"""CPU time of the process, as a share of the time, from which on those that run do compute."""
RETREAT = 5.0
"""Seconds without turns after they have left the CPU idle, and with more at a time after some have waited."""
REST = 10.0
"""Seconds without load after which turns are not kept for the next."""
RUSH = 0.05
"""Seconds for which many that nobody knows run side by side, and compute, until some are let run alone."""
QUEUED = 0.25
"""Seconds in which somebody waited for a turn that say whether turns left the CPU idle."""
TRIAL = 8
"""Requests that run alone, to be measured..."""
TRIAL_AGAIN, TRIAL_EVERY, TRIAL_SELDOM = 0.9, 5.0, 60.0
"""...where none did for so many seconds: soon after one that told nothing, seldom if they wait."""
TRIAL_WAITS = 0.15
"""Seconds that they run alone at most, if they wait: 8 of 40 ms would hold up others for a third of one."""
FEW = 3
"""Samples that say enough."""
FADING = 0.5
"""What samples weigh when the next come."""


class WorkerUsage(NamedTuple):
    """What a worker has done until now."""

    running: int
    ended: int
    """Requests, since it began."""
    cpu: float
    """CPU seconds of the process."""
    now: float
    run_delay: float = 0.0
    """Seconds that its threads were kept from a CPU, for ``judge`` and ``is_due``."""


class AdaptiveConcurrencyLimit:
    """The turns in one worker of ``slots`` threads that has ``cpus`` for itself.

    C code that lets go of the GIL computes on as many CPUs as there are: so many run at a time at least, and
    one more. With ``adaptive`` off all threads may run requests at any time, and no request is measured.
    """

    __slots__ = (
        *(
            "_adaptive",
            "_begins",
            "_raised_until",
            "_judged",
            "_profile",
            "_min_limit",
            "_looked",
            "_mark",
            "_more",
            "_queued",
            "_forget_at",
        ),
        *(
            "_disabled_until",
            "_burst_start",
            "_sampled",
            "_stalled_since",
            "_probe_until",
            "limit",
            "max_threads",
            "steady_limit",
        ),
    )

    def __init__(self, slots: int, cpus: float = 1.0, *, adaptive: bool = True) -> None:
        self._adaptive = adaptive
        self.max_threads = self.limit = self.steady_limit = slots
        """``limit``: how many may run now; ``usual``: when nobody is measured."""
        self._min_limit = max(ALWAYS, math.ceil(cpus) + 1)
        self._profile = UncontendedSamples(0.0, 0.0, 0.0)
        self._disabled_until = self._raised_until = self._forget_at = 0.0  # until when
        self._sampled = -math.inf  # when requests were last measured, or some let run alone for that
        self._more = 0  # how many had to run at a time because some waited: streams, for one
        self._queued = (0.0, 0.0)  # seconds since the last judgement while somebody waited, and CPU seconds
        self._probe_until = (
            0  # requests run one by one, to be measured, until so many have ended; 0: they do not
        )
        self._begins = True  # the load: few ran at the last judgement
        self._burst_start: WorkerUsage | None = None  # when many that nobody knows were first seen
        self._judged = self._mark = self._looked = WorkerUsage(0, 0, 0.0, 0.0)
        """At the last judgement; when a request last ended; when somebody last waited."""
        self._stalled_since: WorkerUsage | None = None  # since when those that run seem to wait

    @property
    def is_limiting(self) -> bool:
        return self.limit < self.max_threads

    @property
    def need_looks(self) -> bool:
        """Say whether somebody should look every so often."""
        return self.is_limiting or self._burst_start is not None

    @property
    def _is_known(self) -> bool:
        return self._profile.number >= FEW and self._profile.cpu > 0

    @property
    def _between_trials(self) -> float:
        if not self._is_known:
            return TRIAL_AGAIN
        waits = self._profile.blocked > self._profile.cpu
        return TRIAL_SELDOM if waits or self.steady_limit == self.max_threads else TRIAL_EVERY

    def recompute(
        self, events: int, samples: UncontendedSamples, seen: WorkerUsage, *, refusing: bool = False
    ) -> None:
        """Decide, once a second or when it ``is_due``. ``samples`` are of requests that ran alone; where none
        did although the CPU is busy, some are let run alone. While ``refusing``, the moments in which a
        request waits go to that.
        """
        if not self._adaptive:
            return
        if samples.number:
            self._profile = UncontendedSamples(
                *(FADING * old + new for old, new in zip(self._profile, samples, strict=True))
            )
            self._sampled = seen.now
        before, self._judged = self._judged, seen
        computes = _computes(before, seen)
        queued, cpu = self._queued
        if queued >= QUEUED and cpu + seen.run_delay - before.run_delay < COMPUTES * queued:
            self._disabled_until = seen.now + RETREAT
        self._probe_until, self._burst_start, self._queued = 0, None, (0.0, 0.0)
        self.limit = self.steady_limit = self.max_threads
        self._begins = seen.running <= self._min_limit
        is_busy = computes and (events >= BUSY or seen.running > self._min_limit)
        if is_busy:
            self._forget_at = seen.now + REST
        if seen.now < self._disabled_until or seen.now >= self._forget_at:
            return
        if self._is_known:
            _, computed, waited = self._profile
            # While one computes, waited / computed others can wait: twice as many, since none does so evenly.
            limit = self._min_limit - refusing + int(2 * waited / computed)
            more = self._more if seen.now < self._raised_until else 0
            self.limit = self.steady_limit = min(self.max_threads, max(limit, more))
        if is_busy and seen.running > 1 and seen.now - self._sampled >= self._between_trials:
            self._sampled = seen.now
            self._probe_until, self.limit = seen.ended + seen.running + TRIAL, 1

    def is_crowded(self, running: int) -> bool:
        """Say whether so many run side by side, unknown or new after a rest, that it is to be judged soon."""
        is_new = self._begins and running > self._min_limit and not (self._is_known and self.is_limiting)
        return is_new and self._adaptive

    def is_probing(self, running: int) -> bool:
        """Say whether a judgement may be due before the second is over."""
        return bool(self._probe_until) or self._burst_start is not None or self.is_crowded(running)

    def needs_recompute(self, seen: WorkerUsage) -> bool:
        """Say whether to judge now: those that ran alone have told enough, or many are new and compute."""
        if self._probe_until:
            waits = seen.now - self._judged.now >= TRIAL_WAITS and not _computes(self._judged, seen)
            return seen.ended >= self._probe_until or waits
        if self._burst_start is None:
            if self.is_crowded(seen.running):
                self._begins, self._burst_start, self._judged = False, seen, seen
            return False
        return seen.now - self._burst_start.now >= RUSH

    def raise_if_stalled(self, seen: WorkerUsage, delayed: Callable[[], float]) -> bool:
        """Say whether more may run than when this was last asked. For when requests wait for their turn.

        ``delayed`` is asked, at two looks, where those that run seem to wait: for a CPU that others have?
        """
        before, looked, self._looked = self._mark, self._looked, seen
        passed, since = seen.now - before.now, seen.now - looked.now
        if since <= PATIENCE:
            self._queued = self._queued[0] + since, self._queued[1] + seen.cpu - looked.cpu
        if seen.ended != before.ended or since > PATIENCE:
            self._mark, self._stalled_since = seen, None
            return False
        waits = passed >= DOUBT and not _computes(before, seen) and self._really_wait(seen, delayed())
        if not waits and passed < PATIENCE:
            return False
        self._mark, self._stalled_since = seen, None
        more = min(self.max_threads, 2 * self.limit if waits else self.limit + 1)
        if waits:
            self._more, self._raised_until = more, seen.now + RETREAT
        limit = max(self.steady_limit, more) if self._probe_until else more
        self._probe_until, self.limit, self.steady_limit = 0, limit, max(limit, self.steady_limit)
        return True

    def _really_wait(self, seen: WorkerUsage, delayed: float) -> bool:
        """Say whether they still wait since this was last asked, and not for a CPU."""
        before, self._stalled_since = self._stalled_since, seen._replace(run_delay=delayed)
        return before is not None and not _computes(before, self._stalled_since)


def _computes(before: WorkerUsage, seen: WorkerUsage) -> bool:
    """Say whether the process computed meanwhile, or would have."""
    spent = seen.cpu - before.cpu + seen.run_delay - before.run_delay
    return spent >= COMPUTES * (seen.now - before.now)
