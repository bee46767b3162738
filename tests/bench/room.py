"""Whether the room that a server reports is what it reaches: six workloads, each on a real server.

    python tests/bench/room.py [--share 0.3] [--seconds 30] [workload ...]

Each server first gets a share of what it should reach, as steady traffic, and reports its room. Then clients
ask as fast as they can. Prints both rates, and exits 1 where they differ by more than a fifth. The machine
must have nothing else to do: "beside" are the CPUs that neither the server nor the client used.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from measure import SITE, Running, environment, prepare, running
from servers import Server
from traffic import Seen, Stream, send

TOLERANCE = 0.2
IDLE_SECONDS = 4.0
"""Before the first request: the server sees what other processes use without it."""
RAMP_SECONDS, MAXIMUM_SECONDS = 4.0, 6.0
"""At the maximum, threads grow first; then it is measured."""


@dataclass(frozen=True)
class Workload:
    """Requests of one kind, or of two, each as often as the other."""

    paths: tuple[str, ...]
    expected: float
    """Requests a second that two CPUs may reach: the first traffic is a share of them."""
    clients: int
    """That ask as fast as they can: enough to fill the server, too few for it to refuse requests."""
    flags: str = ""


WORKLOADS = {
    "computes 5 ms": Workload(("/spin/?ms=5",), 250, 32),
    "short": Workload(("/spin/?ms=1",), 900, 32),
    "waits 50 ms": Workload(("/wait/?ms=50",), 1500, 200),
    "waits 1 s": Workload(("/wait/?ms=1000",), 480, 700),
    "database": Workload(("/db/",), 500, 32),
    "mix": Workload(("/spin/?ms=5", "/wait/?ms=50"), 450, 40),
    "16 fixed threads": Workload(("/wait/?ms=50",), 600, 64, "--threads 16"),
    "one worker": Workload(("/spin/?ms=5",), 150, 16, "--workers 1"),
}
USUAL = ["computes 5 ms", "short", "waits 50 ms", "waits 1 s", "database", "mix"]


def drive(port: int, workload: Workload, seconds: float, rate: float = 0.0) -> list[Seen]:
    """Send at this rate, or as fast as responses come: the paths take turns, so the mix stays the same."""
    path, *others = workload.paths
    connections = 0 if rate else workload.clients
    return send(port, Stream(path, seconds, rate=rate, connections=connections, others=others))


def reached(seen: list[Seen], start: float, end: float) -> float:
    """Return the responses a second that ended in this time."""
    ended = [due + took for one in seen for due, took, status in one.rows if status == 200]
    return sum(start <= when < end for when in ended) / (end - start)


def reported(environ: dict[str, str]) -> dict[str, Any]:
    """Return the room as ``status`` reports it."""
    command = [sys.executable, "-m", "django_prodserve", "status", "--json"]
    done = subprocess.run(command, cwd=SITE, env=environ, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)["room"]
    return found


class Beside:
    """How many CPUs the rest of the machine uses from now on."""

    def __init__(self, found: Running) -> None:
        self.found, self.start, self.used = found, time.monotonic(), self.seconds(found)

    @staticmethod
    def seconds(found: Running) -> float:
        whole, clients = psutil.cpu_times(), os.times()
        busy = sum(whole[:8]) - whole.idle - whole.iowait
        return busy - found.cpu() - sum(clients[:4])

    def cpus(self) -> float:
        return (self.seconds(self.found) - self.used) / (time.monotonic() - self.start)


@dataclass(frozen=True)
class Result:
    """The first rate, the room that was reported then, the maximum rate, and what else ran at both times."""

    first: float
    room: dict[str, Any]
    most: float
    beside: tuple[float, float]


def measure(workload: Workload, share: float, seconds: float) -> Result:
    """Measure one workload."""
    command = f"manage.py prodserve --bind 127.0.0.1:{{port}} {workload.flags}"
    server = Server("prodserve", command, needs="gunicorn", static="", app="django_prodserve")
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        prepare(work, [])
        with running(server, work) as found:
            time.sleep(IDLE_SECONDS)
            beside = Beside(found)
            seen = drive(found.port, workload, seconds, share * workload.expected)
            first = reached(seen, seconds / 2, seconds)
            room = reported(environment(work, server, found.port))
            first_beside, beside = beside.cpus(), Beside(found)
            end = RAMP_SECONDS + MAXIMUM_SECONDS
            most = reached(drive(found.port, workload, end), RAMP_SECONDS, end)
            besides = first_beside, beside.cpus()
    return Result(first, room, most, besides)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=0.3, help="of the expected maximum")
    parser.add_argument("--seconds", type=float, default=22.0, help="of the first traffic")
    parser.add_argument("workload", nargs="*", default=USUAL)
    wanted = parser.parse_args()
    wrong = 0
    print(f"{'workload':<18}{'first/s':>9}{'room/s':>9}{'reached/s':>11}{'ratio':>7}{'beside':>12}  short")
    for name in wanted.workload:
        result = measure(WORKLOADS[name], wanted.share, wanted.seconds)
        room, most = result.room, result.most
        ratio = room["room"] / most if room["certain"] and most else None
        is_wrong = ratio is not None and abs(ratio - 1) > TOLERANCE
        wrong += is_wrong
        predicted = f"{room['room']:.0f}" if room["certain"] else "-"
        ratios = f"{ratio:.2f}" if ratio is not None else "-"
        said = room["short"] or room["reason"]
        limits = ", ".join(f"{resource} {rate:.0f}" for resource, rate in room["limits"].items())
        rates = f"{result.first:>9.0f}{predicted:>9}{most:>11.0f}{ratios:>7}"
        others = " ".join(f"{cpus:.2f}" for cpus in result.beside)
        print(f"{name:<18}{rates}{others:>12}  {said} ({limits})", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
