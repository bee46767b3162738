"""How many requests run at a time: fewer than there are threads, where they would only wait for the GIL.

Lives in a worker, on its main thread. Threads are there for requests that wait. Those that compute are
answered no sooner for running side by side: each holds the GIL from all others, quick ones and the event loop
among them, and every hand-over costs. They take turns, first come, first served. It is pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..runtime.sampling import Samples

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
RETREAT = 5
"""Seconds without turns after they have left the CPU idle, and with more at a time after some have waited."""
TRIAL = 8
"""Requests that run alone, to be measured..."""
TRIAL_EVERY, TRIAL_SELDOM = 5, 60
"""...where none did for so many seconds; seldom where they were found to wait."""
FEW = 3
"""Samples that say enough."""
FADING = 0.5
"""What the samples of a second weigh in the next."""


class Seen(NamedTuple):
    """What a worker has done until now."""

    running: int
    ended: int
    """Requests, since it began."""
    cpu: float
    """CPU seconds of the process."""
    now: float


class Turns:
    """The turns in one worker of ``slots`` threads that has ``cpus`` for itself.

    C code that lets go of the GIL computes on as many CPUs as there are: so many run at a time at least, and
    one more.
    """

    __slots__ = (
        *("_held", "_judged", "_known", "_least", "_looked", "_mark", "_more", "_retreat"),
        *("_trial", "_unsampled", "_were_on", "limit", "slots", "usual"),
    )

    def __init__(self, slots: int, cpus: float = 1.0) -> None:
        self.slots = self.limit = self.usual = slots
        """``limit``: how many may run now; ``usual``: when nobody is measured."""
        self._least = max(ALWAYS, math.ceil(cpus) + 1)
        self._known = Samples(0.0, 0.0, 0.0)
        self._retreat = self._unsampled = self._held = 0  # seconds
        self._more = 0  # how many had to run at a time because some waited: streams, for one
        self._were_on = False  # in this second, at first
        self._trial = 0  # requests run one by one, to be measured, until so many have ended; 0: they do not
        self._judged = self._mark = Seen(0, 0, 0.0, 0.0)  # at the last judgement; when a request last ended
        self._looked = 0.0

    @property
    def are_on(self) -> bool:
        return self.limit < self.slots

    def judge(self, events: int, samples: Samples, seen: Seen, *, refusing: bool = False) -> None:
        """Decide once a second. ``samples`` are of requests that ran alone; where none did although the CPU
        is busy, some are let run alone. While ``refusing``, the moments in which a request waits go to that.
        """
        if samples.number:
            self._known = Samples(
                *(FADING * old + new for old, new in zip(self._known, samples, strict=True))
            )
        self._unsampled = 0 if samples.number else self._unsampled + 1
        computes, self._judged = _computes(self._judged, seen), seen
        if self._were_on and not computes:
            self._retreat = RETREAT
        self._retreat, self._held = max(0, self._retreat - 1), max(0, self._held - 1)
        self._trial, self._were_on, self.limit, self.usual = 0, False, self.slots, self.slots
        if events < BUSY or self._retreat or not computes:
            return
        number, computed, waited = self._known
        if number >= FEW and computed:
            # While one computes, waited / computed others can wait: twice as many, since none does so evenly.
            limit = self._least - refusing + int(2 * waited / computed)
            self.limit = self.usual = min(self.slots, max(limit, self._more if self._held else 0))
        every = 0 if number < FEW else TRIAL_SELDOM if self.usual == self.slots else TRIAL_EVERY
        if seen.running > 1 and self._unsampled >= every:
            self._unsampled = 0
            self._trial, self.limit = seen.ended + seen.running + TRIAL, 1
        self._were_on = self.are_on

    def look(self, seen: Seen) -> bool:
        """Say whether more may run than when this was last asked. For when requests wait for their turn."""
        before, looked, self._looked = self._mark, self._looked, seen.now
        if self._trial and seen.ended >= self._trial:
            return self._allow(self.usual)
        passed = seen.now - before.now
        if seen.ended != before.ended or seen.now - looked > PATIENCE:
            self._mark = seen
            return False
        waits = passed >= DOUBT and not _computes(before, seen)
        if not waits and passed < PATIENCE:
            return False
        self._mark = seen
        more = min(self.slots, 2 * self.limit if waits else self.limit + 1)
        if waits:
            self._more, self._held = more, RETREAT
        return self._allow(max(self.usual, more) if self._trial else more)

    def _allow(self, limit: int) -> bool:
        self._trial, self.limit, self.usual = 0, limit, max(limit, self.usual)
        return True


def _computes(before: Seen, seen: Seen) -> bool:
    return seen.cpu - before.cpu >= COMPUTES * (seen.now - before.now)
