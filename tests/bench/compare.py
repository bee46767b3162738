r"""Measure prodserve side by side with other ways to serve Django.

One server runs at a time. For each view and each round every server is started, warmed up, loaded and
stopped, in an order that rotates: what the machine does meanwhile hits all of them. So ratios to the base
of the same round are the figures; requests per second are those of this machine in this minute.

    python tests/bench/compare.py --servers prodserve,granian --views hello,io
    python tests/bench/compare.py --servers "prodserve --threads 4,gthread-2x4" --rounds 5

Async views, of servers that have them:

    python tests/bench/compare.py --views async-hello,async-json --base prodserve-async \
        --servers prodserve-async,uvicorn-async,gunicorn-asgi,granian-asgi

What the server itself costs, what 16 threads cost and what the access log costs:

    python tests/bench/compare.py --rounds 5 --views nodjango,hello,hello-close,json,db,template \
        --servers "prodserve --workers 2 --threads 4,gthread-2x4,granian"
    python tests/bench/compare.py --rounds 5 --views nodjango,hello \
        --servers "prodserve --workers 2 --threads 4,prodserve --workers 2 --threads 16"
    python tests/bench/compare.py --rounds 5 --views hello \
        --servers "prodserve --workers 2 --threads 4,prodserve --workers 2 --threads 4 --access-log -"
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from subprocess import SubprocessError

import load
from measure import Failed, prepare, running
from noise import QUIET, Watch, await_quiet
from report import Cell, summary, summary_table, view_table
from servers import ASGI_SERVERS, CPUS, SERVERS, Server, choose
from views import USUAL, VIEWS, View

BASE = "gthread-2x4"
RIVAL = "granian"  # whose CPU per request is one more base
WARM_UP = 0.4  # seconds of load that is not measured: every thread started, every import done
PACKAGES = [
    "django",
    "gunicorn",
    "whitenoise",
    "granian",
    "uvicorn",
    "waitress",
    "django-prodserver",
    "django-webserver",
]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--servers",
        default=",".join(SERVERS),
        help=f"a name may be followed by options; also {', '.join(ASGI_SERVERS)}",
    )
    parser.add_argument("--views", default=",".join(USUAL), help=f"any of {', '.join(VIEWS)}")
    parser.add_argument("--base", help=f"ratios are to this server ({BASE}, else the first)")
    parser.add_argument("--rounds", type=bounded(int, 1, 50), default=3)
    parser.add_argument("--seconds", type=bounded(float, 0.1, 60), default=3.0)
    parser.add_argument(
        "--connections", type=bounded(int, 1, 512), default=16, help="twice as many on io and mixed"
    )
    parser.add_argument(
        "--patience",
        type=bounded(float, 0, 7200),
        default=0.0,
        help="seconds that the whole run may spend on repeating what other processes disturbed",
    )
    parser.add_argument("--json", action="store_true", help="print every cell instead of tables")
    wanted = parser.parse_args()
    try:
        wanted.servers = choose(wanted.servers)
        wanted.views = [VIEWS[name.strip()] for name in wanted.views.split(",")]
    except KeyError as error:
        parser.error(f"no server or view {error}")
    names = [server.name for server in wanted.servers if not server.missing]
    if not names:
        parser.error("; ".join(f"{server.name}: {server.missing}" for server in wanted.servers))
    wanted.base = wanted.base or (BASE if BASE in names else names[0])
    if wanted.base not in names:
        parser.error(f"--base {wanted.base} is not among the servers that can be started here")
    return wanted


def bounded(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    """Return a parser for a number within limits: nothing here runs without end."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    return number


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rotated(servers: list[Server], round_: int) -> list[Server]:
    turn = round_ % len(servers)
    return servers[turn:] + servers[:turn]


