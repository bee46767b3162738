"""What a server does under loads that a mean hides: one function each, figures by name."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import load
import psutil
from measure import ROOT, Running
from traffic import FAILED, UNANSWERED, Seen, Stream, percentile, send
from views import VIEWS

Figures = dict[str, float | str]
WORKERS = 2
CROWDS = 300  # slow clients of each kind
IDLE = 10_000


@dataclass(frozen=True)
class Scale:
    """How much of everything: 1 judges, less only shows that it works."""

    share: float = 1.0

    def seconds(self, full: float) -> float:
        return max(0.4, full * self.share)

    def count(self, full: int, least: int = 4) -> int:
        return max(least, int(full * self.share))


@dataclass(frozen=True)
class Scenario:
    """What is done to a server, and how that must be started."""

    run: Callable[[Running, Scale], Figures]
    says: str = ""
    threads: int = 4
    options: tuple[tuple[str, str], ...] = ()  # more of them, by the server's family
    rows: tuple[str, ...] = ()  # servers of its own, as servers.choose reads them, instead of the families

    def __str__(self) -> str:
        return self.says or (self.run.__doc__ or "").split("\n")[0]


def spread(counts: dict[str, int]) -> str:
    return "/".join(str(count) for count in sorted(counts.values(), reverse=True))


def balance(server: Running, scale: Scale) -> Figures:
    """32 connections opened at once on 16 threads that wait 50 ms: 320 req/s are all there can be."""
    seconds = scale.seconds(4)
    [seen] = send(server.port, Stream("/wait/?ms=50", seconds, connections=32))
    done = sum(due + took <= seconds for due, took, status in seen.rows if status == 200)
    times = seen.times()
    return {
        "req/s": done / seconds,
        "of 320": done / seconds / 320,
        "connections": spread(seen.opened),
        "p99 ms": percentile(times, 0.99),
        "max ms": percentile(times, 1),
        "failures": seen.failures,
    }


def slowmix(server: Running, scale: Scale) -> Figures:
    """5 % requests of 2 s beside fast ones: open loop, 30 req/s, new connections."""
    seconds = scale.seconds(20)
    fast = Stream("/hello/", seconds, rate=28.5, fresh=True)
    slow = Stream("/wait/?ms=2000", seconds, rate=1.5, fresh=True, start=0.01)
    seen, slowed = send(server.port, fast, slow)
    times = seen.times()
    return {
        "p50 ms": percentile(times, 0.5),
        "p95 ms": percentile(times, 0.95),
        "p99 ms": percentile(times, 0.99),
        "max ms": percentile(times, 1),
        "failures": seen.failures + slowed.failures,
    }


def cpu_tail(server: Running, scale: Scale) -> Figures:
    """32 kept connections to a view that computes for 10 ms."""
    seconds = scale.seconds(8)
    [seen] = send(server.port, Stream("/spin/?ms=10", seconds, connections=32))
    times = seen.times()
    return {
        "req/s": len(times) / seconds,
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "max ms": percentile(times, 1),
        "connections": spread(seen.opened),
        "failures": seen.failures,
    }


def capacity(server: Running, path: str, seconds: float) -> float:
    """Return how many requests a second the server does when asked without haste."""
    [seen] = send(server.port, Stream(path, seconds, connections=2 * WORKERS * 4))
    return max(seen.count(200) / seconds, 1.0)


def overload(path: str) -> Callable[[Running, Scale], Figures]:
    """Ask ten times as much as the server can do, for 15 s, then a third of it again."""

    def run(server: Running, scale: Scale) -> Figures:
        can = capacity(server, path, scale.seconds(3))
        calm, storm, after = scale.seconds(3), scale.seconds(15), scale.seconds(8)
        before, seen, then = send(
            server.port,
            Stream(path, calm, rate=can / 3),
            Stream(path, storm, rate=10 * can, start=calm),
            Stream(path, after, rate=can / 3, start=calm + storm),
        )
        served = sum(due + took <= calm + storm for due, took, status in seen.rows if status == 200)
        refusals = seen.times(503)
        usual = percentile(before.times(), 0.95)
        return {
            "capacity/s": can,
            "goodput": served / storm / can,
            "served p95 ms": percentile(seen.times(), 0.95),
            "refused": len(refusals) / len(seen.rows),
            "503 p50 ms": percentile(refusals, 0.5),
            "503 p95 ms": percentile(refusals, 0.95),
            "failures": seen.count(FAILED, UNANSWERED),
            "recovery s": recovery(then, calm + storm, usual),
        }

    return run


def recovery(seen: Seen, began: float, usual: float) -> float:
    """Return after how many seconds the p95 of each half second stays within three times the usual."""
    late = 0.0
    halves: dict[int, list[float]] = {}
    for due, took, status in seen.rows:
        halves.setdefault(int((due - began) * 2), []).append(took if status == 200 else 60.0)
    for half, times in halves.items():
        if percentile(sorted(times), 0.95) > 3 * usual + 10:
            late = max(late, (half + 1) / 2)
    return late


def burst(path: str) -> Callable[[Running, Scale], Figures]:
    """Ask four times as much as the server can do, for 2 s: everybody can wait that long."""

    def run(server: Running, scale: Scale) -> Figures:
        can, seconds = capacity(server, path, scale.seconds(2)), scale.seconds(2)
        [seen] = send(server.port, Stream(path, seconds, rate=4 * can, fresh=True, patience=20))
        times = seen.times()
        return {
            "asked": len(seen.rows),
            "refused": seen.count(503),
            "failures": seen.failures,
            "p50 ms": percentile(times, 0.5),
            "max ms": percentile(times, 1),
        }

    return run


def slow_clients(server: Running, scale: Scale) -> Figures:
    """300 clients of one kind after the other, and one in a hurry beside them."""
    sys.path.append(str(ROOT))  # the tests' slow clients
    from tests.e2e.slow import crowd, kinds

    figures: Figures = {}
    address = ("127.0.0.1", server.port)
    for name, kind in kinds("/hello/", "/upload/", "/large/").items():
        with crowd(address, kind, scale.count(CROWDS)) as clients:
            if kind.reads and not kind.resets:  # 1.5 GB are made for them first, which is another load
                figures[f"{name}: served first after s"] = clients.settle(30)
            [seen] = send(server.port, Stream("/hello/", scale.seconds(10), rate=25, fresh=True, patience=3))
            figures[f"{name}: p99 ms"] = percentile(seen.times(), 0.99)
            figures[f"{name}: failures"] = len(seen.rows) - seen.count(200)
            figures[f"{name}: PSS MiB"] = server.pss()
    return figures


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Hold kept-alive connections, each of them answered once."""
    found: list[socket.socket] = []
    request = b"GET /hello/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        for _ in range(count):
            each = socket.create_connection(("127.0.0.1", port), timeout=10)
            found.append(each)
            each.sendall(request)
            data = b""
            while not data.endswith(b"hello"):
                more = each.recv(65536)
                if not more:
                    break
                data += more
        yield found
    finally:
        for one in found:
            one.close()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def idle(server: Running, scale: Scale) -> Figures:
    """10,000 idle kept-alive connections: what they cost, and what a client beside them sees."""
    before = server.pss()
    try:
        with idle_connections(server.port, scale.count(IDLE)) as connections:
            cpu, began, seconds = server.cpu(), time.monotonic(), scale.seconds(5)
            time.sleep(seconds)  # what is measured is doing nothing
            share = (server.cpu() - cpu) / (time.monotonic() - began)
            held = sum(map(is_open, connections))
            after = server.pss()
            [seen] = send(server.port, Stream("/hello/", scale.seconds(3), rate=25, fresh=True, patience=3))
    except OSError as error:
        return {"problem": f"{type(error).__name__} {error}"}
    return {
        "asked for": len(connections),
        "open": held,
        "CPU share": share,
        "KiB each": (after - before) * 1024 / max(held, 1),
        "p99 ms": percentile(seen.times(), 0.99),
        "failures": len(seen.rows) - seen.count(200),
    }


