"""Traffic rates, from the differences of counters: pure, standard library alone.

Each second uses a window of the last few, so that a percentile has enough values. Counters of two generations
cannot be subtracted: the first moment of a new one has no rates.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ..scoreboard.history import Sample
from ..scoreboard.slot import BOUNDS

WINDOW_SECONDS = 5.0
"""Window in seconds for charts that show each second."""
VERDICT_SECONDS = 60.0
"""Window in seconds for findings in words: a single error now and then must not switch the verdict back and
forth."""
STEADY_SAMPLES = 3
"""Samples, one each second, in each of which requests wait if there are too few threads."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """The state of a server at one moment; None for unknown values."""

    time: float
    """Seconds since 1970."""
    seconds: float = 0.0
    """Length of the window; 0.0 if there are no rates."""
    requests: float | None = None
    """Answered each second, including those counted by class and refused ones."""
    classes: tuple[float, ...] = ()
    """Rates of 1xx, 2xx ... 5xx."""
    refused: float | None = None
    p50: float | None = None
    """Seconds in Django, without the queue; None if no request ended."""
    p95: float | None = None
    p99: float | None = None
    queued95: float | None = None
    """Seconds that requests waited for a thread."""
    busy: int = 0
    waiting: int = 0
    memory: int = 0


def points(samples: Sequence[Sample]) -> list[Point]:
    """Return a point for each sample; the samples are in chronological order."""
    clocks = [sample.clock for sample in samples]
    return [
        point(samples[bisect_left(clocks, after.clock - WINDOW_SECONDS - 0.5) : index + 1])
        for index, after in enumerate(samples)
    ]


def latest(samples: Sequence[Sample], window: float = WINDOW_SECONDS) -> Point:
    """Return the point of the last sample, over a window of this many seconds."""
    return point([sample for sample in samples if sample.clock >= samples[-1].clock - window - 0.5])


def steadily_waiting(samples: Sequence[Sample]) -> int:
    """Return the minimum number of waiting requests over the last few samples."""
    return min(sample.waiting for sample in samples[-STEADY_SAMPLES:])


def point(window: Sequence[Sample]) -> Point:
    """Return the rates between the first sample of a window and its last, within one generation."""
    after = window[-1]
    before = next(sample for sample in window if sample.board == after.board)
    seconds = after.clock - before.clock
    if seconds < 0.5:
        return Point(time=after.time, busy=after.busy, waiting=after.waiting, memory=after.memory)
    latency = _difference(before.latency, after.latency)
    classes = _difference(before.classes, after.classes)
    return Point(
        time=after.time,
        seconds=seconds,
        requests=sum(classes) / seconds,
        classes=tuple(count / seconds for count in classes),
        refused=max(0, after.refused - before.refused) / seconds,
        p50=percentile(latency, 0.50),
        p95=percentile(latency, 0.95),
        p99=percentile(latency, 0.99),
        queued95=percentile(_difference(before.queued, after.queued), 0.95),
        busy=after.busy,
        waiting=after.waiting,
        memory=after.memory,
    )


def _difference(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Subtract counters. When a worker ends, its counts move to the totals: they may briefly shrink."""
    return [max(0, y - x) for x, y in zip(before, after, strict=True)]


def percentile(buckets: Sequence[int], share: float) -> float | None:
    """Return the time below which this share of the values is, interpolated linearly within its bucket.

    None if there are no values; the last bound for longer times.
    """
    wanted, seen, lower = share * sum(buckets), 0, 0.0
    for bound, count in zip(BOUNDS, buckets, strict=False):
        if count and seen + count >= wanted:
            return lower + (bound - lower) * (wanted - seen) / count
        seen, lower = seen + count, bound
    return BOUNDS[-1] if sum(buckets) else None
