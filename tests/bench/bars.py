"""Measure what async views, event streams and websockets must cost at most, and say which bar is met.

    python tests/bench/bars.py                       # all of it, about 45 minutes
    python tests/bench/bars.py --only async-hello,events --rounds 1 --scale 0.1
    BENCH_DATABASE=postgresql://bench@127.0.0.1/bench python tests/bench/bars.py --only db-connections

One server runs at a time, with 2 workers, in an order that rotates with each round. A figure that is compared
with another server's is compared within its round; what is shown is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from math import nan
from pathlib import Path
from statistics import median
from subprocess import SubprocessError

from async_scenarios import ASYNC_SCENARIOS
from compare import bounded, measure, note, rotated
from measure import Failed, prepare, running
from noise import Watch
from report import table
from scenarios import Figures, Scale
from servers import Server, choose
from views import VIEWS

WITH, WITHOUT = "prodserve-async", "prodserve-sync"
UVICORN = "uvicorn-async"
PEERS = (UVICORN, "gunicorn-asgi", "granian-asgi")
SYNC_VIEWS = "hello", "json", "template", "db", "upload"
SECONDS, CONNECTIONS = 3.0, 16

Round = dict[str, dict[str, Figures]]
"""The figures of one round, by probe and server."""
Value = Callable[[Round], float]


@dataclass(frozen=True)
class Bar:
    """One promise: a figure, and its limit."""

    says: str
    value: Value
    limit: float
    is_least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_least else value <= self.limit


def get(found: Round, probe: str, server: str, figure: str) -> float:
    """Return a figure; no number if it was not measured."""
    figures = found.get(probe, {}).get(server, {})
    value = figures.get(figure, nan)
    return nan if isinstance(value, str) or "problem" in figures else value


def ours(probe: str, figure: str) -> Value:
    """Return a function for our own figure."""
    return lambda found: get(found, probe, WITH, figure)


def by(probe: str, figure: str, server: str) -> Value:
    """Return a function for our figure divided by another server's."""
    return lambda found: get(found, probe, WITH, figure) / get(found, probe, server, figure)


def by_best(probe: str, figure: str, best: Callable[[Sequence[float]], float] = min) -> Value:
    """Return a function for our figure divided by that of the best other server."""

    def value(found: Round) -> float:
        others = [get(found, probe, server, figure) for server in PEERS]
        known = [other for other in others if other == other]  # not those without a number
        return get(found, probe, WITH, figure) / best(known) if known else nan

    return value


def by_own_hello(found: Round) -> float:
    return get(found, "group-send", WITH, "cpu") / get(found, "hello", WITH, "cpu")


