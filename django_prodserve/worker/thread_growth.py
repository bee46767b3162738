"""How many threads of a worker may run Django: more while requests only wait, fewer after a quiet minute.

Lives in a worker, on its main thread; pure. A thread that waits costs memory and perhaps a database
connection, but no CPU. So the number grows by half while all threads are busy, requests queue, and the CPU
is not in demand. The concurrency limit (concurrency_limit.py) is for requests that compute.

More load makes a slow database or service slower. If most requests run much longer than their routes usually
do, growth is a probe: one step, which is undone unless more requests end than before.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

CHECK_SECONDS = 0.05
"""Interval between two checks while all threads are busy and requests queue."""
STEP = 1.5
"""Factor of one step of growth."""
STEP_SECONDS = 0.15
"""Minimum number of seconds between two steps: in the first, the new threads take their requests."""
MAX_DEMAND = 0.75
"""CPUs that the threads use or wait for, from which more threads would only compete for the GIL."""
PROBE_SECONDS = 2.0
"""Seconds before and during a probe in which the worker counts the requests that end."""
PROBE_GAIN = 1.15
"""Factor by which more requests must end in a probe of a step by half."""
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 5.0, 60.0
"""Seconds until the next probe after one without a gain; each such probe doubles them."""
QUIET_SECONDS = 60.0
"""Seconds without work after which a thread ends."""
SICK_SECONDS, SICK_FACTOR, SICK_SHARE = 0.2, 4.0, 0.5
"""A request is late if it has run this long and this many times the mean of its route. If this share of the
running requests is late, what they wait for has become slower."""


class Hold(enum.IntEnum):
    """What keeps the threads from growing: a position in the scoreboard's growth_holds.py."""

    NOTHING = 0
    CPU = 1
    """The threads compute, or wait for a CPU."""
    MAXIMUM = 2
    """There are as many threads as the plan allows."""
    SLOWER = 3
    """Requests take longer than usual, and more threads did not end more of them."""


class Usage(NamedTuple):
    """What a worker does now; ``ended``, ``cpu`` and ``run_delay`` count from its start."""

    now: float
    running: int
    queued: int
    ended: int
    cpu: float
    """CPU seconds of the process."""
    run_delay: float
    """Seconds that its threads waited for a CPU."""
    late: int = 0
    """Running requests that take much longer than their routes usually do."""

    def demand_since(self, before: Usage) -> float:
        """Return the CPUs that the threads used or waited for since then."""
        spent = self.cpu - before.cpu + self.run_delay - before.run_delay
        return spent / max(self.now - before.now, 1e-6)

    def rate_since(self, before: Usage) -> float:
        """Return the requests that ended in each second since then."""
        return (self.ended - before.ended) / max(self.now - before.now, 1e-6)


class _Probe(NamedTuple):
    """A step that is undone unless it pays."""

    threads: int
    """The number before it."""
    rate: float
    """Requests that ended in each second before it."""
    began: Usage


class ThreadGrowth:
    """The number of threads of one worker, from ``minimum`` to ``ceiling``."""

    __slots__ = (
        "_full",
        "_mark",
        "_pause",
        "_probe",
        "_stepped",
        "_until",
        "ceiling",
        "hold",
        "minimum",
        "threads",
    )

    def __init__(self, minimum: int, ceiling: int) -> None:
        self.minimum = self.threads = minimum
        self.ceiling = max(minimum, ceiling)
        self.hold = Hold.NOTHING
        self._full: Usage | None = None  # since when all threads are busy, with this number of threads
        self._mark: Usage | None = None  # the last check
        self._stepped = -math.inf  # when the number last grew
        self._probe: _Probe | None = None
        self._pause, self._until = PAUSE_SECONDS, -math.inf

    @property
    def is_range(self) -> bool:
        """Return whether the number can change at all."""
        return self.ceiling > self.minimum

    @property
    def may_grow(self) -> bool:
        """Return whether nothing that is known holds growth back."""
        return self.threads < self.ceiling and self.hold is Hold.NOTHING

    def is_full(self, running: int, queued: int) -> bool:
        """Return whether requests wait because all threads are busy."""
        return queued > 0 and running >= self.threads

    def check(self, seen: Usage) -> bool:
        """Change the number if requests only wait for threads; return whether it changed."""
        if not self.is_full(seen.running, seen.queued):
            self._full = self._mark = None
            self.hold = Hold.NOTHING
            return self._end_probe(seen) if self._probe is not None else False
        if self._full is None or self._mark is None:
            self._full = self._mark = seen
            return False
        before = self._mark
        if seen.now - before.now < CHECK_SECONDS:
            return False
        self._mark = seen
        if self._probe is not None:
            return seen.now - self._probe.began.now >= PROBE_SECONDS and self._end_probe(seen)
        if seen.demand_since(before) > MAX_DEMAND:
            self.hold = Hold.CPU
        elif self.threads >= self.ceiling:
            self.hold = Hold.MAXIMUM
        elif seen.late < SICK_SHARE * seen.running:
            self.hold = Hold.NOTHING
            return seen.now - self._stepped >= STEP_SECONDS and self._grow(seen)
        elif seen.now < self._until:
            self.hold = Hold.SLOWER
        elif seen.now - self._full.now >= PROBE_SECONDS:
            self._probe = _Probe(self.threads, seen.rate_since(self._full), seen)
            return self._grow(seen)
        return False

    def _grow(self, seen: Usage) -> bool:
        self.threads = min(self.ceiling, math.ceil(self.threads * STEP))
        self._stepped, self._full = seen.now, seen
        return True

    def _end_probe(self, seen: Usage) -> bool:
        """Keep the threads of a probe if more requests end; return whether it is undone."""
        probe, self._probe = self._probe, None
        assert probe is not None
        if not seen.queued or seen.rate_since(probe.began) >= PROBE_GAIN * max(probe.rate, 1 / PROBE_SECONDS):
            self._pause = PAUSE_SECONDS
            return False
        self.hold = Hold.SLOWER
        self._until, self._pause = seen.now + self._pause, min(MAX_PAUSE_SECONDS, 2 * self._pause)
        self.threads, self._full = probe.threads, seen
        return True

    def shrink(self, used: int) -> bool:
        """Give up threads that no request needed for QUIET_SECONDS, in which so many were used at a time.

        Return whether there were any.
        """
        threads = min(self.threads, max(self.minimum, used))
        changed, self.threads = threads < self.threads, threads
        return changed


def is_late(seconds: float, usual: float | None) -> bool:
    """Return whether a request has run too long; ``usual`` is the mean of its route, None if not known."""
    return usual is not None and seconds > max(SICK_SECONDS, SICK_FACTOR * usual)
