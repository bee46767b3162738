"""The result of ``prodserve tune`` as text and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ..plan.capacity import CONNECTIONS, CPU, GIL, MEMORY, THREADS
from ..utils.units import counted, format_count, format_cpus, format_latency, format_share, format_size
from .costs import PathCost
from .result import Run, TuneResult

SHARED = "shared"
SHORT = {
    CPU: "CPU",
    GIL: "the GIL of each worker: its threads wait for each other",
    THREADS: "threads: as many requests wait as there are threads",
    CONNECTIONS: "database connections, which limit the threads",
    MEMORY: "memory, which limits the threads",
    SHARED: "what requests share and what gets slower under load: a lock, a pool, a database or a service",
}
"""What is short first, in words."""
SLOWEST = 3
SHOWN = 10
"""Paths without a measurement that the text names."""
AGREES = 0.15
"""Difference between prediction and measurement from which the report mentions it."""
LOST_SHARE = 0.01
"""Share of failed requests from which the report mentions them."""


def as_json(result: TuneResult) -> str:
    """Return the result for programs."""
    return json.dumps(result.as_dict(), indent=2)


def as_text(result: TuneResult) -> str:
    """Return the result for people."""
    return "\n".join([*_lines(result)])


def _lines(result: TuneResult) -> Iterator[str]:
    yield f"{counted(result.requests, 'request')} in {result.seconds:.0f} s, settings {result.settings}"
    yield ""
    rows: list[tuple[str, ...]] = [("Path", "Share", "CPU", "Wait", "Database", "Kind")]
    rows += [_path_row(cost) for cost in result.paths]
    yield from _table(rows)
    if result.skipped:
        shown = [f"{each.path} ({each.why})" for each in result.skipped[:SHOWN]]
        more = len(result.skipped) - len(shown)
        yield f"Not measured: {', '.join(shown)}{f' and {more} more' if more else ''}"
    yield ""
    rows = [("Clients", "Predicted", "Measured", "p50", "p95", "p99", "Server CPUs")]
    rows += [_run_row(run) for run in result.runs]
    yield from _table(rows)
    yield ""
    for name, text in summary(result):
        yield f"{name:<12}{text}"
    if result.busy:
        yield ""
        yield f"Nothing can be concluded: {result.busy}. Measure again when it is quiet."


def summary(result: TuneResult) -> Iterator[tuple[str, str]]:
    """Yield the conclusions: a name and a sentence each."""
    wanted = result.recommended
    here = f"about {format_count(result.expected)} requests/s on this machine ({format_cpus(result.cpus)})"
    replica = f"each replica with {format_cpus(result.planned_cpus)} serves about "
    yield "serves", f"{here}; {replica}{format_count(result.expected_per_replica)}/s"
    yield "short first", SHORT[result.short]
    yield "prediction", _agreement(result)
    yield "profile", f"{wanted.profile}: requests compute {format_share(result.mix.computing)} of their time"
    yield "workers", str(wanted.workers)
    threads = f"{wanted.threads} in each worker"
    if wanted.max_threads > wanted.threads:
        threads += f", up to {wanted.max_threads} while requests only wait"
    if wanted.held_by:
        threads += f"; {SHORT[wanted.held_by].partition(',')[0]} allow no more".replace(
            "memory allow", "memory allows"
        )
    yield "threads", threads
    if wanted.connections:
        yield "database", f"up to {counted(wanted.connections, 'connection')}"
    yield "memory", f"{format_size(wanted.memory)} after the load"
    yield "to write", wanted.flags or "nothing: the plan fits"
    slowest = sorted(result.paths, key=lambda cost: -cost.seconds)[:SLOWEST]
    if len(result.paths) > 1:
        yield "slowest", ", ".join(f"{cost.path} {format_latency(cost.seconds)}" for cost in slowest)
    for note in (*result.notes, *_notes(result)):
        yield "note", note


def _agreement(result: TuneResult) -> str:
    share = result.measured / result.predicted - 1 if result.predicted else 0.0
    predicted = f"{format_count(result.predicted)}/s with the load client on the same CPUs"
    measured = f"{format_count(result.measured)}/s"
    if abs(share) < AGREES:
        return f"{predicted}, measured {measured}"
    side = "less" if share < 0 else "more"
    return f"{predicted}, but measured {measured}, {format_share(abs(share))} {side}"


def _notes(result: TuneResult) -> Iterator[str]:
    if any(run.failed > LOST_SHARE for run in result.runs):
        worst = max(run.failed for run in result.runs)
        yield f"up to {format_share(worst)} of the requests of a run had no 2xx: see the server's log"
    if any(run.client_cpus > 0.9 for run in result.runs):
        yield "the load client used a whole CPU: the server may serve more"


def cost_line(cost: PathCost) -> str:
    """Return one path for the progress."""
    parts = [f"CPU {format_latency(cost.cpu)}", f"wait {format_latency(cost.wait)}"]
    if cost.queries:
        parts.append(_database(cost))
    return f"{cost.path}: {', '.join(parts)} ({cost.kind})"


def run_line(run: Run) -> str:
    """Return one run for the progress."""
    predicted = f"predicted {format_count(run.predicted_rate)}/s"
    return f"{counted(run.clients, 'client')}: {format_count(run.rate)}/s, {predicted}"


def _path_row(cost: PathCost) -> tuple[str, ...]:
    database = _database(cost) if cost.queries else "-"
    return (
        cost.path,
        format_share(cost.share),
        format_latency(cost.cpu),
        format_latency(cost.wait),
        database,
        cost.kind,
    )


def _database(cost: PathCost) -> str:
    number = f"{cost.queries:.1f}".removesuffix(".0")
    noun = "query" if number == "1" else "queries"
    return f"{number} {noun}, {format_latency(cost.query_seconds)}"


def _run_row(run: Run) -> tuple[str, ...]:
    return (
        str(run.clients),
        f"{format_count(run.predicted_rate)}/s",
        f"{format_count(run.rate)}/s",
        *(format_latency(seconds) for seconds in (run.p50, run.p95, run.p99)),
        f"{run.cpus:.2f}",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    for row in rows:
        yield "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
