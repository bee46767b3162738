"""How long requests take while the load shifts from computing to waiting and back, against fixed threads.

    python -m tests.bench.shift                     # defaults, then --threads 4, 16, 32, 64: two minutes
    python -m tests.bench.shift --grid 16,64 --seconds 10 --rounds 3

The client sends at a fixed rate, whether or not answers come. A time counts from the moment at which its
request should have been sent. The exit code is 1 if the 99th percentile of the defaults is above 1.2 times
the best of the fixed numbers, in the same run.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.serving import copy_site, environment, serving

from .advise import VIEWS

LIMIT = 1.2
"""Highest ratio of the 99th percentile to the best of the fixed numbers."""
PHASES = ("compute=2", "wait=100", "compute=2")
DRAIN_SECONDS = 10.0
"""How long the client waits for the last answers."""


@dataclass
class Times:
    """Seconds of the requests of one phase that were answered with 200, and the number of the others."""

    good: list[float] = field(default_factory=list)
    bad: int = 0

    def p(self, share: float) -> float:
        """Return a percentile in ms. A request that failed took for ever."""
        times = sorted(self.good) + [float("inf")] * self.bad
        return 1000 * times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


class OpenLoop:
    """Sends requests at fixed times over as many connections as they need, in one thread."""

    def __init__(self, port: int, connections: int) -> None:
        self.port, self.selector = port, selectors.DefaultSelector()
        self.idle: deque[socket.socket] = deque()
        self.sent: dict[socket.socket, tuple[float, Times]] = {}
        """When the request of a busy connection was due, and where its time goes."""
        for _ in range(connections):
            self.idle.append(self._connect())

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        self.selector.register(made, selectors.EVENT_READ)
        return made

    def run(self, path: str, rate: float, seconds: float, times: Times) -> None:
        """Send at this rate; return at the end of the phase, whether or not all answers have come."""
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            self.receive_until(due)
            connection = self.idle.popleft() if self.idle else self._connect()
            self.sent[connection] = (due, times)
            connection.send(request)
        self.receive_until(began + seconds)

    def receive_until(self, when: float) -> None:
        """Receive answers until this time, or once if it is over."""
        while True:
            left = when - time.monotonic()
            for key, _ in self.selector.select(max(0.0, left)):
                assert isinstance(key.fileobj, socket.socket)
                self._receive(key.fileobj)
            if left <= 0:
                return

    def _receive(self, connection: socket.socket) -> None:
        """Every answer of these views fits into one segment."""
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
        due, times = self.sent.pop(connection, (0.0, Times()))
        if answer.startswith(b"HTTP/1.1 200 "):
            times.good.append(time.monotonic() - due)
        else:
            times.bad += 1
        if not answer or b"onnection: close" in answer:
            self.selector.unregister(connection)
            connection.close()
        else:
            self.idle.append(connection)

    def close(self) -> None:
        """Wait for the last answers, and close."""
        end = time.monotonic() + DRAIN_SECONDS
        while self.sent and time.monotonic() < end:
            self.receive_until(time.monotonic() + 0.05)
        for _, times in self.sent.values():
            times.bad += 1
        for key in [*self.selector.get_map().values()]:
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self.selector.close()


def measure(directory: Path, flags: Sequence[str], rates: Sequence[float], seconds: float) -> list[Times]:
    """Return the times of each phase on a new server with these options."""
    site = copy_site(directory, VIEWS)
    with serving("--workers", "2", *flags, env=environment(directory), cwd=site) as server:
        client, phases = OpenLoop(server.port, 64), [Times() for _ in PHASES]
        client.run("/spend/?compute=2", 50, 1.0, Times())  # the first requests are slower
        for query, rate, times in zip(PHASES, rates, phases, strict=True):
            client.run(f"/spend/?{query}", rate, seconds, times)
        client.close()
    return phases


def working(times: Any) -> float:
    """Return the seconds in which the CPUs were not idle."""
    return sum(times) - float(times.idle) - float(getattr(times, "iowait", 0.0))


def together(phases: Sequence[Times]) -> Times:
    return Times([each for phase in phases for each in phase.good], sum(phase.bad for phase in phases))


def report(name: str, phases: Sequence[Times], busy: float) -> None:
    """Print a line; ``busy``: how many CPUs all processes used. Where others compute, times say little."""
    shown = [*phases, together(phases)]
    cells = "".join(f"{each.p(0.5):>8.1f}{each.p(0.99):>9.1f}{each.bad:>5}" for each in shown)
    print(f"{name:<12}{cells}{busy:>8.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=400.0)
    parser.add_argument("--cpu-rate", type=float, default=0.0, help="of the phases that compute")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--grid", default="4,16,32,64")
    parser.add_argument("--rounds", type=int, default=1)
    wanted = parser.parse_args()
    computing = wanted.cpu_rate or wanted.rate
    rates = (computing, wanted.rate, computing)
    names = ["", *filter(None, wanted.grid.split(","))]
    found: dict[str, list[list[Times]]] = {name: [] for name in names}
    print(f"{'p50, p99 (ms), failed':<22}" + "".join(f"{each:>20}" for each in (*PHASES, "all")) + "    CPUs")
    for _ in range(wanted.rounds):
        for name in names:
            with tempfile.TemporaryDirectory() as directory:
                place = Path(directory) / "run"
                place.mkdir()
                flags, before, began = (
                    ("--threads", name) if name else (),
                    psutil.cpu_times(),
                    time.monotonic(),
                )
                found[name].append(measure(place, flags, rates, wanted.seconds))
                busy = (working(psutil.cpu_times()) - working(before)) / (time.monotonic() - began)
            report(f"threads {name}" if name else "defaults", found[name][-1], busy)
    p99 = {
        name: sorted(together(phases).p(0.99) for phases in rounds)[len(rounds) // 2]
        for name, rounds in found.items()
    }
    if len(p99) == 1:
        return 0
    best = min((name for name in names if name), key=lambda name: p99[name])
    print(f"defaults {p99['']:.1f} ms, best fixed number {best}: {p99[best]:.1f} ms", end="")
    print(f", ratio {p99[''] / p99[best]:.2f}, at most {LIMIT}")
    return int(p99[""] > LIMIT * p99[best])


if __name__ == "__main__":
    sys.exit(main())
