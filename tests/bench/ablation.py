"""Neutralise one tuning constant of the worker at a time, and show what that costs.

    python tests/bench/ablation.py --constants thread_pool,acceptor --rounds 5
    python tests/bench/ablation.py --constants CALM_CHECKS,REBALANCE_SECONDS --seconds 3

Each constant runs under the workloads that it matters for. Each run with the constant neutralised has a run
without the change beside it, which a busy machine hits as well. Figures are medians of neutralised / today:
CPU seconds per request, p99 of the responses, and responses with 200 a second. 1.00 means no effect.
"""

from __future__ import annotations

import argparse
import importlib
import math
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from statistics import median
from subprocess import SubprocessError

import load
from measure import Failed, Running, prepare, running
from report import table
from servers import Server
from traffic import Stream, percentile, send
from views import VIEWS

PREFIX = "django_prodserve.worker."


def serve(change: str, arguments: list[str]) -> None:
    """Serve with a constant changed: ``module.NAME=value``, or nothing. In a Python of its own."""
    if change:
        where, _, value = change.partition("=")
        module, _, name = where.rpartition(".")
        found = importlib.import_module(PREFIX + module)
        whole = isinstance(getattr(found, name), int) and value != "inf"
        setattr(found, name, (int if whole else float)(value))
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "prodserve", *arguments])


THREADS, WORKERS = 4, 2
WAIT_CAPACITY = THREADS * WORKERS / 0.05  # requests of 50 ms a second
INF = math.inf


@dataclass(frozen=True)
class Figures:
    """What a workload saw."""

    requests: int
    p99: float  # ms
    goodput: float  # requests a second


def kept(path: str, connections: int = 16, *, fresh: bool = False) -> Callable[[Running, float], Figures]:
    """Ask again as soon as the answer is there."""

    def run(server: Running, seconds: float) -> Figures:
        if load.client(seconds) == "wrk" and path in ("/hello/", "/json/"):
            view = VIEWS["hello-close" if fresh else path.strip("/")]
            seen = load.put(view, path, server.port, connections, seconds)
            return Figures(seen.requests, seen.p99, (seen.requests - seen.errors) / seen.seconds)
        [found] = send(server.port, Stream(path, seconds, connections=connections, fresh=fresh))
        times = found.times()
        return Figures(len(found.rows), percentile(times, 0.99), len(times) / seconds)

    return run


def flood(times: float, most: float = INF) -> Callable[[Running, float], Figures]:
    """Ask so many times the capacity of a view that waits, for ``most`` seconds; p99 is that of the 503s."""

    def run(server: Running, seconds: float) -> Figures:
        lasts = min(seconds, most)
        [found] = send(server.port, Stream("/wait/?ms=50", lasts, rate=times * WAIT_CAPACITY, fresh=True))
        p99 = percentile(found.times(503) or found.times(), 0.99)
        return Figures(len(found.rows), p99, found.count(200) / lasts)

    return run


WORKLOADS = {
    "hello": kept("/hello/"),
    "json": kept("/json/"),
    "close": kept("/hello/", fresh=True),
    "wait": kept("/wait/?ms=50", 32),
    "wait-close": kept("/wait/?ms=50", 32, fresh=True),
    "spin": kept("/spin/?ms=10", 32),
    "mixed": kept("/mixed/", 32),
    "flood": flood(10),
    "burst": flood(4, most=2.0),
}


@dataclass(frozen=True)
class Constant:
    """A constant, the value that takes its effect away, and where that must show."""

    module: str
    name: str
    neutral: float
    workloads: str

    @property
    def change(self) -> str:
        return f"{self.module}.{self.name}={self.neutral:g}"


