"""Measure how requests spend their time: one sample in 5 ms, of a request that ran alone in its worker.

Lives in a worker, in the threads that run Django. If requests share the GIL, CPU time over wall time is
misleading: 10 to 43 % for a view that only computes. If a request ran alone, the ratio is right once the time
is subtracted in which its thread was runnable without a CPU. A sample costs about 5 us. The worker samples
few of the quickest requests and every long one. Only Linux reports the delay.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from ..scoreboard.slot import Slot

MIN_INTERVAL = 0.005
"""Minimum number of seconds between two samples."""

Token = tuple[int, float, int, float]


class UncontendedSamples(NamedTuple):
    """Requests that ran alone: their number, and the seconds that they computed and waited."""

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
        self._gone_delay = 0.0  # of threads that have ended
        self._lock = threading.Lock()
        self._before = UncontendedSamples(0.0, 0.0, 0.0)

    def begin(self, running: int, now: float) -> Token | None:
        """Begin a request; ``running`` counts it. Return a token for ``end`` if it is to be measured."""
        self.begun = begun = self.begun + 1
        if running > 1 or now - self.last < MIN_INTERVAL:
            return None
        self.last = now
        delay = self._delay()
        return None if delay is None else (begun, time.thread_time(), delay, now)

    def end(self, row: int, token: Token, now: float) -> None:
        """End a request: count it if no other request has begun meanwhile."""
        begun, cpu, delay, started = token
        if begun != self.begun or (late := self._delay()) is None:
            return
        computed, delayed = time.thread_time() - cpu, (late - delay) / 1e9
        self.slot.sample(row, computed, max(0.0, now - started - computed - delayed), delayed)

    def since(self) -> UncontendedSamples:
        """Return the samples since the last call."""
        tally = self.slot.counters()
        now, before = UncontendedSamples(tally.samples, tally.cpu_sum, tally.wait_sum), self._before
        self._before = now
        return UncontendedSamples(*(mine - theirs for mine, theirs in zip(now, before, strict=True)))

    def run_delay(self) -> float:
        """Return how long this worker's threads waited for a CPU, in total. 1 us for each thread."""
        with self._lock:  # a thread that ends closes its file
            return self._gone_delay + sum(_read(descriptor) or 0 for descriptor in self._descriptors) / 1e9

    def _delay(self) -> int | None:
        """Return the nanoseconds that this thread has waited for a CPU."""
        try:
            descriptor: int = self._local.descriptor
        except AttributeError:
            descriptor = self.open()
        return None if descriptor < 0 else _read(descriptor)

    def open(self) -> int:
        """Open this thread's schedstat, until ``close``; return -1 if the system has none."""
        descriptor = -1
        with suppress(OSError):
            descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            with self._lock:
                self._descriptors.append(descriptor)
        self._local.descriptor = descriptor
        return descriptor

    def close(self) -> None:
        """Close this thread's schedstat, as the thread ends."""
        descriptor: int = self._local.descriptor
        if descriptor >= 0:
            with self._lock:
                self._gone_delay += (_read(descriptor) or 0) / 1e9
                self._descriptors.remove(descriptor)
                os.close(descriptor)


def _read(descriptor: int) -> int | None:
    """Return a thread's delay. The same file has its CPU time, but only as of the scheduler's last tick; a
    clock gives the exact value."""
    with suppress(OSError, ValueError):
        return int(os.pread(descriptor, 64, 0).split()[1])
    return None