def recycle(server: Running, scale: Scale) -> Figures:
    """Workers that end every 50 requests, under load with kept connections."""
    seconds = scale.seconds(10)
    first = set(workers(server))
    [seen] = send(server.port, Stream("/wait/?ms=5", seconds, connections=16))
    times = seen.times()
    return {
        "requests": len(times),
        "workers seen": len(set(seen.bodies) | {str(pid) for pid in first}),
        "failures": len(seen.rows) - len(times),
        "p99 ms": percentile(times, 0.99),
    }


def kill(server: Running, scale: Scale) -> Figures:
    """A worker killed every second, under load with kept connections: lost is what ran in it."""
    seconds = scale.seconds(8)
    killed: list[int] = []
    stop = threading.Event()

    def killing() -> None:
        while not stop.wait(scale.seconds(1)):
            there = [pid for pid in workers(server) if pid not in killed]
            if len(there) == WORKERS:
                killed.append(there[0])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(there[0], signal.SIGKILL)

    thread = threading.Thread(target=killing)
    thread.start()
    try:
        [seen] = send(server.port, Stream("/wait/?ms=20", seconds, connections=8))
    finally:
        stop.set()
        thread.join()
    lost = len(seen.rows) - seen.count(200)
    return {
        "requests": seen.count(200),
        "killed": len(killed),
        "lost": lost,
        "lost for each": lost / max(len(killed), 1),
        "max ms": percentile(seen.times(), 1),
    }


