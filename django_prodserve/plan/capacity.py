"""How many requests a second a server can serve, and what is short first. Pure; standard library alone.

Each request takes CPU time, and keeps a thread while it runs. Whichever runs out first sets the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CPU, GIL, THREADS, CONNECTIONS, MEMORY = "cpu", "gil", "threads", "connections", "memory"
"""What may be short. The last two are what keeps a worker from more threads."""
USABLE_SHARE = 0.95
"""Share of the CPU time that requests get under full load; the rest goes to other processes."""


@dataclass(frozen=True, kw_only=True)
class RequestCost:
    """What a request takes on average, in seconds."""

    cpu: float
    """CPU time of the server's processes."""
    beside: float = 0.0
    """CPU time of other processes on the same CPUs, such as a database or a proxy."""
    thread: float = 0.0
    """Time during which it keeps a thread; 0 for requests on an asyncio loop."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a server has for its requests."""

    cpus: float
    workers: int
    threads: int
    """How many requests may run in threads at a time, in all workers."""
    threads_by: str = THREADS
    """What sets that number: THREADS, CONNECTIONS or MEMORY."""


class Capacity(NamedTuple):
    """The highest rate, in requests a second, and what is short at that rate."""

    rate: float
    short: str


def capacity(cost: RequestCost, means: Means) -> Capacity:
    """Return the most that the server can serve of requests with this cost."""
    return min(limits(cost, means), key=lambda limit: limit.rate)


def limits(cost: RequestCost, means: Means) -> list[Capacity]:
    """Return the highest rate that each resource allows."""
    found = [Capacity(_rate(USABLE_SHARE * means.cpus, cost.cpu + cost.beside), CPU)]
    if means.workers < means.cpus:
        found.append(Capacity(_rate(USABLE_SHARE * means.workers, cost.cpu), GIL))
    found.append(Capacity(_rate(means.threads, cost.thread), means.threads_by))
    return found


def _rate(supply: float, each: float) -> float:
    return supply / each if each > 0 else float("inf")
