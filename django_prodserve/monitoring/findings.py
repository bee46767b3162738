"""The current problems of a server, the worst first, each with its remedy. Pure.

Current problems are described in the present tense, over the last minute. Past ones are described with their
time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..plan.sizing import KILL_SHARE, REPLACE_SHARE
from ..scoreboard.errors import RequestError
from ..scoreboard.events import BAD, CRASHES, WARN, Event, last_of
from ..scoreboard.routes import NO_ROUTE, OTHERS, RouteTime
from ..tls.expiry import Expiry
from ..utils.units import (
    counted,
    format_clock,
    format_count,
    format_duration,
    format_latency,
    format_share,
    format_size,
)
from .rates import Point

LONG_REQUEST_SECONDS = 10.0
"""Seconds after which a running request is named."""
MAX_QUEUE_SECONDS = 0.1
"""Seconds that one request in 20 may wait for a thread."""
ERROR_SHARE = 0.05
"""Share of 5xx responses from which errors are a problem..."""
BAD_ERRORS = 3
"""...if there are this many: one error in two requests is not an outage."""
RECENT_SECONDS = 60.0
"""Seconds for which a past problem is named."""
LEAK_SECONDS, LEAK_REPLACEMENTS = 3600.0, 2
"""If so many workers were replaced for their memory within this time, replacing does not help for long."""
FAILED_STARTS = 3
"""Starts of a process that failed in a row, from which it counts as down."""
DOMINANT_SHARE = 0.5
"""Share of the requests' time from which a route is named: it takes more of it than all others."""


class Remedy(NamedTuple):
    """The remedy for a kind of finding, and its topic of ``prodserve help``."""

    action: str
    help: str


REMEDIES = {
    "no worker": Remedy("Read the last errors in the log: they show why no worker starts.", "supervision"),
    "overload": Remedy(
        "Find the slow requests with prodserve dump; then add --threads for views that wait, or CPUs.",
        "overload",
    ),
    "waiting": Remedy("Add --threads if views wait for something, or CPUs if they compute.", "sizing"),
    "slow": Remedy("prodserve dump prints its stack; give the call that it waits for a timeout.", "slow"),
    "errors": Remedy("Look up the request ids of the recent errors in the log: it has the stacks.", "logs"),
    "memory": Remedy(
        "Raise the memory limit or lower --workers; if one worker keeps growing, find out what it keeps.",
        "memory",
    ),
    "leak": Remedy(
        "Find out what grows; until then --max-requests replaces workers before their memory is short.",
        "max-requests",
    ),
    "reload failed": Remedy("Correct the error, then run prodserve reload again.", "reload failed"),
    "certificate expires": Remedy(
        "Renew it, and find out why it was not renewed; the server takes the new files over by itself.",
        "certificate expires",
    ),
    "certificate refused": Remedy(
        "Write a certificate and the key that belongs to it; the server tries again by itself.",
        "certificate refused",
    ),
    "throttled": Remedy("Raise the CPU limit, or lower what a request computes.", "throttled"),
    "crashed": Remedy("Read the stack of the event: it ends where the worker crashed.", "crashed"),
    "killed": Remedy("Find out which process or user sent SIGKILL to the worker.", "killed"),
    "out of memory": Remedy("Raise the memory limit, or lower --workers.", "out of memory"),
    "hung": Remedy("Read the stack of the event, and give the call that hangs a timeout.", "hung"),
    "boot": Remedy("Find out what waits while a worker starts, and give it a timeout.", "boot"),
    "process ended": Remedy("Read its last lines in the log, before its end.", "process ended"),
    "process memory": Remedy(
        'Raise its "memory" in PRODSERVE["PROCESSES"], or find out what it keeps.', "process memory"
    ),
    "failed": Remedy("Read the errors before it in the log.", "failed"),
}
"""Remedies by kind; kinds that are events have the same names."""