def workers(server: Running) -> list[int]:
    """Return the worker processes: those without children of their own."""
    return sorted(
        process.pid
        for process in server.family()
        if process.pid != server.process.pid and not process.children()
    )


def soak(server: Running, scale: Scale) -> Figures:
    """Many requests, and what grew: memory, descriptors, threads."""
    wanted, done, errors = scale.count(int(os.environ.get("BENCH_SOAK", "200000"))), 0, 0
    load.put(VIEWS["hello"], "/hello/", server.port, 16, 1)
    before = holdings(server)
    while done < wanted:
        seen = load.put(VIEWS["hello"], "/hello/", server.port, 16, 30 if scale.share >= 1 else 1)
        done, errors = done + seen.requests, errors + seen.errors
    after = holdings(server)
    return {
        "requests": done,
        "failures": errors,
        **{f"{name} grew": after[name] - before[name] for name in before},
    }


def holdings(server: Running) -> dict[str, float]:
    found: Counter[str] = Counter()
    for process in server.family():
        with contextlib.suppress(psutil.Error):
            found["descriptors"] += process.num_fds()
            found["threads"] += process.num_threads()
    return {"PSS MiB": server.pss(), **{name: float(count) for name, count in found.items()}}


KEPT = (
    ("prodserve", "--keep-alive 600 --worker-connections 6000"),
    ("gthread", "--keep-alive 600 --worker-connections 6000"),
)
RECYCLED = (("prodserve", "--max-requests 50"), ("gthread", "--max-requests 50"))
SCENARIOS = {
    "balance": Scenario(balance, threads=8),
    "slowmix": Scenario(slowmix),
    "cpu-tail": Scenario(cpu_tail),
    "slow-clients": Scenario(slow_clients),
    "overload-waiting": Scenario(overload("/wait/?ms=50"), "Ten times the capacity of a view that waits."),
    "overload-computing": Scenario(overload("/spin/?ms=10"), "Ten times the capacity of one that computes."),
    "burst": Scenario(burst("/wait/?ms=50"), "Four times the capacity for 2 s of a view that waits."),
    "burst-computing": Scenario(burst("/spin/?ms=10"), "The same of one that computes."),
    "idle": Scenario(idle, options=KEPT),
    "recycle": Scenario(recycle, options=RECYCLED),
    "kill": Scenario(kill),
    "soak": Scenario(soak),
}
