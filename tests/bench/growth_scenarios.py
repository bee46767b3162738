"""What a server does with requests that only wait: crowds of them, and one slow route beside fast ones."""

from __future__ import annotations

from collections.abc import Callable

from measure import Running
from scenarios import Figures, Scale, Scenario
from traffic import Stream, percentile, send


def crowd(milliseconds: int, connections: int, full: float) -> Callable[[Running, Scale], Figures]:
    """Ask for a view that waits, all at once, each again as soon as it was answered."""

    def run(server: Running, scale: Scale) -> Figures:
        seconds, possible = scale.seconds(full), connections * 1000 / milliseconds
        stream = Stream(f"/wait/?ms={milliseconds}", seconds, connections=connections, patience=60)
        before = server.pss()
        [seen] = send(server.port, stream)
        served = [due + took for due, took, status in seen.rows if status == 200]
        steady = sum(5 <= when < seconds for when in served) / max(seconds - 5, 1)
        return {
            "served/s from 5 s on": steady,
            "of all that is possible": steady / possible,
            "in each second": " ".join(
                str(sum(number <= when < number + 1 for when in served)) for number in range(6)
            ),
            "served": len(served),
            "503": seen.count(503),
            "failures": seen.failures,
            "p99 ms": percentile(seen.times(), 0.99),
            "MiB more": server.pss() - before,
        }

    return run


def lanes(server: Running, scale: Scale) -> Figures:
    """95 % of the threads are asked for by a 10 s view; a 5 ms view beside it, 30 a second."""
    seconds = scale.seconds(22)
    slow = Stream("/wait/?ms=10000", seconds, connections=30, patience=40)
    fast = Stream("/wait/?ms=5", seconds - 2, rate=30, start=1, fresh=True)
    slowed, seen = send(server.port, slow, fast)
    times = seen.times()
    return {
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "max ms": percentile(times, 1),
        "503": seen.count(503),
        "failures": seen.failures,
        "10 s views served": slowed.count(200),
    }


PRODSERVE = "prodserve --workers 2"
GTHREAD = ("gthread-2x4 --threads 16", "gthread-2x4 --threads 64")
ROWS = (PRODSERVE, f"{PRODSERVE} --threads 16", *GTHREAD, "granian --blocking-threads 256", "uvicorn")
ALIKE = (f"{PRODSERVE} --threads 16", GTHREAD[0], "granian --blocking-threads 16")
GROWTH = {
    "waits-1s": Scenario(crowd(1000, 200, 12), "200 clients of a view that waits 1 s.", rows=ROWS),
    "waits-10s": Scenario(crowd(10_000, 300, 15), "300 clients of a view that waits 10 s.", rows=ROWS),
    "lanes": Scenario(lanes, rows=ALIKE),
}
