"""Measure what requests spend their time on: of one in 5 ms, if it ran alone in its worker.

Lives in a worker, in the threads that run Django. CPU time over wall time of requests that share the GIL says
nothing (10 to 43 % for a view that only computes); of one that ran alone, without the time that its thread
was runnable and had no CPU, it is right. About 5 us for a sampled request: one of many of the quickest, and
each of those that take long. Linux alone tells the delay.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from ..scoreboard.slot import Slot

MIN_INTERVAL = 0.005
"""Seconds between two that are measured, at least."""

Token = tuple[int, float, int, float]


class UncontendedSamples(NamedTuple):
    """Requests that ran alone: how many, and the seconds that they computed and waited."""

    number: float
    cpu: float
    blocked: float


class Sampler:
    """The samples of one worker."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.begun, self.last = 0, 0.0
        self._local = threading.local()
        self._descriptors: list[int] = []
        self._before = UncontendedSamples(0.0, 0.0, 0.0)

    def begin(self, running: int, now: float) -> Token | None:
        """A request starts; ``running`` counts it. Return a token for ``end``, if it is to be measured."""
        self.begun = begun = self.begun + 1
        if running > 1 or now - self.last < MIN_INTERVAL:
            return None
        self.last = now
        delay = self._delay()
        return None if delay is None else (begun, time.thread_time(), delay, now)

    def end(self, row: int, token: Token, now: float) -> None:
        """It is over: count it if nothing else has begun meanwhile."""
        begun, cpu, delay, started = token
        if begun != self.begun or (late := self._delay()) is None:
            return
        computed, delayed = time.thread_time() - cpu, (late - delay) / 1e9
        self.slot.sample(row, computed, max(0.0, now - started - computed - delayed), delayed)

    def since(self) -> UncontendedSamples:
        """Return what was measured since this was last asked."""
        tally = self.slot.counters()
        now, before = UncontendedSamples(tally.samples, tally.cpu_sum, tally.wait_sum), self._before
        self._before = now
        return UncontendedSamples(*(mine - theirs for mine, theirs in zip(now, before, strict=True)))

    def run_delay(self) -> float:
        """Return the seconds that threads of this worker were kept from a CPU, all in all. 1 us for each."""
        return sum(_read(descriptor) or 0 for descriptor in self._descriptors) / 1e9

    def _delay(self) -> int | None:
        """Return the nanoseconds that this thread was kept from a CPU."""
        try:
            descriptor: int = self._local.descriptor
        except AttributeError:
            descriptor = self.open()
        return None if descriptor < 0 else _read(descriptor)

    def open(self) -> int:
        """Open this thread's schedstat for good: in each that runs requests; -1 where there is none."""
        descriptor = -1
        with suppress(OSError):
            descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors.append(descriptor)
        self._local.descriptor = descriptor
        return descriptor


def _read(descriptor: int) -> int | None:
    """Return a thread's delay. Its CPU time stands beside it, as of the scheduler's last tick: a clock tells
    that exactly.
    """
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 64, 0).split()[1])
    return None