class Finding(NamedTuple):
    """``level`` is BAD or WARN, ``kind`` a key of REMEDIES."""

    level: str
    text: str
    kind: str = ""
    action: str = ""
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Measured data of a server."""

    wall: float
    """Now, in seconds since 1970."""
    workers: Sequence[dict[str, Any]]
    now: Point
    """The last 5 seconds..."""
    minute: Point
    """...and the last 60."""
    waiting: int = 0
    """Requests that waited at each of the last few samples."""
    events: Sequence[Event] = ()
    errors: Sequence[RequestError] = ()
    """The last failed requests."""
    routes: Sequence[RouteTime] = ()
    """The routes of the last minute or two, the one that took the most time first."""
    processes: Sequence[dict[str, Any]] = ()
    """What runs alongside the workers."""
    memory_used: int = 0
    memory_limit: int = 0
    failed_reload: str = ""
    """Why the last reload failed; empty if it did not."""
    certificates: Sequence[Expiry] = ()


def evaluate(seen: Observed) -> list[Finding]:
    """Return the findings that an operator must know, the worst first; empty if all is well."""
    found = [
        *_of_workers(seen),
        *_of_overload(seen),
        *_of_responses(seen),
        *_of_memory(seen),
        *_of_processes(seen),
        *_of_events(seen.events, seen.wall),
        *_of_reload(seen.failed_reload, seen.events),
        *_of_certificates(seen.certificates, seen.wall),
    ]
    return sorted(found, key=lambda finding: finding.level != BAD)


def finding(level: str, kind: str, text: str) -> Finding:
    """Return a finding with its remedy."""
    return Finding(level, text, kind, *REMEDIES[kind])


def _of_workers(seen: Observed) -> Iterator[Finding]:
    if not any(worker["state"] == "serving" for worker in seen.workers):
        yield finding(BAD, "no worker", "No worker serves requests")
    long = [
        worker["oldest"]
        for worker in seen.workers
        if worker["oldest"] and worker["oldest"]["age"] >= LONG_REQUEST_SECONDS
    ]
    if long:
        oldest = max(long, key=lambda request: float(request["age"]))
        name = _quoted(f"{oldest['method']} {oldest['path']}")
        yield finding(
            WARN, "slow", f"A request has been running for {format_duration(round(oldest['age']))}: {name}"
        )


def _of_overload(seen: Observed) -> Iterator[Finding]:
    """Report that requests are rejected, or, if they only wait, that they wait."""
    last = last_of(seen.events, "overload", "overload over")
    began = last if last and last.kind == "overload" else None
    serving = [worker for worker in seen.workers if worker["state"] == "serving"]
    busy, threads = (sum(worker[name] for worker in serving) for name in ("busy", "threads"))
    if began or seen.now.refused:
        since = f" since {format_clock(began.time)}" if began else ""
        rate = f"{format_count(seen.now.refused or 0)} requests/s are rejected with 503"
        text = f"Overloaded{since}: {rate}, {busy} of {threads} threads are busy{_of_routes(seen.routes)}"
        yield finding(BAD, "overload", text)
    elif last and seen.wall - last.time < RECENT_SECONDS:
        yield finding(WARN, "overload", f"{format_clock(last.time)}: {last.text}")
    elif seen.minute.refused:
        number = round(seen.minute.refused * seen.minute.seconds)
        yield finding(WARN, "overload", f"{counted(number, 'request')} rejected with 503 in the last minute")
    elif threads and seen.waiting and busy >= threads:
        waits = "requests wait" if seen.waiting > 1 else "request waits"
        text = f"All {threads} threads are busy, and {seen.waiting} {waits}{_of_routes(seen.routes)}"
        yield finding(WARN, "waiting", text)
    elif seen.minute.queued95 and seen.minute.queued95 >= MAX_QUEUE_SECONDS:
        wait = format_duration(seen.minute.queued95)
        text = f"In the last minute, 1 request in 20 waited {wait} or longer for a thread"
        text += _of_routes(seen.routes)
        yield finding(WARN, "waiting", text)


def _of_routes(routes: Sequence[RouteTime]) -> str:
    """Return the route that takes most of the requests' time, as the end of a finding; empty if none does."""
    spent = sum(route.seconds for route in routes)
    if not spent or routes[0].seconds < DOMINANT_SHARE * spent or routes[0].route in (OTHERS, NO_ROUTE):
        return ""
    share, mean = format_share(routes[0].seconds / spent), format_latency(routes[0].mean)
    return f"; {share} of the time goes to the route {routes[0].route} ({mean} a request)"


def _of_responses(seen: Observed) -> Iterator[Finding]:
    minute = seen.minute
    errors = minute.classes[4] if minute.classes else 0.0
    if minute.requests and errors:
        share, number = errors / minute.requests, round(errors * minute.seconds)
        level = BAD if share >= ERROR_SHARE and number >= BAD_ERRORS else WARN
        of = f"{number:,} of {round(minute.requests * minute.seconds):,}"
        text = f"{format_share(share)} of responses in the last minute are errors (5xx): {of}"
        text += _of_error(seen.errors, seen.wall)
        yield finding(level, "errors", text)


