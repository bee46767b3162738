"""What async views, event streams and websockets cost: one function each, figures by name."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import load
from measure import Running
from scenarios import WORKERS, Figures, Scale, holdings, spread
from sockets import Clients, Exchanges, handshake, opened, run
from traffic import Stream, percentile, send
from views import VIEWS

Scenario = Callable[[Running, Scale], Figures]
ECHO, WAIT = "/ws/echo/", "/ws/wait/"
LARGEST = 2**24 - 1024  # uvicorn and Gunicorn take messages of at most 16 MiB
STREAMS, IDLE = 500, 1000


def exchanged(server: Running, clients: Clients) -> tuple[Exchanges, Figures]:
    """Run clients; return what they saw, and what each exchange cost."""
    before = server.cpu()
    seen = run(server.port, clients)
    times = sorted(seen.times)
    return seen, {
        "CPU ms each": 1000 * (server.cpu() - before) / max(len(times), 1),
        "per s": len(times) / clients.seconds,
        "p50 ms": percentile(times, 0.5),
        "p99 ms": percentile(times, 0.99),
        "max ms": percentile(times, 1),
        "failures": seen.failures,
    }


def events(server: Running, scale: Scale) -> Figures:
    """Streams of 20 events every 20 ms for 50 clients: they must come one by one."""
    clients = Clients("/async/events/?count=20&ms=20", scale.count(50), scale.seconds(6))
    run(server.port, replace(clients, seconds=0.0))  # every import done, and every thread started
    seen, figures = exchanged(server, clients)
    return figures | {
        "first event p50 ms": percentile(sorted(seen.first), 0.5),
        "between events p50 ms": percentile(sorted(seen.gaps), 0.5),
    }


@contextlib.contextmanager
def held(server: Running, request: bytes, count: int) -> Iterator[tuple[list[bytes], Figures]]:
    """Hold open connections: what each was answered with first, and what they cost."""
    before = holdings(server)
    with opened(server.port, request, count) as connections:
        after = holdings(server)
        yield (
            [body for _, body in connections],
            {
                "more threads": after["threads"] - before["threads"],
                "KiB each": (after["PSS MiB"] - before["PSS MiB"]) * 1024 / count,
            },
        )


def open_streams(server: Running, scale: Scale) -> Figures:
    """500 streams that stay open: threads and memory."""
    run(server.port, Clients("/async/events/?count=2&ms=1", 8, scale.seconds(1)))  # every import done
    request = b"GET /async/events/?count=1000&ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with held(server, request, scale.count(STREAMS)) as (_, figures):
        [seen] = send(server.port, Stream("/hello/", scale.seconds(3), rate=25, fresh=True, patience=3))
    return figures | {"hello p99 ms": percentile(seen.times(), 0.99)}


def echo(size: int, count: int = 16) -> Scenario:
    """Return a scenario: messages of a size, to and fro."""

    def messages(server: Running, scale: Scale) -> Figures:
        run(server.port, Clients(ECHO, count, scale.seconds(1), size))
        return exchanged(server, Clients(ECHO, count, scale.seconds(5), size))[1]

    return messages


def large_message(server: Running, scale: Scale) -> Figures:
    """Small messages beside one of 16 MiB: how long do they wait?"""
    seconds = scale.seconds(4)
    with ThreadPoolExecutor() as pool:
        small = pool.submit(run, server.port, Clients(ECHO, 8, seconds, 32))
        large = pool.submit(run, server.port, Clients(ECHO, 1, seconds / 2, LARGEST))
        beside, whole = small.result(), large.result()
    return {
        "16 MiB p50 ms": percentile(sorted(whole.times), 0.5),
        "beside max ms": percentile(sorted(beside.times), 1),
        "failures": beside.failures + whole.failures,
    }


def idle_sockets(server: Running, scale: Scale) -> Figures:
    """1,000 websockets without a message: memory and CPU; and 32 opened at once, by worker."""
    with held(server, handshake(ECHO), 32) as (greetings, _):
        workers = Counter(re.findall(rb"\d+", body)[-1].decode() for body in greetings)
    with held(server, handshake(ECHO), scale.count(IDLE)) as (_, figures):
        cpu, began = server.cpu(), time.monotonic()
        time.sleep(scale.seconds(5))  # what is measured is doing nothing
        share = (server.cpu() - cpu) / (time.monotonic() - began)
    return figures | {
        "CPU share": share,
        "32 at once": spread(workers),
        "most of 32": max(workers.values()),
    }


def sync_consumers(server: Running, scale: Scale) -> Figures:
    """20 websockets on a sync consumer of 50 ms: 400 messages/s are all there can be."""
    return exchanged(server, Clients(WAIT, 20, scale.seconds(4), 32))[1]


def blocked(server: Running, scale: Scale) -> Figures:
    """Sync views beside async views that block the loop of each worker, for 1.5 s or for 3."""
    with ThreadPoolExecutor() as pool:
        for _ in range(2 * WORKERS):
            pool.submit(server.get, "/async/block/?ms=1500")
        [seen] = send(server.port, Stream("/hello/", max(2.5, scale.seconds(4)), rate=100, fresh=True))
    times = seen.times()
    return {"p50 ms": percentile(times, 0.5), "p99 ms": percentile(times, 0.99), "failures": seen.failures}


def beside_cpu(server: Running, scale: Scale) -> Figures:
    """Messages beside 8 clients of a view that computes for 10 ms."""
    seconds = scale.seconds(5)
    with ThreadPoolExecutor() as pool:
        computing = pool.submit(send, server.port, Stream("/spin/?ms=10", seconds, connections=8))
        seen, figures = exchanged(server, Clients(ECHO, 4, seconds, 32))
        [spun] = computing.result()
    return {
        "p50 ms": figures["p50 ms"],
        "p99 ms": figures["p99 ms"],
        "computed/s": spun.count(200) / seconds,
        "failures": seen.failures + spun.failures,
    }


def database_connections(server: Running, scale: Scale) -> Figures:
    """Connections to PostgreSQL while and after async views query it (BENCH_DATABASE names one)."""
    where = os.environ.get("BENCH_DATABASE")
    if not where:
        return {"skipped": "BENCH_DATABASE names no PostgreSQL"}
    import psycopg

    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    most, stop = 0, threading.Event()
    with psycopg.connect(where, autocommit=True) as connection:

        def count() -> int:
            row = connection.execute(query).fetchone()
            return int(row[0]) if row else 0

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.1):
                most = max(most, count())

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            seen = load.put(VIEWS["async-db"], "/async/db/", server.port, 20, scale.seconds(5))
        finally:
            stop.set()
            watching.join()
        return {"requests": seen.requests, "most": most, "left": count(), "failures": seen.errors}


ASYNC_SCENARIOS: dict[str, Scenario] = {
    "events": events,
    "open-streams": open_streams,
    "echo-32": echo(32),
    "echo-4k": echo(4096),
    "large-message": large_message,
    "idle-sockets": idle_sockets,
    "sync-consumers": sync_consumers,
    "blocked": blocked,
    "beside-cpu": beside_cpu,
    "db-connections": database_connections,
}