def cells(wanted: argparse.Namespace, servers: list[Server], work: Path) -> Iterator[Cell]:
    """Measure everything, one cell after the other."""
    for view in wanted.views:
        for round_ in range(wanted.rounds):
            for server in rotated(servers, round_):
                cell = measure_quietly(server, view, round_, wanted, work)
                note(
                    f"{view.name}, round {round_ + 1}, {server.name}: "
                    f"{cell.problem or f'{cell.rate:.0f}/s, others {cell.noise:.0%}'}"
                )
                yield cell


def measure_quietly(server: Server, view: View, round_: int, wanted: argparse.Namespace, work: Path) -> Cell:
    """Measure; once more as long as others disturbed it and there is patience left."""
    best: Cell | None = None
    while True:
        began = time.monotonic()
        try:
            cell = measure(server, view, round_, wanted, work)
        except (Failed, OSError, HTTPException, SubprocessError) as error:
            return Cell(server.name, view.name, round_, problem=str(error))
        best = cell if best is None or cell.noise < best.noise else best
        if best.noise <= QUIET or wanted.patience <= 0:
            return best
        await_quiet(wanted.patience)
        wanted.patience -= time.monotonic() - began


def measure(server: Server, view: View, round_: int, wanted: argparse.Namespace, work: Path) -> Cell:
    connections = view.connections(wanted.connections)
    with running(server, work) as process:
        path = process.get(view.path).decode() if view.static else view.path
        load.threads(view, path, process.port, connections, WARM_UP)
        watch, before = Watch(), process.cpu()
        seen = load.put(view, path, process.port, connections, wanted.seconds)
        cpu = process.cpu() - before
        noise = watch.share(cpu)
        return Cell(
            server.name,
            view.name,
            round_,
            start=process.start,
            rate=seen.requests / seen.seconds,
            p50=seen.p50,
            p99=seen.p99,
            max=seen.max,
            cpu=1000 * cpu / max(seen.requests, 1),
            pss=process.pss(),
            noise=noise,
            problem=f"{seen.errors} of {seen.requests} requests failed" if seen.errors else "",
        )


def stop_once(number: int, frame: object) -> None:
    """Unwind, which stops what was started; whoever is impatient does not disturb that."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, signal.SIG_IGN)
    raise KeyboardInterrupt


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> int:
    wanted = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_once)
    here = [server for server in wanted.servers if not server.missing]
    skipped = {server.name: server.missing for server in wanted.servers if server.missing}
    for name, why in skipped.items():
        note(f"{name} skipped: {why}")
    seen: list[Cell] = []
    code = 0
    with tempfile.TemporaryDirectory(prefix="prodserve-bench-") as work:
        try:
            prepare(Path(work), here)
            seen.extend(cells(wanted, here, Path(work)))
        except KeyboardInterrupt:
            code = 130
            note("stopped; what was measured follows")
    facts = {
        "cpus": CPUS,
        "client": load.client(wanted.seconds),
        "connections": wanted.connections,
        "rounds": wanted.rounds,
        "seconds": wanted.seconds,
        "base": wanted.base,
    }
    if wanted.json:
        raw = {**facts, "versions": versions(), "skipped": skipped, "cells": [asdict(cell) for cell in seen]}
        print(json.dumps(raw, indent=1))
    else:
        print(listed(facts), listed(versions()), sep="\n")
        show(wanted, seen)
    return code or int(any(cell.problem for cell in seen))


def listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def show(wanted: argparse.Namespace, seen: list[Cell]) -> None:
    for view in wanted.views:
        here = [cell for cell in seen if cell.view == view.name]
        if here:
            print(f"\n## {view.name}, {view.connections(wanted.connections)} connections\n")
            print(view_table(here, wanted.base))
    if seen:
        noises = [cell.noise for cell in seen]
        print(f"\nOthers used {median(noises):.0%} of the CPUs, at most {max(noises):.0%} of a cell's time.")
        print("\n## Summary")
        summary(seen, wanted.base, print)
        for other in sorted({cell.server for cell in seen} & {BASE, RIVAL} - {wanted.base}):
            print(f"\nCPU per request, {other} = 1\n")
            print(summary_table(seen, other, "cpu"))


if __name__ == "__main__":
    sys.exit(main())