def _of_error(errors: Sequence[RequestError], wall: float) -> str:
    """Return what failed last, as the end of a finding; empty if that was longer ago."""
    if not errors or wall - errors[-1].time >= RECENT_SECONDS:
        return ""
    last = errors[-1]
    where = f" in {last.route}" if last.route else ""
    return f"; the last: {last.exception or last.status}{where}, {_quoted(f'{last.method} {last.path}')}"


def _quoted(request: str) -> str:
    """Return a request in one line of ASCII: a client has chosen its text."""
    return request.encode("unicode_escape").decode("ascii")[:120]


def _of_memory(seen: Observed) -> Iterator[Finding]:
    used, limit = seen.memory_used, seen.memory_limit
    if limit and used >= REPLACE_SHARE * limit:
        level = BAD if used >= KILL_SHARE * limit else WARN
        text = f"{format_size(used)} of {format_size(limit)} memory are in use{_of_largest(seen.workers)}"
        yield finding(level, "memory", text)
    replaced = [event for event in seen.events if event.kind == "memory"]
    lately = [event for event in replaced if seen.wall - event.time < LEAK_SECONDS]
    if len(lately) >= LEAK_REPLACEMENTS:
        text = f"{len(lately)} workers were replaced for their memory within the last hour, the last at "
        yield finding(WARN, "leak", f"{text}{format_clock(lately[-1].time)}: {lately[-1].text}")
    elif lately and seen.wall - lately[-1].time < RECENT_SECONDS:
        yield finding(WARN, "memory", f"{format_clock(lately[-1].time)}: {lately[-1].text}")


def _of_processes(seen: Observed) -> Iterator[Finding]:
    for process in seen.processes:
        if process["failing"]:
            level = BAD if process["failing"] >= FAILED_STARTS else WARN
            why = f": it {process['last_end']}" if process["last_end"] else ""
            starts = counted(process["failing"], "start") + " in a row"
            yield finding(
                level, "process ended", f"Process {process['name']} does not stay up ({starts}){why}"
            )
    last = last_of(seen.events, "process memory")
    if last is not None and seen.wall - last.time < RECENT_SECONDS:
        yield finding(WARN, "process memory", f"{format_clock(last.time)}: {last.text}")


def _of_largest(workers: Sequence[dict[str, Any]]) -> str:
    """Return the worker that uses the most memory, as the end of a finding; empty if none was measured."""
    largest = max(workers, key=lambda worker: int(worker["memory"]), default=None)
    if largest is None or not largest["memory"]:
        return ""
    return f"; worker {largest['pid']} uses {format_size(largest['memory'])}"


def _of_reload(reason: str, events: Sequence[Event]) -> Iterator[Finding]:
    if reason:
        first, *more = reason.strip().splitlines()
        place = next((line.strip()[4:].strip() for line in more if line.strip().startswith("See:")), "")
        line = f"{first[:200]} ({place[:200]})" if place else first[:200]
        failed = last_of(events, "reload failed")
        when = f" ({format_clock(failed.time)})" if failed else ""
        text = f"The last reload failed{when}, and the release before it keeps serving: {line}"
        yield finding(WARN, "reload failed", text)


def _of_certificates(certificates: Sequence[Expiry], wall: float) -> Iterator[Finding]:
    for expiry in certificates:
        if expiry.is_near(wall):
            yield finding(BAD if expiry.is_over(wall) else WARN, "certificate expires", expiry.sentence(wall))
        if expiry.refused:
            text = f"The new files of the certificate of {expiry.name} are not used: {expiry.refused}"
            yield finding(WARN, "certificate refused", text)


def _of_events(events: Sequence[Event], wall: float) -> Iterator[Finding]:
    ended = [event for event in events if event.kind in CRASHES and wall - event.time < RECENT_SECONDS]
    if ended:
        last = ended[-1]
        more = f" (and {len(ended) - 1} more in the last minute)" if len(ended) > 1 else ""
        yield finding(BAD, last.kind, f"{format_clock(last.time)}: {last.text}{more}")
    quota = last_of(events, "throttled", "throttling over")
    if quota and quota.kind == "throttled":
        yield finding(WARN, "throttled", f"{quota.text} since {format_clock(quota.time)}")
    elif quota and wall - quota.time < RECENT_SECONDS:
        yield finding(WARN, "throttled", f"{format_clock(quota.time)}: {quota.text}")
