"""What live traffic says about profile, threads and what requests wait for. Pure; standard library alone.

It advises and never changes anything by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..utils.units import format_share

MIN_SAMPLES = 100
"""Samples before anything is said of what requests do: of those that ran alone in their worker. Where they
are so many that none does, as many requests show what they wait for."""
CPU_BOUND_SHARE = 0.5
"""A mix that computes more than this share of its time is profile cpu."""
THREADS_PER_COMPUTING = 1.3
"""Threads worth having for each one that could compute all the time (MEASURED: 1.3 x (cpu + io) / cpu)."""
MAX_THREADS = 64
WAIT_SHARE = 0.1
"""Waiting for a thread is told from this share of a request's time on."""
CPU_FULL_SHARE = 0.85
"""CPU in use from this share on is all there is."""
MIN_BUSY_SHARE = 0.3
"""Share of their time that all requests must compute before fewer threads are advised. Threads that sleep in
a view lower it at once, even while the samples of quieter minutes say that requests only compute. Two
requests at a time that only compute have 0.5."""
THROTTLED_SHARE = 0.05
"""Share of the quota's periods that were cut short from which on the quota is what requests wait for."""


FITS = "fits"
"""The kind that asks for nothing: the plan suits the traffic."""
AGREES_WITH_WAITING = {"threads", "more threads", "profile io", "cpu", "gil", "quota", "db"}
"""Kinds that say how requests would wait less."""


class Advice(NamedTuple):
    """``kind`` changes when something new is to be told."""

    kind: str
    line: str
    """What to consider, and why; empty where nothing is to be done."""


class SteadyAdvice:
    """Advice that has held for a while; what no longer holds is taken back at the first look."""

    def __init__(self) -> None:
        self.told = self.candidate = Advice("", "")
        self.since = 0.0

    def update(self, now: float, advice: Advice, hold: float) -> Advice | None:
        """Take note of what a stretch of traffic says; return what to show from now on, if that changes."""
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
    """What was seen in a stretch of time: seconds of the sampled requests, CPUs, shares from 0 to 1."""

    samples: int
    requests: int
    cpu: float
    """Computing."""
    wait: float
    """For databases, services, locks, sleep."""
    busy: float
    """Share of all requests' time that they computed, unfinished ones included: too little where threads wait
    for the GIL."""
    queued: float
    """Share of all requests' time that they waited for a thread."""
    used: float
    """CPUs that all workers used, and the busiest one of them."""
    busiest: float
    cpus: float
    throttled: float
    profile: str
    threads: int
    db_budget: bool
    """Whether the share of database connections is what keeps threads few."""

    @property
    def computing(self) -> float:
        if self.samples < MIN_SAMPLES:
            return self.busy
        return self.cpu / (self.cpu + self.wait) if self.cpu + self.wait else 0.0

    @property
    def saturated(self) -> bool:
        """Whether CPUs, or one worker's GIL, give all they have."""
        return (
            self.throttled >= THROTTLED_SHARE
            or self.used >= CPU_FULL_SHARE * self.cpus
            or self.busiest >= CPU_FULL_SHARE
        )

    @property
    def worth(self) -> int:
        """Threads worth having in each worker."""
        return min(
            MAX_THREADS,
            max(
                2, math.ceil(THREADS_PER_COMPUTING / max(self.computing, THREADS_PER_COMPUTING / MAX_THREADS))
            ),
        )


def advise(mix: TrafficProfile) -> Advice | None:
    """Return what to tell; None as long as too little was seen.

    Advice without a kind takes back what was told before.
    """
    waits = waiting_for(mix)
    if mix.samples < MIN_SAMPLES:
        return waits if mix.requests >= MIN_SAMPLES else None
    if waits:
        return waits
    seen = f"requests compute {format_share(mix.computing)} of their time"
    profile = "cpu" if mix.computing > CPU_BOUND_SHARE else "io"
    if profile == "cpu" and mix.busy < MIN_BUSY_SHARE:
        return Advice("", "")  # few are sampled, and the others sleep
    if profile != mix.profile:
        enough = f"{mix.worth} threads in each worker are enough"
        return Advice(f"profile {profile}", f"Consider --profile {profile}: {seen}, so {enough}")
    if profile == "io" and mix.worth > 2 * mix.threads:
        return Advice(
            "more threads", f"Consider --threads {mix.worth}: {seen}, so a worker can run more of them"
        )
    return Advice(FITS, "")


def waiting_for(mix: TrafficProfile) -> Advice | None:
    """Return what would help against the queue; None where requests hardly wait.

    Where no request runs alone, what uses up the CPUs is told even if the queue is short.
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
    return Advice("threads", f"Consider --threads {max(mix.worth, 2 * mix.threads)}: {waits}")