BARS = [
    *(
        Bar(f"sync {view}: CPU with async views and Channels / without", by(view, "cpu", WITHOUT), 1.03)
        for view in SYNC_VIEWS
    ),
    Bar("sync hello: CPU / best", by_best("hello", "cpu"), 0.13),
    Bar("async hello: CPU / best", by_best("async-hello", "cpu"), 0.20),
    Bar("async json: CPU / best", by_best("async-json", "cpu"), 0.20),
    Bar("async sleep, 200 clients: requests / best", by_best("async-sleep", "rate", max), 4, is_least=True),
    Bar("async sleep, 200 clients: p50 ms", ours("async-sleep", "p50"), 80),
    Bar("async ORM: CPU / best", by_best("async-db", "cpu"), 0.5),
    Bar("async ORM: PostgreSQL connections, at most", ours("db-connections", "most"), 2 * 2 * 16),
    Bar("event streams: CPU / best", by_best("events", "CPU ms each"), 0.6),
    Bar("event streams: first event p50 ms", ours("events", "first event p50 ms"), 20),
    Bar("event streams: p50 ms between events", ours("events", "between events p50 ms"), 30),
    Bar("500 open streams: more threads", ours("open-streams", "more threads"), 2),
    Bar("500 open streams: KiB each", ours("open-streams", "KiB each"), 40),
    Bar("websocket echo of 32 B: CPU / uvicorn", by("echo-32", "CPU ms each", UVICORN), 1.2),
    Bar("websocket echo of 4 KiB: CPU / uvicorn", by("echo-4k", "CPU ms each", UVICORN), 1.2),
    Bar("beside a message of 16 MiB: longest echo, ms", ours("large-message", "beside max ms"), 100),
    Bar("1,000 idle websockets: KiB each", ours("idle-sockets", "KiB each"), 50),
    Bar("1,000 idle websockets: share of a core", ours("idle-sockets", "CPU share"), 0.01),
    Bar("32 websockets at once: most in one of 2 workers", ours("idle-sockets", "most of 32"), 20),
    Bar("group_send in a sync view: CPU / own sync hello", by_own_hello, 4),
    Bar(
        "sync consumer of 50 ms, 20 websockets: messages/s",
        ours("sync-consumers", "per s"),
        300,
        is_least=True,
    ),
    Bar("loop blocked for 1.5 s: p99 ms of sync views", ours("blocked", "p99 ms"), 50),
    Bar("beside 8 clients that compute: echo p50 / uvicorn", by("beside-cpu", "p50 ms", UVICORN), 0.6),
]
PROBES: dict[str, tuple[str, ...]] = {
    "hello": (WITH, WITHOUT, *PEERS),
    **dict.fromkeys(SYNC_VIEWS[1:], (WITH, WITHOUT)),
    **dict.fromkeys(("async-hello", "async-json", "async-sleep", "async-db"), (WITH, *PEERS)),
    "group-send": (WITH,),
    **dict.fromkeys(ASYNC_SCENARIOS, (WITH, *PEERS)),
}
"""Views and scenarios, and the servers whose figures count."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PROBES), help="some of these, separated by commas")
    parser.add_argument("--servers", default=",".join((WITH, WITHOUT, *PEERS)), help="leave some out")
    parser.add_argument("--rounds", type=bounded(int, 1, 50), default=3)
    parser.add_argument(
        "--scale", type=bounded(float, 0.01, 1), default=1.0, help="less is for trying it out"
    )
    parser.add_argument("--json", action="store_true", help="print every figure instead of tables")
    wanted = parser.parse_args()
    wanted.only = [name.strip() for name in wanted.only.split(",")]
    unknown = {*wanted.only} - {*PROBES}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    wanted.connections, wanted.seconds = CONNECTIONS, max(1.0, round(SECONDS * wanted.scale))
    wanted.servers = {server.name: server for server in choose(wanted.servers)}
    return wanted


def figures_of(probe: str, server: Server, number: int, wanted: argparse.Namespace, work: Path) -> Figures:
    """Measure one probe with one server."""
    if server.missing:
        return {"problem": server.missing}
    try:
        if probe in VIEWS:
            cell = measure(server, VIEWS[probe], number, wanted, work)
            if cell.problem:
                return {"problem": cell.problem}
            return {
                "cpu": cell.cpu,
                "rate": cell.rate,
                "p50": cell.p50,
                "p99": cell.p99,
                "others": cell.noise,
            }
        with running(server, work) as process:
            watch, before = Watch(), process.cpu()
            figures = ASYNC_SCENARIOS[probe](process, Scale(wanted.scale))
            if figures.get("failures"):
                figures["problem"] = f"{figures['failures']} failed"
            return {**figures, "others": watch.share(process.cpu() - before)}
    except (Failed, OSError, HTTPException, SubprocessError, ValueError) as error:
        return {"problem": f"{type(error).__name__} {error}"}


def rounds(wanted: argparse.Namespace, work: Path) -> Iterator[Round]:
    for number in range(wanted.rounds):
        found: Round = {}
        for probe in wanted.only:
            servers = [wanted.servers[name] for name in PROBES[probe] if name in wanted.servers]
            for server in rotated(servers, number) if servers else []:
                figures = figures_of(probe, server, number, wanted, work)
                found.setdefault(probe, {})[server.name] = figures
                note(f"{probe}, round {number + 1}, {server.name}: {figures.get('problem', 'measured')}")
        yield found


def judged(found: Sequence[Round]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each bar that was measured."""
    for bar in BARS:
        values = [value for each in found if (value := bar.value(each)) == value]
        if values:
            middle = median(values)
            span = f"{min(values):.3g}-{max(values):.3g}" if len(values) > 1 else ""
            limit = f"{'>=' if bar.is_least else '<='} {bar.limit:g}"
            yield bar.says, f"{middle:.3g} {span}".strip(), limit, "yes" if bar.is_met(middle) else "NO"


def show_figures(found: Sequence[Round]) -> None:
    """Print what was measured: figures down, servers across."""
    for probe in dict.fromkeys(probe for each in found for probe in each):
        servers = [*dict.fromkeys(server for each in found for server in each.get(probe, {}))]
        seen = {
            server: [each[probe][server] for each in found if server in each.get(probe, {})]
            for server in servers
        }
        names = dict.fromkeys(name for runs in seen.values() for figures in runs for name in figures)
        rows = [["", *servers]]
        for name in names:
            rows.append(
                [name, *(shown([run[name] for run in seen[server] if name in run]) for server in servers)]
            )
        print(f"\n## {probe}\n\n{table(rows)}")


def shown(values: Sequence[float | str]) -> str:
    numbers = [value for value in values if not isinstance(value, str)]
    if values and len(numbers) == len(values):
        return f"{median(numbers):.3g}"
    return " ".join(map(str, values))[:60] or "-"


def main() -> int:
    wanted = arguments()
    with tempfile.TemporaryDirectory(prefix="prodserve-bench-") as directory:
        work = Path(directory)
        prepare(work, [server for server in wanted.servers.values() if not server.missing])
        found = [*rounds(wanted, work)]
    if wanted.json:
        print(json.dumps(found, indent=1))
    else:
        show_figures(found)
        if met := [*judged(found)]:
            print(f"\n## Bars\n\n{table([['', 'median, range', 'bar', 'met'], *met])}")
    problems = [figures for each in found for servers in each.values() for figures in servers.values()]
    return int(any("problem" in figures for figures in problems))


if __name__ == "__main__":
    sys.exit(main())
