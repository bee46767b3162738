"""Predict throughput and latency of a mix, and recommend threads. Pure; standard library alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..monitoring.advice import CPU_BOUND_SHARE, THREADS_PER_COMPUTING
from ..plan.capacity import CPU, GIL, USABLE_SHARE, Capacity, Means, RequestCost, capacity
from .costs import Mix

MAX_CLIENTS = 600
"""Connections of the load client: more take so much of its CPU time that the server gets too little."""
LEAST_SPREAD = 0.2
"""How uneven requests of one path are."""
BUSY_CLIENTS = 4
"""Clients for each worker that keep it busy, wherever its connections are accepted."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the plan allows on the machine that is measured."""

    cpus: float
    workers: int
    threads: int
    """Threads of a worker at the start, by its profile..."""
    max_threads: int
    """...and at most."""
    threads_by: str
    """What sets the maximum: a word of plan/capacity.py."""

    def means(self, threads: int = 0) -> Means:
        """Return what there is for requests with so many threads in each worker, or with the maximum."""
        return Means(
            cpus=self.cpus,
            workers=self.workers,
            threads=self.workers * (threads or self.max_threads),
            threads_by=self.threads_by,
        )


@dataclass(frozen=True, kw_only=True)
class UnderLoad:
    """The mix while many requests run."""

    mix: Mix
    client: float = 0.0
    """CPU time of the load client for each request, on the same CPUs."""
    usable: float = USABLE_SHARE
    """Share of the CPUs that was used when more clients ended no more requests. Threads that wake up to
    compute for a moment wait for the GIL: workers with 100 of them used 0.7 CPUs each."""


def predict(load: UnderLoad, means: Means) -> Capacity:
    """Return the maximum rate, and what is short."""
    means = replace(means, cpus=means.cpus * load.usable / USABLE_SHARE)
    mix = load.mix
    return capacity(RequestCost(cpu=mix.cpu, beside=mix.other + load.client, thread=mix.thread), means)


def knee(mix: Mix, rate: float) -> float:
    """Return how many requests run at a time at this rate (Little's law)."""
    return rate * (mix.cpu + mix.wait)


def concurrencies(mix: Mix, budget: Budget, most: Capacity) -> tuple[int, int, int]:
    """Return three numbers of clients: below the maximum, at it, and beyond it, where the rate stays."""
    busy = knee(mix, most.rate)
    full = BUSY_CLIENTS * budget.workers if most.short in (CPU, GIL) else 1
    beyond = max(2 * busy, full) if most.short in (CPU, GIL) else 1.25 * busy
    last = max(3, min(MAX_CLIENTS, math.ceil(beyond)))
    middle = max(2, min(last - 1, round(busy)))
    return max(1, min(middle - 1, round(busy / 2))), middle, last


def closed_loop(mix: Mix, means: Means, most: Capacity, clients: int) -> tuple[float, float]:
    """Return rate and latency with so many clients that each wait for their response.

    If all requests take as long, none waits until the maximum is reached. The more they differ, the earlier
    they queue: then mean value analysis counts, as for times of an exponential distribution.
    """
    alone = mix.cpu + mix.wait
    even = min(clients / alone, most.rate) if alone else most.rate
    uneven = _mean_value_analysis(alone, means, most, clients)
    weight = min(1.0, LEAST_SPREAD + mix.spread)
    rate = weight * uneven + (1 - weight) * even
    return rate, clients / rate


def _mean_value_analysis(alone: float, means: Means, most: Capacity, clients: int) -> float:
    """Return the rate of a closed network: requests queue for what is short, and only wait elsewhere.

    Several CPUs count as one that is as many times as quick, with a delay (Seidmann's approximation).
    """
    demand = 1 / most.rate
    servers = max(1.0, min(means.cpus, means.workers)) if most.short in (CPU, GIL) else means.threads
    elsewhere = max(0.0, alone - demand)
    if servers > 1:
        elsewhere = max(0.0, alone - demand * servers) + demand * (servers - 1)
    waiting = rate = 0.0
    for number in range(1, clients + 1):
        queued = demand * (1 + waiting)
        rate = number / (elsewhere + queued)
        waiting = rate * queued
    return rate


def curve(mix: Mix, means: Means, most: Capacity, last: int) -> Iterator[tuple[int, float, float]]:
    """Yield clients, rate and latency for the line of a chart."""
    steps = sorted({max(1, round(last * number / 24)) for number in range(25)})
    for clients in steps:
        yield (clients, *closed_loop(mix, means, most, clients))


def profile(mix: Mix) -> str:
    """Return the profile that suits the mix."""
    return "cpu" if mix.computing > CPU_BOUND_SHARE else "io"


def useful_threads(mix: Mix, budget: Budget) -> int:
    """Return how many threads of a worker can be busy while the CPUs are full, with a margin."""
    if not mix.thread or not mix.cpu:
        return 1
    full = USABLE_SHARE * budget.cpus / (mix.cpu + mix.other)
    if budget.workers < budget.cpus:
        full = min(full, USABLE_SHARE * budget.workers / mix.cpu)
    return max(1, math.ceil(THREADS_PER_COMPUTING * full * mix.thread / budget.workers))


def recommended_threads(mix: Mix, budget: Budget) -> tuple[int, int]:
    """Return with how many threads a worker should start, and to how many it may grow.

    It starts with what keeps the CPUs busy: threads start only when they are needed. Growth stops while the
    CPU is in demand, so it may end below that number.
    """
    least = min(budget.max_threads, max(budget.threads, useful_threads(mix, budget)))
    return least, budget.max_threads
