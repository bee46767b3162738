"""How many workers and threads fit, and which limit decided. Pure; standard library alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.parsers import Count
from ..errors import Problem
from ..utils.decision import LEARNED, SET_EXPLICITLY, Decision
from ..utils.units import MIB, counted, format_cpus, format_size
from . import capacity

if TYPE_CHECKING:
    from ..config.parsers import ThreadRange
    from ..config.side_processes import SideProcess
    from ..project.footprint import Footprint
    from ..project.learned import Learned

# Without a measurement: the master of a preloaded, warmed and frozen project on Django 6.1, and a worker
# of 16 threads. Its private memory grows under load to 34 MiB (startproject with admin) or 54 MiB (Wagtail);
# from Python 3.12 on to 29 or 44 MiB.
MASTER_MEMORY = 46 * MIB
WORKER_MEMORY = 56 * MIB
# 16 threads used 11 to 30 MiB more than one, 4 used 2 to 7 (see project/footprint.py).
THREAD_MEMORY = 2 * MIB
MINDER_MEMORY = 4 * MIB  # private memory of a minder of startproject with admin, Python 3.11: 3.9 to 4.3 MiB
STEP = 8 * MIB  # measurements are rounded up, so that plans do not change with every start
# Shares of the memory limit. First: the planned total of all workers, since page cache, the kernel's buffers
# and peaks use the rest. Second: the arbiter replaces the largest worker, starting its replacement first.
# Third: the arbiter stops that worker immediately.
MEMORY_SHARE, REPLACE_SHARE, KILL_SHARE = 0.85, 0.80, 0.90
# 50 ms views: 16 threads serve 3.5 times as much as 4; 32 cost 25 % CPU on views that do nothing.
THREADS = {"io": 16, "cpu": 4}
MAX_WORKERS = 32  # more processes than CPUs only cost memory in every measurement
MAX_THREADS = 256  # of a worker; views that wait for longer are better async
# Shares of the connections that a database allows: of threads at the start, of threads that keep theirs, and
# with growth. In a reload, the threads of the old workers keep their connections until those end: with 0.8, a
# reload under load met "too many clients". Other services need connections, too.
USED_SHARE, KEPT_SHARE, GROWTH_SHARE = 0.8, 0.48, 0.5


@dataclass(frozen=True)
class DatabaseLimit:
    """The connections that a database allows to applications, and how many of them were open at the start."""

    alias: str
    allowed: int
    used: int

    @property
    def room(self) -> int:
        """Return how many of them this server may use while its threads grow."""
        return min(int(self.allowed * GROWTH_SHARE), self.allowed - self.used)

    def __str__(self) -> str:
        return f"database {self.alias} allows {self.allowed} connections, {self.used} were in use"


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The inputs of the sizes. ``databases`` counts the servers that limit connections, at least 1."""

    cpus: float
    memory: int | None
    profile: str
    worker_class: str
    databases: int = 1
    stated_workers: Decision[Count] | None = None
    stated_threads: Decision[ThreadRange] | None = None
    db_connections: Decision[int] | None = None
    db_limit: DatabaseLimit | None = None
    """What the databases themselves allow, if a start has asked them."""
    pool_size: int | None = None
    """Connections of the smallest pool that a worker process has; None without a pool."""
    counts_connections: bool = False
    """Whether any database limits connections and has no pool."""
    footprint: Footprint | None = None
    learned: Learned | None = None
    """What earlier traffic has shown, if the plan uses it."""
    has_async: bool = False
    """Whether views run on asyncio loops, and call in leased threads what may block."""
    keeps_connections: bool = False
    """Whether a thread keeps its connection while another thread of the pool runs a request.

    The pool has one thread more than run requests (worker/thread_pool.py). With CONN_MAX_AGE it has one, too.
    """

    beside: Sequence[SideProcess] = ()
    """What runs alongside the workers and takes a part of the memory."""

    def workers(self) -> Decision[int]:
        """Return the explicit count, or the CPUs' count within ceiling, memory and database connections."""
        if self.stated_workers is not None:
            count = self.stated_workers.value
            why = f"{count.text} with n = {math.ceil(self.cpus)}" if count.slope else SET_EXPLICITLY
            return Decision(count.workers(self.cpus), why, self.stated_workers.source)
        wanted, why = self.by_cpus()
        asked = wanted
        for cap, reason in self.caps():
            if cap < wanted:
                wanted, why = cap, f"{reason}; {format_cpus(self.cpus)} would allow {asked}"
        return Decision(wanted, why)

    def threads(self, workers: int) -> Decision[int]:
        """Return the explicit count, or the profile's count capped by database connections."""
        if self.worker_class == "sync":
            return Decision(1, "a sync worker serves one request at a time")
        if self.stated_threads is not None:
            stated = self.stated_threads
            return Decision(stated.value.least, stated.why, stated.source)
        threads = THREADS[self.profile]
        fitting = self.threads_by_database(workers)
        if fitting is not None and fitting < threads:
            assert self.db_connections is not None
            why = f"{self.db_connections.value} database connections / {workers} workers"
            why += self._over_databases()
            if self.keeps_connections:
                why += ", and one thread more keeps a connection"
            return Decision(fitting, why + (", half of them for leased threads" if self.has_async else ""))
        if self.db_limit is not None:
            used = KEPT_SHARE if self.keeps_connections else USED_SHARE
            few = self._halved(self._part(int(self.db_limit.allowed * used), workers))
            if few < threads:
                return Decision(few, f"{self.db_limit} / {workers} workers")
        waits = "most wait while one computes" if self.profile == "io" else "more would compete for the CPU"
        return Decision(threads, f"profile {self.profile}: {waits}; started when needed")

    def max_threads(self, workers: int, threads: int) -> Decision[int]:
        """Return to how many threads a worker may grow, and what sets that number."""
        stated = self.stated_threads
        if self.worker_class != "prodserve":
            return Decision(threads, f"{self.worker_class} workers have a fixed number")
        if stated is not None and stated.value.most == stated.value.least:
            return Decision(threads, "a fixed number", stated.source)
        if stated is not None:
            return Decision(stated.value.most, stated.why, stated.source)
        most, _, why = self._thread_cap(workers, threads)
        if most <= threads:
            return Decision(threads, f"no more: {why}")
        return Decision(most, f"{why}; more than {threads} only while requests wait and the CPU is idle")

    def thread_range(self, workers: int) -> tuple[Decision[int], Decision[int]]:
        """Return the threads of a worker at the start and their maximum, with what was learned."""
        threads = self.threads(workers)
        most = self.max_threads(workers, threads.value)
        if self.learned is None or not threads.is_computed or self.worker_class != "prodserve":
            return threads, most
        cap, _, limit = self._thread_cap(workers, threads.value)
        wanted, fits = self.learned.threads_with(workers), max(cap, threads.value)
        count = min(wanted, fits)
        why = str(self.learned) if count == wanted else f"{limit}; {wanted} were {self.learned}"
        found = Decision(count, why, LEARNED)
        ceiling = self.learned.max_threads_with(workers)
        if ceiling is not None and ceiling < fits:
            return found, Decision(max(count, ceiling), str(self.learned), LEARNED)
        if fits <= count:
            return found, Decision(count, f"no more: {limit}")
        more = f"; more than {count} only while requests wait and the CPU is idle"
        return found, Decision(fits, f"{limit}{more}")

    def threads_by(self, workers: int, threads: int) -> str:
        """Return which resource sets that number: one of those in plan/capacity.py."""
        if self.worker_class != "prodserve" or self.stated_threads is not None:
            return capacity.THREADS
        cap, resource, _ = self._thread_cap(workers, threads)
        learned = None if self.learned is None else self.learned.max_threads_with(workers)
        return capacity.THREADS if learned is not None and learned < cap else resource

    def threads_limit(self, workers: int, threads: int, most: int, connections: int) -> str:
        """Return what sets the maximum of the threads, ``most``, and opens so many ``connections``."""
        limit = self.threads_by(workers, threads)
        if limit == capacity.MEMORY:
            return f"memory: room for {counted(workers * most, 'thread')}"
        if limit == capacity.CONNECTIONS:
            allowed = self.db_connections.value if self.db_connections is not None else connections
            if self.pool_size is not None and self.pool_size <= most:
                return f"database connections: {self.pool_size} of {self.pool_size} in the pool"
            if self.db_connections is None and self.db_limit is not None:
                allowed = self.db_limit.room
            return f"database connections: {connections} of {allowed}"
        source = f"{self.stated_threads.source}: " if self.stated_threads is not None else ""
        return f"{source}{counted(most, 'thread')} in each worker"

    def _thread_cap(self, workers: int, threads: int) -> tuple[int, str, str]:
        """Return the tightest limit on the number of threads of a worker, its resource and its reason."""
        return min(self._thread_caps(workers, threads), key=lambda cap: cap[0])

    def _thread_caps(self, workers: int, threads: int) -> Iterator[tuple[int, str, str]]:
        """Yield every limit on the number of threads of a worker, its resource and its reason."""
        yield MAX_THREADS, capacity.THREADS, f"at most {MAX_THREADS} in each worker"
        if self.memory is None:
            yield 4 * threads, capacity.THREADS, "the memory is not known"
        else:
            spare = max(0.0, self.memory * MEMORY_SHARE - self._size(workers))
            fits = threads + int(spare / workers / THREAD_MEMORY)
            left = f"memory: {format_size(spare)} left, {_mib(THREAD_MEMORY)} for each thread"
            yield fits, capacity.MEMORY, left
        if self.pool_size is not None:
            holds = f"the pool holds {counted(self.pool_size, 'database connection')}"
            yield self.pool_size, capacity.CONNECTIONS, holds
        fitting = self.threads_by_database(workers)
        if fitting is not None:
            assert self.db_connections is not None
            shared = f"{self.db_connections.value} database connections / {workers} workers"
            yield fitting, capacity.CONNECTIONS, shared
        elif self.db_limit is not None:
            share = self._halved(self._part(self.db_limit.room, workers))
            yield share, capacity.CONNECTIONS, f"{self.db_limit} / {workers} workers"
        elif self.counts_connections:
            asks = "a start asks the database how many connections it allows"
            yield threads, capacity.CONNECTIONS, asks

    def leases(self, workers: int, threads: int) -> Decision[int]:
        """Return the threads for what async views call, within the database connections."""
        if not self.has_async:
            return Decision(0, "no view is known to run on an asyncio loop")
        left = self._share(workers)
        if left is not None and left - threads < threads:
            assert self.db_connections is not None
            why = f"what the threads leave of {self.db_connections.value} database connections"
            return Decision(max(1, left - threads), why)
        return Decision(threads, "as many as threads, for what async views call; started when needed")

    def by_cpus(self) -> tuple[int, str]:
        """Return the count for the CPUs, worker class and profile, at least 2, and the reason."""
        # Under a quota of 1.5 CPUs two workers gave 72 requests/s of pure CPU, one gave 46: round up.
        n = math.ceil(self.cpus)
        if self.worker_class == "sync" and self.profile == "io":
            return 2 * n + 1, f"2n+1 for n = {n} (sync workers, profile io)"
        if n < 2:
            return 2, "at least 2, so that a slow request or a restart does not stop the site"
        return n, f"one for each usable CPU{'' if n == self.cpus else ', rounded up'}"

    def caps(self) -> Iterator[tuple[int, str]]:
        """Yield every limit on the number of workers with its reason."""
        yield MAX_WORKERS, f"at most {MAX_WORKERS} unless asked for more"
        fits = self.by_memory
        if fits is not None:
            yield (
                fits,
                f"memory holds {fits} ({self._measured()}master {_mib(self.master_memory().value)}, "
                f"{_mib(self.worker_memory().value)} each, {self._beside()}{self.usable})",
            )
        if self.db_connections is not None:
            threads = self.stated_threads.value.least if self.stated_threads else 1
            each = self.connections(threads, int(self.has_async))
            most = max(1, self.db_connections.value // (each * self.databases))
            threads_of_each = self._in_words(threads, int(self.has_async))
            yield (
                most,
                f"{self.db_connections.value} database connections / {threads_of_each}"
                + self._over_databases(),
            )

    @property
    def by_memory(self) -> int | None:
        """Return the maximum of workers that fit in memory, at least 1; None if memory is not known."""
        if self.memory is None:
            return None
        return max(1, int((self.memory * MEMORY_SHARE - self._size(0)) // self.worker_memory().value))

    def master_memory(self) -> Decision[int]:
        """Return the arbiter's memory, which includes the application if that is preloaded."""
        if self.footprint is None:
            return Decision(MASTER_MEMORY, f"{_GUESS}; measure this one with prodserve plan --measure")
        how = "PSS" if self.footprint.how == "PSS" else f"{self.footprint.how}, as PSS cannot be read here"
        return Decision(_rounded(self.footprint.master), f"measured {self._when()} ({how})")

    def worker_memory(self) -> Decision[int]:
        """Return the private memory of each worker under load."""
        if self.footprint is None:
            return Decision(WORKER_MEMORY, f"{_GUESS}, under load")
        threads = self._threads_at_most()
        size = _rounded(self.footprint.worker + threads * THREAD_MEMORY)
        own = _mib(self.footprint.worker)
        each = f"{_mib(THREAD_MEMORY)} for each thread ({threads})"
        why = f"under load: {own} measured in a test process, and {each}"
        return Decision(size, why)

    def _threads_at_most(self) -> int:
        if self.worker_class == "sync":
            return 1
        return self.stated_threads.value.least if self.stated_threads else THREADS[self.profile]

    def _when(self) -> str:
        assert self.footprint is not None
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.footprint.when))

    def _measured(self) -> str:
        return f"measured {self._when()}: " if self.footprint else ""

    def _size(self, workers: int) -> int:
        alone = self.master_memory().value + workers * self.worker_memory().value
        return alone + self.side_memory().value

    def memory_of(self, process: SideProcess) -> int:
        """Return the memory of a process alongside the workers; it shares nothing with them."""
        if process.memory is not None:
            return process.memory
        return self.guess(self.master_memory().value, self.worker_memory().value)

    @staticmethod
    def guess(master: int, worker: int) -> int:
        """Return the memory of a process that states none: it loads the project, as the arbiter does."""
        return max(master, worker)

    def side_memory(self) -> Decision[int]:
        """Return the memory of all processes alongside the workers."""
        if not self.beside:
            return Decision(0, "no process runs alongside the workers")
        parts = [
            f"{process.name} {_mib(self.memory_of(process))}"
            f"{', a guess' if process.memory is None else ', set explicitly'}"
            for process in self.beside
        ]
        size = sum(map(self.memory_of, self.beside)) + len(parts) * MINDER_MEMORY
        return Decision(size, f"{'; '.join(parts)}; {_mib(MINDER_MEMORY)} for each minder")

    def _beside(self) -> str:
        return f"{_mib(self.side_memory().value)} alongside them, " if self.beside else ""

    def threads_by_database(self, workers: int) -> int | None:
        """Return the maximum number of threads for --db-connections, at least 1; None without that limit."""
        share = self._share(workers)
        return None if share is None else self._halved(share)

    def _halved(self, share: int) -> int:
        """Return the threads for this many connections: leased threads need as many."""
        return max(1, math.ceil(share / 2) if self.has_async else share)

    def _part(self, connections: int, workers: int) -> int:
        """Return one worker's part of the connections, for its busy threads."""
        return connections // (workers * self.databases) - self.keeps_connections

    def _share(self, workers: int) -> int | None:
        """Return the connections of a worker's busy threads to each database; None without a limit."""
        if self.db_connections is None:
            return None
        return self._part(self.db_connections.value, workers)

    def connections(self, threads: int, leases: int) -> int:
        """Return how many connections a worker with these threads may open to each database."""
        return threads + leases + self.keeps_connections

    def _in_words(self, threads: int, leases: int) -> str:
        parts = [f"{threads} threads", *([f"{leases} leased"] if leases else [])]
        parts += ["1 that waits"] if self.keeps_connections else []
        return f"({' + '.join(parts)})" if len(parts) > 1 else parts[0]

    @property
    def usable(self) -> str:
        """Return the memory that the plan may use, as text."""
        return f"{format_size((self.memory or 0) * MEMORY_SHARE)} usable"

    def warnings(
        self, workers: Decision[int], threads: Decision[int], leases: Decision[int]
    ) -> Iterator[Problem]:
        """Yield a problem for every figure that does not fit, with a figure that does."""
        yield from self._memory_warnings(workers)
        by_cpus, _ = self.by_cpus()
        if self.stated_workers is not None and workers.value > 2 * by_cpus + 1:
            yield Problem(
                f"{workers.value} workers ({workers.source}) on {format_cpus(self.cpus)}: more "
                "processes than CPUs only cost memory.",
                f"{by_cpus} is recommended: --workers {by_cpus}",
                topic="workers",
            )
        share = self.db_connections
        most = workers.value * self.connections(threads.value, leases.value) * self.databases
        if share is not None and most > share.value:
            fitting = self.threads_by_database(workers.value)
            fix = f"{fitting} threads are recommended: --threads {fitting}"
            each = self._in_words(threads.value, leases.value)
            yield Problem(
                f"{workers.value} workers x {each}{self._over_databases(' x ')} "
                f"may open {most} database connections, {share.value} are allowed ({share.source}).",
                fix if threads.value > 1 else "Use fewer workers.",
                topic="db-connections",
            )

    def _memory_warnings(self, workers: Decision[int]) -> Iterator[Problem]:
        fits = self.by_memory
        if fits is None or self.memory is None:
            return
        need = self._size(workers.value)
        if self.stated_workers is not None and workers.value > fits:
            yield Problem(
                f"{workers.value} workers ({workers.source}) need about {format_size(need)}, "
                f"{self.usable}: expect the OOM killer.",
                f"{fits} is recommended: --workers {fits}",
                topic="workers",
            )
        elif workers.value == 1 and fits == 1 and self.stated_workers is None:
            two = _mib(self._size(2) / MEMORY_SHARE)
            yield Problem(
                f"Only one worker fits into {format_size(self.memory)}; two need {two}: a crash or a slow "
                "request stops the site.",
                f"Raise the memory limit to {two}.",
                topic="sizing",
            )
        if need > self.memory and self.stated_workers is None:
            there = format_size(self.memory)
            yield Problem(
                f"One worker needs about {format_size(need)}, there are {there}: expect the OOM killer.",
                f"Raise the memory limit to {_mib(need / MEMORY_SHARE)}.",
                topic="sizing",
            )

    def _over_databases(self, sign: str = " / ") -> str:
        return f"{sign}{self.databases} databases" if self.databases > 1 else ""


_GUESS = "a guess: the size of a mid-size project"


def _rounded(size: int) -> int:
    return math.ceil(size / STEP) * STEP


def _mib(size: float) -> str:
    return f"{math.ceil(size / MIB)} MiB"
