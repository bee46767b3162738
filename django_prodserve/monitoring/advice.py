"""Derive advice on profile, threads and bottlenecks from live traffic. Pure; standard library alone.

It only advises and never changes a setting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..utils.units import format_share

MIN_SAMPLES = 100
"""Minimum samples before any statement about requests: of those that ran alone in their worker. If there are
so many requests that none runs alone, as many requests show what they wait for."""
CPU_BOUND_SHARE = 0.5
"""Traffic that computes for more than this share of its time suits profile cpu."""
THREADS_PER_COMPUTING = 1.3
"""Useful threads for each one that could compute all the time (MEASURED: 1.3 x (cpu + io) / cpu)."""
MAX_THREADS = 64
WAIT_SHARE = 0.1
"""Share of a request's time from which waiting for a thread is reported."""
CPU_FULL_SHARE = 0.85
"""Share of the CPU time in use from which the CPU counts as saturated."""
MIN_BUSY_SHARE = 0.3
"""Share of their time that all requests must compute before fewer threads are advised. Threads that sleep in
a view lower it immediately, even while samples of quieter minutes show only computing requests. Two CPU-bound
requests at a time have 0.5."""
THROTTLED_SHARE = 0.05
"""Share of the quota's throttled periods from which the quota is the bottleneck."""


FITS = "fits"
"""The kind for a plan that suits the traffic: nothing needs to change."""
AGREES_WITH_WAITING = {"threads", "more threads", "slower", "profile io", "cpu", "gil", "quota", "db"}
"""Kinds that would shorten the waits of requests."""


class Advice(NamedTuple):
    """``kind`` changes when there is something new to report."""

    kind: str
    line: str
    """What to consider, and why; empty if there is nothing to do."""


class SteadyAdvice:
    """Advice that has held for a while; advice that no longer holds is withdrawn at the first evaluation."""

    def __init__(self) -> None:
        self.told = self.candidate = Advice("", "")
        self.since = 0.0

    def update(self, now: float, advice: Advice, hold: float) -> Advice | None:
        """Process the advice of one period; return the advice to show from now on, if that changes."""
        if advice.kind != self.candidate.kind:
            self.candidate, self.since = advice, now
        if advice.kind == self.told.kind:
            return None
        if now - self.since >= hold:
            self.told = advice
        elif self.told.kind:
            self.told = Advice("", "")
        else:
            return None
        return self.told


@dataclass(frozen=True, kw_only=True)
class TrafficProfile:
    """The traffic of a period: seconds of the sampled requests, CPUs, shares from 0 to 1."""

    samples: int
    requests: int
    cpu: float
    """Seconds of computing."""
    wait: float
    """Seconds of waiting for databases, services, locks, sleep."""
    busy: float
    """Share of all requests' time that they computed, including unfinished ones: too low if threads wait for
    the GIL."""
    queued: float
    """Share of all requests' time that they waited for a thread."""
    used: float
    """CPUs that all workers used, and the busiest worker alone."""
    busiest: float
    cpus: float
    throttled: float
    profile: str
    threads: int
    grows: bool = False
    """Whether a worker starts more threads by itself while requests only wait..."""
    held: str = ""
    """...and what keeps it from that: one of the scoreboard's GROWTH_HOLDS."""
    db_budget: bool
    """Whether the share of database connections is what limits the threads."""

    @property
    def computing(self) -> float:
        if self.samples < MIN_SAMPLES:
            return self.busy
        return self.cpu / (self.cpu + self.wait) if self.cpu + self.wait else 0.0

    @property
    def saturated(self) -> bool:
        """Whether the CPUs, or one worker's GIL, are saturated."""
        return (
            self.throttled >= THROTTLED_SHARE
            or self.used >= CPU_FULL_SHARE * self.cpus
            or self.busiest >= CPU_FULL_SHARE
        )

    @property
    def worth(self) -> int:
        """Useful number of threads in each worker."""
        return min(
            MAX_THREADS,
            max(
                2, math.ceil(THREADS_PER_COMPUTING / max(self.computing, THREADS_PER_COMPUTING / MAX_THREADS))
            ),
        )


def advise(mix: TrafficProfile) -> Advice | None:
    """Return the advice for this traffic; None while there are too few samples.

    Advice without a kind withdraws the previous advice.
    """
    waits = waiting_for(mix)
    if mix.samples < MIN_SAMPLES:
        return waits if mix.requests >= MIN_SAMPLES else None
    if waits:
        return waits
    seen = f"requests compute {format_share(mix.computing)} of their time"
    profile = "cpu" if mix.computing > CPU_BOUND_SHARE else "io"
    if profile == "cpu" and mix.busy < MIN_BUSY_SHARE:
        return Advice("", "")  # few requests are sampled, and the others sleep
    if profile != mix.profile:
        enough = f"{mix.worth} threads in each worker are enough"
        return Advice(f"profile {profile}", f"Consider --profile {profile}: {seen}, so {enough}")
    if profile == "io" and mix.worth > 2 * mix.threads and not mix.grows:
        return Advice(
            "more threads", f"Consider --threads {mix.worth}: {seen}, so a worker can run more of them"
        )
    return Advice(FITS, "")


def waiting_for(mix: TrafficProfile) -> Advice | None:
    """Return what would help against the queue; None if requests hardly wait.

    If no request runs alone, this names what saturates the CPUs even if the queue is short.
    """
    if mix.queued < WAIT_SHARE and not (mix.samples < MIN_SAMPLES and mix.saturated):
        return None
    waits = f"requests wait {format_share(mix.queued)} of their time for a thread"
    if mix.queued < WAIT_SHARE:
        waits = "requests slow each other down"
    if mix.throttled >= THROTTLED_SHARE:
        share = format_share(mix.throttled)
        return Advice(
            "quota", f"Consider a higher CPU limit: it throttles {share} of its periods, and {waits}"
        )
    if mix.used >= CPU_FULL_SHARE * mix.cpus:
        used = f"{mix.used:.1f} of {mix.cpus:g} CPUs are in use"
        return Advice("cpu", f"Consider more CPUs or faster views: {used}, and {waits}")
    if mix.busiest >= CPU_FULL_SHARE:
        used = f"one uses {mix.busiest:.1f} CPUs, the most that its GIL allows, while CPUs are idle"
        return Advice("gil", f"Consider more --workers: {used}, and {waits}")
    if mix.db_budget:
        return Advice("db", f"Consider a higher --db-connections: it limits the threads, and {waits}")
    if mix.profile == "cpu" and mix.computing <= CPU_BOUND_SHARE:
        return Advice(
            "profile io", f"Consider --profile io, up to {mix.worth} threads in each worker: {waits}"
        )
    if mix.held == "slower":
        return Advice("slower", f"Find what requests wait for: they take longer than usual, and {waits}")
    if mix.grows and mix.held != "maximum":
        return Advice("", "")
    return Advice("threads", f"Consider --threads {max(mix.worth, 2 * mix.threads)}: {waits}")
