"""A server's counters in each of the last seconds, so that operators see how the present state developed.

The arbiter writes a sample at each tick, on its main loop; readers subtract one sample from another. Pure but
for the shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from .ring import Ring
from .slot import BUCKETS

ENTRIES = 300
"""Samples, one each second."""
_CLASSES = 5
_SAMPLE = Struct(f"={7 + _CLASSES + 2 * BUCKETS}d")
SIZE = _SAMPLE.size


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The server at one moment: counters since its generation began, and current use."""

    time: float
    """Seconds since 1970."""
    clock: float
    """Monotonic time."""
    board: int
    """When this generation began, in whole milliseconds; counters of two generations cannot be subtracted."""
    refused: int
    aborted: int
    busy: int
    """Threads that run a request."""
    waiting: int
    """Requests, and connections, that have no thread yet."""
    memory: int
    """Bytes of memory in use."""
    classes: tuple[int, ...]
    latency: tuple[int, ...]
    queued: tuple[int, ...]


def write(ring: Ring, sample: Sample) -> None:
    """Write a sample for readers."""
    gauges = (sample.board, sample.refused, sample.aborted, sample.busy, sample.waiting, sample.memory)
    counts = (*sample.classes, *sample.latency, *sample.queued)
    ring.add(sample.time, _SAMPLE.pack(sample.clock, *gauges, *counts))


def go_on(ring: Ring, after: Ring) -> None:
    """Put the samples of another ring before our own."""
    samples = [*read(after), *read(ring)]
    ring.clear()
    for sample in samples:
        write(ring, sample)


def read(ring: Ring, last: int | None = None) -> Iterator[Sample]:
    """Yield the samples, or the last few, the oldest first."""
    for wall, text in ring.read(last):
        clock, *rest = _SAMPLE.unpack(text)
        board, refused, cut, busy, waiting, memory, *counts = map(int, rest)
        yield Sample(
            time=wall,
            clock=clock,
            board=board,
            refused=refused,
            aborted=cut,
            busy=busy,
            waiting=waiting,
            memory=memory,
            classes=tuple(counts[:_CLASSES]),
            latency=tuple(counts[_CLASSES : _CLASSES + BUCKETS]),
            queued=tuple(counts[_CLASSES + BUCKETS :]),
        )
