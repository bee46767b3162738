"""Measure what requests spend their time on: of one in 5 ms, if it ran alone in its worker.

Lives in a worker, in the threads that run Django. CPU time over wall time of requests that share the GIL says
nothing (10 to 43 % for a view that only computes); of one that ran alone, without the time that its thread
was runnable and had no CPU, it is right. About 5 us for a sampled request: one of many of the quickest, and
each of those that take long. Linux alone tells the delay.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from .slot import Slot

EVERY = 0.005
"""Seconds between two that are measured, at least."""

Token = tuple[int, int, int, float]


class Sampler:
    """The samples of one worker."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.begun, self.last = 0, 0.0
        self._local = threading.local()
        self._before = (0, 0.0)

    def begin(self, running: int, now: float) -> Token | None:
        """A request starts; ``running`` counts it. Return a token for ``end``, if it is to be measured."""
        self.begun = begun = self.begun + 1
        if running > 1 or now - self.last < EVERY:
            return None
        self.last = now
        spent = self._spent()
        return (begun, *spent, now) if spent else None

    def end(self, row: int, token: Token, now: float) -> None:
        """It is over: count it if nothing else has begun meanwhile."""
        begun, cpu, delay, started = token
        spent = self._spent() if begun == self.begun else None
        if spent is not None:
            computed, delayed = (spent[0] - cpu) / 1e9, (spent[1] - delay) / 1e9
            self.slot.sample(row, computed, max(0.0, now - started - computed - delayed), delayed)

    def waits(self) -> float | None:
        """Return the seconds that a request waited since this was last asked; None if none was measured."""
        tally = self.slot.tally()
        (samples, waited), self._before = self._before, (tally.samples, tally.wait_sum)
        return (tally.wait_sum - waited) / (tally.samples - samples) if tally.samples > samples else None

    def _spent(self) -> tuple[int, int] | None:
        """Return the nanoseconds that this thread computed, and those that it was kept from a CPU."""
        try:
            descriptor: int = self._local.descriptor
        except AttributeError:
            descriptor = self._open()
        if descriptor < 0:
            return None
        with suppress(OSError, ValueError):
            cpu, delay, _ = os.pread(descriptor, 64, 0).split()
            return int(cpu), int(delay)
        return None

    def _open(self) -> int:
        """Open this thread's schedstat for good; -1 where there is none."""
        try:
            self._local.descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._local.descriptor = -1
        descriptor: int = self._local.descriptor
        return descriptor