CONSTANTS = [
    Constant("thread_pool", "STALL_CHECK_SECONDS", 0.05, "hello wait"),
    Constant("thread_pool", "CALM_CHECKS", INF, "hello json"),  # never less often
    Constant("thread_pool", "BUSY_EVENTS_PER_SECOND", INF, "hello json"),  # always on dispatch
    Constant("thread_pool", "MAX_STALLS_PER_SECOND", INF, "mixed wait"),  # on stall for the whole second
    Constant("thread_pool", "RETRY_SECONDS", INF, "json mixed"),  # no retry
    Constant("scheduler", "SHORT_SECONDS", 0.0, "hello json"),  # none is short
    Constant("scheduler", "MEAN_WEIGHT", 0.5, "flood mixed"),
    Constant("scheduler", "MAX_COUNTED_SECONDS", INF, "flood"),
    Constant("switch_interval", "SHORT_SECONDS", 0.005, "flood"),
    Constant("concurrency_limit", "MIN_CONCURRENCY", INF, "spin mixed"),  # no limit
    Constant("concurrency_limit", "STALL_CHECK_SECONDS", 0.05, "spin mixed"),
    Constant("concurrency_limit", "IDLE_CPU_SECONDS", INF, "mixed"),
    Constant("concurrency_limit", "STALL_SECONDS", INF, "spin mixed"),
    Constant("concurrency_limit", "DISABLED_SECONDS", 0.0, "mixed"),
    Constant("concurrency_limit", "FORGET_SECONDS", 1.0, "spin"),
    Constant("concurrency_limit", "BURST_SECONDS", INF, "spin"),
    Constant("concurrency_limit", "QUEUED_SECONDS", INF, "mixed"),
    Constant("concurrency_limit", "PROBE_MAX_SECONDS", INF, "mixed"),
    Constant("concurrency_limit", "PROBE_IO_BOUND_SECONDS", 5.0, "mixed"),
    Constant("concurrency_limit", "SAMPLE_DECAY", 0.0, "mixed spin"),
    Constant("admission", "INTERVAL", INF, "flood"),
    Constant("admission", "MAX_GROWTH", INF, "flood"),
    Constant("admission", "MAX_DELAY_TIMEOUTS", INF, "flood"),
    Constant("admission", "LENGTH_COUNTS_SHARE", 0.0, "flood burst"),
    Constant("admission", "TARGET_SHARE", 1.0, "flood"),
    Constant("accept_policy", "MAX_DEFERRAL_SECONDS", 0.0, "wait-close"),
    Constant("accept_policy", "MAX_BATCH", 1, "close flood"),
    Constant("accept_policy", "MIN_DIFFERENCE", 100, "wait"),  # no connection moves
    Constant("acceptor", "LISTENER_DEFER_SECONDS", 0.0, "close wait-close"),
    Constant("acceptor", "REQUEST_EXPECTED_SECONDS", 0.0, "wait-close"),
    Constant("acceptor", "REBALANCE_SECONDS", 0.0, "wait"),
    Constant("acceptor", "AT_A_TIME_REFUSING", 16, "flood"),
]


def server(change: str) -> Server:
    own = "--no-supervisor --bind 127.0.0.1:{port}"  # a supervisor would start a Python without the change
    command = f"{shlex.quote(__file__)} --serve '{change}' {own} --workers {WORKERS} --threads {THREADS}"
    return Server(change or "today", command, needs="gunicorn", static="", app="django_prodserve")


def once(change: str, workload: str, seconds: float, work: Path) -> tuple[float, float, float]:
    """Return the CPU seconds per request, the p99 and the goodput of one run."""
    with running(server(change), work) as process:
        WORKLOADS["hello"](process, 0.4)  # every thread started, every import done
        before = process.cpu()
        seen = WORKLOADS[workload](process, seconds)
        return (process.cpu() - before) / max(seen.requests, 1), seen.p99, seen.goodput


def measured(constant: Constant, workload: str, wanted: argparse.Namespace, work: Path) -> list[str]:
    """Return a row of the table."""
    rounds: list[list[float]] = []
    for number in range(wanted.rounds):
        order = ["", constant.change] if number % 2 else [constant.change, ""]
        try:
            found = {change: once(change, workload, wanted.seconds, work) for change in order}
        except (Failed, OSError, HTTPException, SubprocessError) as error:
            return [constant.name, workload, f"{type(error).__name__} {error}", "", "", ""]
        pairs = zip(found[constant.change], found[""], strict=True)
        rounds.append([mine / today if today else math.nan for mine, today in pairs])
    columns = [sorted(column) for column in zip(*rounds, strict=True)]
    cells = [f"{median(column):.2f} ({column[0]:.2f}-{column[-1]:.2f})" for column in columns]
    return [f"{constant.module}.{constant.name}", f"{constant.neutral:g}", workload, *cells]


def chosen(names: str) -> Iterator[Constant]:
    wanted = {word.strip() for word in names.split(",")} - {""}
    unknown = wanted - {name for constant in CONSTANTS for name in (constant.name, constant.module)}
    if unknown:
        sys.exit(f"no such constant or module: {', '.join(sorted(unknown))}")
    return (constant for constant in CONSTANTS if not wanted or wanted & {constant.name, constant.module})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--constants", default="", help="names, or modules; all if left out")
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    wanted = parser.parse_args()
    rows = [["constant", "neutral", "workload", "CPU", "p99", "goodput"]]
    with tempfile.TemporaryDirectory(prefix="prodserve-bench-") as directory:
        work = Path(directory)
        prepare(work, [server("")])
        for constant in chosen(wanted.constants):
            for workload in constant.workloads.split():
                rows.append(measured(constant, workload, wanted, work))
                print(*rows[-1], file=sys.stderr, flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
