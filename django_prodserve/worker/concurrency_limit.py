"""How many requests run at a time: fewer than there are threads, where they would only wait for the GIL.

Lives in a worker, on its main thread. Threads are there for requests that wait. Those that compute are
answered no sooner for running side by side: each holds the GIL from all others, quick ones and the event loop
among them, and every hand-over costs. They take turns, first come, first served. It is pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .sampling import Samples

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


class Seen(NamedTuple):
    """What a worker has done until now."""

    running: int
    ended: int
    """Requests, since it began."""
    cpu: float
    """CPU seconds of the process."""
    now: float
    delayed: float = 0.0
    """Seconds that its threads were kept from a CPU, for ``judge`` and ``is_due``."""


class Turns:
    """The turns in one worker of ``slots`` threads that has ``cpus`` for itself.

    C code that lets go of the GIL computes on as many CPUs as there are: so many run at a time at least, and
    one more. With ``adaptive`` off all threads may run requests at any time, and no request is measured.
    """

    __slots__ = (
        *(
            "_adaptive",
            "_begins",
            "_held",
            "_judged",
            "_known",
            "_least",
            "_looked",
            "_mark",
            "_more",
            "_queued",
            "_rest",
        ),
        *("_retreat", "_rush", "_sampled", "_suspects", "_trial", "limit", "slots", "usual"),
    )

    def __init__(self, slots: int, cpus: float = 1.0, *, adaptive: bool = True) -> None:
        self._adaptive = adaptive
        self.slots = self.limit = self.usual = slots
        """``limit``: how many may run now; ``usual``: when nobody is measured."""
        self._least = max(ALWAYS, math.ceil(cpus) + 1)
        self._known = Samples(0.0, 0.0, 0.0)
        self._retreat = self._held = self._rest = 0.0  # until when
        self._sampled = -math.inf  # when requests were last measured, or some let run alone for that
        self._more = 0  # how many had to run at a time because some waited: streams, for one
        self._queued = (0.0, 0.0)  # seconds since the last judgement while somebody waited, and CPU seconds
        self._trial = 0  # requests run one by one, to be measured, until so many have ended; 0: they do not
        self._begins = True  # the load: few ran at the last judgement
        self._rush: Seen | None = None  # when many that nobody knows were first seen
        self._judged = self._mark = self._looked = Seen(0, 0, 0.0, 0.0)
        """At the last judgement; when a request last ended; when somebody last waited."""
        self._suspects: Seen | None = None  # since when those that run seem to wait

    @property
    def are_on(self) -> bool:
        return self.limit < self.slots

    @property
    def need_looks(self) -> bool:
        """Say whether somebody should look every so often."""
        return self.are_on or self._rush is not None

    @property
    def _is_known(self) -> bool:
        return self._known.number >= FEW and self._known.computed > 0

    @property
    def _between_trials(self) -> float:
        if not self._is_known:
            return TRIAL_AGAIN
        waits = self._known.waited > self._known.computed
        return TRIAL_SELDOM if waits or self.usual == self.slots else TRIAL_EVERY

    def judge(self, events: int, samples: Samples, seen: Seen, *, refusing: bool = False) -> None:
        """Decide, once a second or when it ``is_due``. ``samples`` are of requests that ran alone; where none
        did although the CPU is busy, some are let run alone. While ``refusing``, the moments in which a
        request waits go to that.
        """
        if not self._adaptive:
            return
        if samples.number:
            self._known = Samples(
                *(FADING * old + new for old, new in zip(self._known, samples, strict=True))
            )
            self._sampled = seen.now
        before, self._judged = self._judged, seen
        computes = _computes(before, seen)
        queued, cpu = self._queued
        if queued >= QUEUED and cpu + seen.delayed - before.delayed < COMPUTES * queued:
            self._retreat = seen.now + RETREAT
        self._trial, self._rush, self._queued = 0, None, (0.0, 0.0)
        self.limit = self.usual = self.slots
        self._begins = seen.running <= self._least
        is_busy = computes and (events >= BUSY or seen.running > self._least)
        if is_busy:
            self._rest = seen.now + REST
        if seen.now < self._retreat or seen.now >= self._rest:
            return
        if self._is_known:
            _, computed, waited = self._known
            # While one computes, waited / computed others can wait: twice as many, since none does so evenly.
            limit = self._least - refusing + int(2 * waited / computed)
            more = self._more if seen.now < self._held else 0
            self.limit = self.usual = min(self.slots, max(limit, more))
        if is_busy and seen.running > 1 and seen.now - self._sampled >= self._between_trials:
            self._sampled = seen.now
            self._trial, self.limit = seen.ended + seen.running + TRIAL, 1

    def is_crowded(self, running: int) -> bool:
        """Say whether so many run side by side, unknown or new after a rest, that it is to be judged soon."""
        is_new = self._begins and running > self._least and not (self._is_known and self.are_on)
        return is_new and self._adaptive

    def expect(self, running: int) -> bool:
        """Say whether a judgement may be due before the second is over."""
        return bool(self._trial) or self._rush is not None or self.is_crowded(running)

    def is_due(self, seen: Seen) -> bool:
        """Say whether to judge now: those that ran alone have told enough, or many are new and compute."""
        if self._trial:
            waits = seen.now - self._judged.now >= TRIAL_WAITS and not _computes(self._judged, seen)
            return seen.ended >= self._trial or waits
        if self._rush is None:
            if self.is_crowded(seen.running):
                self._begins, self._rush, self._judged = False, seen, seen
            return False
        return seen.now - self._rush.now >= RUSH

    def look(self, seen: Seen, delayed: Callable[[], float]) -> bool:
        """Say whether more may run than when this was last asked. For when requests wait for their turn.

        ``delayed`` is asked, at two looks, where those that run seem to wait: for a CPU that others have?
        """
        before, looked, self._looked = self._mark, self._looked, seen
        passed, since = seen.now - before.now, seen.now - looked.now
        if since <= PATIENCE:
            self._queued = self._queued[0] + since, self._queued[1] + seen.cpu - looked.cpu
        if seen.ended != before.ended or since > PATIENCE:
            self._mark, self._suspects = seen, None
            return False
        waits = passed >= DOUBT and not _computes(before, seen) and self._really_wait(seen, delayed())
        if not waits and passed < PATIENCE:
            return False
        self._mark, self._suspects = seen, None
        more = min(self.slots, 2 * self.limit if waits else self.limit + 1)
        if waits:
            self._more, self._held = more, seen.now + RETREAT
        limit = max(self.usual, more) if self._trial else more
        self._trial, self.limit, self.usual = 0, limit, max(limit, self.usual)
        return True

    def _really_wait(self, seen: Seen, delayed: float) -> bool:
        """Say whether they still wait since this was last asked, and not for a CPU."""
        before, self._suspects = self._suspects, seen._replace(delayed=delayed)
        return before is not None and not _computes(before, self._suspects)


def _computes(before: Seen, seen: Seen) -> bool:
    """Say whether the process computed meanwhile, or would have."""
    spent = seen.cpu - before.cpu + seen.delayed - before.delayed
    return spent >= COMPUTES * (seen.now - before.now)
