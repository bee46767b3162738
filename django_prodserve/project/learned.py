"""What traffic, or ``prodserve tune``, has shown about a project: its profile and its threads. Pure.

learned_file.py keeps it from one start to the next, and plan/sizing.py counts with it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..utils.units import counted, format_cpus, format_size

FORMAT = 1
"""Increases when older versions could misread the file."""
CLOCK_SECONDS = 3600.0
"""Seconds by which clocks of two starts may differ before a file is from the future."""
SAME_MEMORY = 0.1
"""Share by which memory may differ: kernels reserve some of it, and reserve more or less after an update."""
SOURCES = ("traffic", "tune")
PROFILES = ("io", "cpu")


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The profile and the threads that fit, and where this was measured."""

    profile: str
    threads: int
    """Threads of each worker at the start."""
    max_threads: int | None = None
    """Maximum threads of each worker; None for as many as the budgets allow."""
    workers: int
    """Number of workers that had these threads."""
    requests: int
    when: float
    """Seconds since 1970."""
    source: str
    """``traffic`` or ``tune``."""
    cpus: float
    memory: int | None
    """CPUs, and bytes of memory, of the plan that served the requests."""

    def __str__(self) -> str:
        who = " by prodserve tune" if self.source == "tune" else ""
        return f"learned{who} from {counted(self.requests, 'request')} on {_date(self.when)}"

    def threads_with(self, workers: int) -> int:
        """Return the threads of each worker at the start if there are this many workers."""
        return max(1, math.ceil(self.threads * self.workers / workers))

    def max_threads_with(self, workers: int) -> int | None:
        """Return the maximum threads of each worker if there are this many; None without a limit."""
        if self.max_threads is None:
            return None
        return max(1, math.ceil(self.max_threads * self.workers / workers))

    def why_not_on(self, cpus: float, memory: int | None) -> str:
        """Return why this counts for nothing on a machine of this size; empty if it counts."""
        if self.cpus == cpus and _is_same(self.memory, memory):
            return ""
        return f"{self}, but with {_size(self.cpus, self.memory)}; here are {_size(cpus, memory)}"


@dataclass(frozen=True, kw_only=True)
class TrafficSpan:
    """The traffic of some minutes, as the arbiter has counted it."""

    end: float
    """Seconds since 1970."""
    seconds: float
    requests: int
    samples: int
    """Requests that ran alone and were measured: they computed and waited for so many seconds."""
    cpu: float
    wait: float
    used: float
    """CPU seconds of all workers, and seconds that all requests took."""
    latency: float
    threads: Mapping[int, int]
    """How often a worker had this many threads in use, with one look each second."""
    contradiction: str = ""
    """Why nothing can be learned from it; empty if nothing went wrong."""


@dataclass(frozen=True)
class Kept:
    """The content of the file: what was learned, and the traffic of the last day."""

    learned: Learned | None = None
    spans: tuple[TrafficSpan, ...] = ()
    problem: str = ""
    """Why the file cannot be used, as a predicate; empty if it can, or if there is none."""

    @property
    def why_nothing(self) -> str:
        """Return why nothing was learned."""
        if self.problem:
            return self.problem
        good = [span for span in self.spans if not span.contradiction]
        if not good:
            return "nothing learned yet"
        seen = counted(sum(span.requests for span in good), "request")
        return f"nothing learned yet: {seen} in {_hours(sum(span.seconds for span in good))}"


def to_text(learned: Learned | None, spans: Sequence[TrafficSpan]) -> str:
    """Return the file's content."""
    return json.dumps(
        {
            "format": FORMAT,
            "learned": None if learned is None else asdict(learned),
            "spans": [{**asdict(span), "threads": sorted(span.threads.items())} for span in spans],
        }
    )


def from_text(text: str, now: float) -> Kept:
    """Read the file's content; ``now`` is the time of the wall clock."""
    try:
        document = json.loads(text)
        form = document["format"]
        if form != FORMAT:
            return Kept(problem=f"has format {form}, and this version of prodserve reads {FORMAT}")
        learned = None if document["learned"] is None else _checked(Learned(**document["learned"]))
        spans = tuple(map(_span, document["spans"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Kept(problem="is damaged")
    if learned is not None and learned.when > now + CLOCK_SECONDS:
        return Kept(problem=f"is dated {_date(learned.when)}, and today is {_date(now)}")
    return Kept(learned, tuple(span for span in spans if span.end <= now + CLOCK_SECONDS))


def _checked(found: Learned) -> Learned:
    """Return it; raise ValueError if a value cannot be from prodserve."""
    most = found.threads if found.max_threads is None else found.max_threads
    counts = (found.threads, found.workers, found.requests, most)
    is_whole = all(type(count) is int and count >= 1 for count in counts) and most >= found.threads
    is_known = found.profile in PROFILES and found.source in SOURCES
    has_size = found.cpus > 0 and (found.memory is None or found.memory > 0)
    if not (is_whole and is_known and has_size and math.isfinite(found.when)):
        raise ValueError(found)
    return found


def _span(document: dict[str, Any]) -> TrafficSpan:
    """Return a span; raise TypeError or ValueError if a value cannot be from prodserve."""
    threads = {int(number): int(count) for number, count in document["threads"]}
    span = TrafficSpan(**{**document, "threads": threads})
    numbers = (span.seconds, span.requests, span.samples, span.cpu, span.wait, span.used, span.latency)
    if not all(0 <= number < math.inf for number in numbers) or not math.isfinite(span.end):
        raise ValueError(span)
    return span


def _is_same(one: int | None, other: int | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME_MEMORY * max(one, other)


def _size(cpus: float, memory: int | None) -> str:
    return f"{format_cpus(cpus)}, {'unknown memory' if memory is None else format_size(memory)}"


def _date(when: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(when))
    except (ValueError, OverflowError, OSError):
        return "far in the future"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.2g} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
