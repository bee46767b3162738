"""What a day of traffic shows about a project: its profile, and how many threads it needs. Pure.

Traffic is counted in spans of some minutes. A span in which something went wrong shows nothing: requests wait
for a database that is slow, or the server refuses them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..plan.sizing import THREADS
from ..project.learned import Learned, TrafficSpan
from ..scoreboard.slot import Counters
from .advice import CPU_BOUND_SHARE, MIN_BUSY_SHARE, MIN_SAMPLES

SPAN_SECONDS = 900.0
"""Length of a span in seconds: four an hour are a file of a few KiB for a day."""
MIN_SPAN_SECONDS = SPAN_SECONDS / 3
"""A reload ends a span early. The rate of a shorter one may be chance, and is not the highest."""
DAY_SECONDS = 86400.0
"""Older spans count for nothing."""
ENOUGH = ((20 * 3600.0, 1_000), (4 * 3600.0, 10_000))
"""Seconds of traffic with a number of requests from which something is learned."""
BUSY_SHARE = 0.5
"""Spans with at least this share of the highest rate are busy. Only they count."""
THREADS_SHARE = 0.95
"""Share of the time in which the learned number of threads was enough in busy spans."""
FAILED_SHARE = 0.05
"""Share of responses with a server error from which a span shows nothing: error pages wait for nothing."""
SWITCH_MARGIN = 0.05
"""Distance of the computing share from CPU_BOUND_SHARE below which the present profile is kept."""
FEWER_SHARE = 0.5
"""A day with a smaller share of the requests of the learned one replaces it only after..."""
KEPT_SECONDS = 7 * DAY_SECONDS
"""...this many seconds: a Sunday must not decide on the next Monday."""
NEWS_SHARE = 0.25
"""Share by which the threads must change to be worth a line in the log."""


@dataclass
class SpanCounter:
    """Counts the traffic of the present span."""

    began: float
    """Monotonic time."""
    before: Counters
    threads: Counter[int] = field(default_factory=Counter)
    used: float = 0.0
    last: float = 0.0
    contradiction: str = ""

    def observe(self, now: float, busy: Sequence[int], used: float, contradiction: str) -> None:
        """Process one second: the busy threads and the CPUs of all workers, and what went wrong."""
        self.threads.update(busy)
        self.used += used * (now - (self.last or self.began))
        self.last = now
        self.contradiction = self.contradiction or contradiction

    def end(self, now: float, wall: float, tally: Counters) -> TrafficSpan:
        """Return the span that ends now."""
        before = self.before
        requests = tally.requests - before.requests
        failed = tally.classes[4] - before.classes[4]
        reason = self.contradiction
        if tally.refused > before.refused:
            reason = reason or "requests were refused"
        elif failed > FAILED_SHARE * requests:
            reason = reason or "too many requests failed"
        return TrafficSpan(
            end=wall,
            seconds=now - self.began,
            requests=requests,
            samples=tally.samples - before.samples,
            cpu=tally.cpu_sum - before.cpu_sum,
            wait=tally.wait_sum - before.wait_sum,
            used=self.used,
            latency=tally.latency_sum - before.latency_sum,
            threads=dict(self.threads),
            contradiction=reason,
        )


def recent(spans: Sequence[TrafficSpan], now: float) -> list[TrafficSpan]:
    """Return the spans of the last day."""
    return [span for span in spans if now - DAY_SECONDS < span.end <= now]


def since_tune(spans: Sequence[TrafficSpan], learned: Learned | None) -> list[TrafficSpan]:
    """Return the spans that may replace what was learned: ``prodserve tune`` holds for a day of traffic."""
    since = learned.when if learned is not None and learned.source == "tune" else 0.0
    return [span for span in spans if span.end - span.seconds >= since]


@dataclass(frozen=True, kw_only=True)
class ServedBy:
    """The plan that serves the traffic."""

    profile: str
    workers: int
    max_threads: int
    cpus: float
    memory: int | None


def conclude(spans: Sequence[TrafficSpan], plan: ServedBy) -> Learned | None:
    """Return what these spans of a day show; None if they are too few, or if the last one went wrong."""
    good = [span for span in spans if not span.contradiction and span.seconds > 0]
    requests, seconds = sum(span.requests for span in good), sum(span.seconds for span in good)
    is_enough = any(seconds >= time and requests >= count for time, count in ENOUGH)
    if not is_enough or spans[-1].contradiction:  # of no spans, there are not enough
        return None
    busy = list(_busy(good))
    profile = _profile(busy, plan.profile)
    # Threads start when needed, so fewer than the profile's number would save nothing.
    threads = max(THREADS[profile], min(_threads(busy), plan.max_threads))
    return Learned(
        profile=profile,
        threads=threads,
        workers=plan.workers,
        requests=requests,
        when=spans[-1].end,
        source="traffic",
        cpus=plan.cpus,
        memory=plan.memory,
    )


def replaces(new: Learned, old: Learned | None) -> bool:
    """Return whether a day of traffic replaces what was learned before."""
    if old is None or old.source != "traffic" or old.why_not_on(new.cpus, new.memory):
        return True
    return new.requests >= FEWER_SHARE * old.requests or new.when - old.when >= KEPT_SECONDS


def is_news(new: Learned, old: Learned | None) -> bool:
    """Return whether the next start will differ enough for a line in the log."""
    if old is None or old.profile != new.profile:
        return True
    return abs(new.threads - old.threads) > NEWS_SHARE * old.threads


def _busy(spans: Sequence[TrafficSpan]) -> Iterator[TrafficSpan]:
    whole = [span for span in spans if span.seconds >= MIN_SPAN_SECONDS] or spans
    highest = max(span.requests / span.seconds for span in whole)
    return (span for span in spans if span.requests / span.seconds >= BUSY_SHARE * highest)


def _threads(spans: Sequence[TrafficSpan]) -> int:
    """Return the threads that were enough for a worker for nearly all of the time."""
    seen: Counter[int] = Counter()
    for span in spans:
        seen.update(span.threads)
    left = THREADS_SHARE * seen.total()
    for number, count in sorted(seen.items()):
        left -= count
        if left <= 0:
            return number
    return 0


def _profile(spans: Sequence[TrafficSpan], present: str) -> str:
    """Return the profile by the share of their time that requests compute; the present one in between."""
    latency, requests = sum(span.latency for span in spans), sum(span.requests for span in spans)
    busy = min(1.0, sum(span.used for span in spans) / latency) if latency else 0.0
    computing = sum(_computing(span) * span.requests for span in spans) / requests if requests else 0.0
    if abs(computing - CPU_BOUND_SHARE) < SWITCH_MARGIN:
        return present
    # Requests that ran alone may be those of quiet minutes, while all others sleep.
    return "cpu" if computing > CPU_BOUND_SHARE and busy >= MIN_BUSY_SHARE else "io"


def _computing(span: TrafficSpan) -> float:
    """Return the share of their time that requests of a span compute."""
    if span.samples >= MIN_SAMPLES and span.cpu + span.wait > 0:
        return span.cpu / (span.cpu + span.wait)
    return min(1.0, span.used / span.latency) if span.latency else 0.0
