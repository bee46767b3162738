"""What is wrong with a server now, the worst first, in words for 3 a.m. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..plan.sizing import KILL_SHARE, REPLACE_SHARE
from ..scoreboard.events import Event
from ..utils.units import format_duration, format_size
from .rates import Point

BAD, WARN = "bad", "warn"
LONG_REQUEST_SECONDS = 10.0
"""Seconds after which a request is told of."""
MAX_QUEUE_SECONDS = 0.1
"""Seconds that one request in 20 may wait for a thread."""
ERROR_SHARE = 0.05
"""Share of responses with 5xx from which on it is bad."""
RECENT_SECONDS = 60.0
"""Seconds that a worker's sudden end is told of."""
CRASH_KINDS = ("crashed", "killed", "out of memory", "stuck", "boot", "failed")


class Finding(NamedTuple):
    """``level`` is BAD or WARN."""

    level: str
    text: str


def evaluate(
    workers: Sequence[dict[str, Any]],
    point: Point,
    events: Sequence[Event],
    wall: float,
    used: int,
    limit: int,
    failed_reload: str = "",
) -> list[Finding]:
    """Return what an operator must know, the worst first; nothing where all is well."""
    found = [
        *_of_workers(workers, point),
        *_of_answers(point),
        *_of_memory(used, limit),
        *_of_events(events, wall),
        *_of_reload(failed_reload),
    ]
    return sorted(found, key=lambda finding: finding.level != BAD)


def _of_workers(workers: Sequence[dict[str, Any]], point: Point) -> Iterator[Finding]:
    serving = [each for each in workers if each["state"] == "serving"]
    if not serving:
        yield Finding(BAD, "No worker serves")
        return
    busy, threads = (sum(each[name] for each in serving) for name in ("busy", "threads"))
    if point.refused:
        yield Finding(BAD, f"{point.refused:.3g} requests are refused each second: no thread is free in time")
    elif point.waiting and busy >= threads:
        wait = f"{point.waiting} wait" if point.waiting > 1 else "1 waits"
        yield Finding(WARN, f"All {threads} threads are busy, and {wait}")
    elif point.queued95 and point.queued95 >= MAX_QUEUE_SECONDS:
        yield Finding(
            WARN, f"One request in 20 waits {format_duration(point.queued95)} or longer for a thread"
        )
    long = [
        each["oldest"] for each in workers if each["oldest"] and each["oldest"]["age"] >= LONG_REQUEST_SECONDS
    ]
    if long:
        oldest = max(long, key=lambda request: float(request["age"]))
        name = f"{oldest['method']} {oldest['path']}".encode("unicode_escape").decode("ascii")[:120]
        yield Finding(WARN, f"A request has run for {format_duration(round(oldest['age']))}: {name}")


def _of_answers(point: Point) -> Iterator[Finding]:
    errors = point.classes[4] if point.classes else 0.0
    if point.requests and errors:
        share = errors / point.requests
        level = BAD if share >= ERROR_SHARE else WARN
        yield Finding(level, f"{100 * share:.2g} % of all responses are errors (5xx)")


def _of_memory(used: int, limit: int) -> Iterator[Finding]:
    if limit and used >= REPLACE_SHARE * limit:
        level = BAD if used >= KILL_SHARE * limit else WARN
        yield Finding(level, f"{format_size(used)} of {format_size(limit)} memory are used")


def _of_reload(reason: str) -> Iterator[Finding]:
    if reason:
        line = reason.strip().partition("\n")[0][:200]
        yield Finding(WARN, f"The last reload failed, and the code before it serves: {line}")


def _of_events(events: Sequence[Event], wall: float) -> Iterator[Finding]:
    ended = [each for each in events if each.kind in CRASH_KINDS and wall - each.time < RECENT_SECONDS]
    if ended:
        last = ended[-1]
        more = f", and {len(ended) - 1} more in the last minute" if len(ended) > 1 else ""
        yield Finding(BAD, f"{wall - last.time:.0f} s ago: {last.text}{more}")
    quota = next((each for each in reversed(events) if each.kind in {"throttled", "throttling over"}), None)
    if quota and quota.kind == "throttled":
        yield Finding(WARN, quota.text)
