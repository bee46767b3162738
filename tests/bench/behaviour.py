"""Put servers side by side through what a mean hides: unfair accepting, slow clients, overload, deaths.

    python tests/bench/behaviour.py --servers prodserve,gthread,granian --scenarios balance,slowmix
    python tests/bench/behaviour.py --scenarios soak --servers prodserve  # BENCH_SOAK=10000000 requests

Every server runs 2 workers, with the threads that a scenario wants; some scenarios have rows of their own.
Figures are medians of the rounds; the costs of a request are what compare.py measures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from statistics import median
from subprocess import SubprocessError

from growth_scenarios import GROWTH
from measure import Failed, prepare, running
from noise import Watch
from report import table
from scenarios import SCENARIOS as OTHERS
from scenarios import Figures, Scale, Scenario
from servers import Server, choose

SCENARIOS = OTHERS | GROWTH
FAMILIES = {
    "prodserve": "prodserve --workers 2 --threads {threads}",
    "gthread": "gthread-2x4 --threads {threads}",
    "granian": "granian --blocking-threads {threads}",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", default=",".join(FAMILIES), help="a name may be followed by options")
    parser.add_argument(
        "--scenarios", "--scenario", default=",".join(name for name in OTHERS if name != "soak")
    )
    parser.add_argument("--rounds", type=int, choices=range(1, 21), default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="less than 1 is for trying it out")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    wanted.servers = [name.strip() for name in wanted.servers.split(",")]
    wanted.scenarios = [name.strip() for name in wanted.scenarios.split(",")]
    unknown = {name.partition(" ")[0] for name in wanted.servers} - set(FAMILIES)
    unknown |= set(wanted.scenarios) - set(SCENARIOS)
    if unknown or not 0 < wanted.scale <= 1:
        parser.error(
            f"unknown: {', '.join(sorted(unknown))}" if unknown else "--scale is above 0 and at most 1"
        )
    return wanted


def server_for(name: str, scenario: Scenario) -> Server:
    """Return how this server is started for a scenario."""
    if scenario.rows:
        [server] = choose(name)
        return server
    family, _, options = name.partition(" ")
    more = dict(scenario.options).get(family, "")
    [server] = choose(f"{FAMILIES[family].format(threads=scenario.threads)} {more} {options}".strip())
    return server


def rounds(name: str, wanted: argparse.Namespace, work: Path) -> Iterator[tuple[str, Figures]]:
    scenario = SCENARIOS[name]
    for number in range(wanted.rounds):
        for server in scenario.rows or wanted.servers:
            print(f"{name}, round {number + 1}, {server}", file=sys.stderr, flush=True)
            yield server, once(server_for(server, scenario), scenario, wanted.scale, work)


def once(server: Server, scenario: Scenario, scale: float, work: Path) -> Figures:
    if server.missing:
        return {"problem": server.missing}
    try:
        with running(server, work) as process:
            watch, before = Watch(), process.cpu()
            figures = scenario.run(process, Scale(scale))
            return {**figures, "others": watch.share(process.cpu() - before)}
    except (Failed, OSError, HTTPException, SubprocessError) as error:
        return {"problem": f"{type(error).__name__} {error}"}


def middle(seen: list[Figures]) -> Figures:
    """Return the median of each figure; words are shown as they came."""
    names = dict.fromkeys(name for figures_of_run in seen for name in figures_of_run)
    found: Figures = {}
    for name in names:
        values = [figures_of_run[name] for figures_of_run in seen if name in figures_of_run]
        numbers = [value for value in values if not isinstance(value, str)]
        found[name] = median(numbers) if len(numbers) == len(values) else " ".join(map(str, values))
    return found


def shown(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def show(name: str, by_server: dict[str, Figures]) -> None:
    """Print a scenario: figures down, servers across."""
    print(f"\n## {name}: {SCENARIOS[name]}\n")
    figures = dict.fromkeys(figure for of_server in by_server.values() for figure in of_server)
    rows = [["", *by_server]]
    for figure in figures:
        rows.append([figure, *(shown(of_server.get(figure)) for of_server in by_server.values())])
    print(table(rows), flush=True)


def main() -> int:
    wanted = arguments()
    everything: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="prodserve-bench-") as directory:
        work = Path(directory)
        prepare(work, [server_for(name, SCENARIOS["slowmix"]) for name in wanted.servers])
        for name in wanted.scenarios:
            seen: dict[str, list[Figures]] = {}
            for server, figures in rounds(name, wanted, work):
                seen.setdefault(server, []).append(figures)
            everything[name] = {server: middle(runs) for server, runs in seen.items()}
            if not wanted.json:
                show(name, everything[name])
    if wanted.json:
        print(json.dumps(everything, indent=1))
    return int(
        any("problem" in of_server for by_server in everything.values() for of_server in by_server.values())
    )


if __name__ == "__main__":
    sys.exit(main())
