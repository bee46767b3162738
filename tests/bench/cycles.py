"""Whether threads that end leave anything behind: the pool grows and ends its threads, cycle after cycle.

    python -m tests.bench.cycles [--cycles 1000] [--threads 16]

Each thread opens a database connection of Django, as a request does. Prints what the process held after a
tenth of the cycles and at the end, and exits 1 if anything grew.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import django
from django.conf import settings
from django.db import connection

from django_prodserve.project.databases import close_own_connections
from django_prodserve.worker.thread_pool import LeaderFollowerPool

PATIENCE = 30.0
MEMORY_MIB = 1.0
"""How much the allocator may move; a leak of one connection a cycle is 20 times as much."""


class Requests:
    """The work of the pool: requests that keep all threads until the last has come."""

    def __init__(self, threads: int) -> None:
        self.together = threading.Barrier(threads)
        self.events = threading.Event()
        self.failures = self.live = 0
        self._lock = threading.Lock()

    def wait_for_events(self, block: bool) -> None:
        if block:
            self.events.wait()
            self.events.clear()

    def serve(self, work: int, row: int) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        self.together.wait(PATIENCE)

    def report_failure(self) -> None:
        self.failures += 1

    def thread_started(self, row: int) -> None:
        with self._lock:
            self.live += 1

    def thread_ends(self, row: int) -> None:
        close_own_connections()
        with self._lock:
            self.live -= 1


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit("The pool did not get there.")
        time.sleep(0.0005)


def cycle(pool: LeaderFollowerPool[int], requests: Requests, threads: int) -> None:
    """Run as many requests at a time as there may be threads, then end all threads but one."""
    ended = pool.ended
    pool.queue.extend(range(threads))
    pool.fill()
    until(lambda: pool.ended == ended + threads)
    while requests.live > 1:
        pool.end_unused()
        time.sleep(0.0005)


def holdings() -> dict[str, float]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "MiB": resident / 2**20,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=16)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        name = str(Path(directory) / "database")
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}})
        django.setup()
        requests = Requests(wanted.threads)
        pool: LeaderFollowerPool[int] = LeaderFollowerPool(wanted.threads, requests)
        pool.start()
        began: dict[str, float] = {}
        for number in range(wanted.cycles):
            if number == wanted.cycles // 10:
                began = holdings()
            cycle(pool, requests, wanted.threads)
        ended = holdings()
    for what, before in began.items():
        print(f"{what:<12} {before:10.1f} -> {ended[what]:10.1f}")
    grew = [what for what, before in began.items() if ended[what] > before + MEMORY_MIB * (what == "MiB")]
    print(f"{wanted.cycles} cycles of {wanted.threads} threads, {requests.failures} failures, grew: {grew}")
    return int(bool(grew or requests.failures))


if __name__ == "__main__":
    sys.exit(main())
