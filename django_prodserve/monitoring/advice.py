"""What live traffic says about profile, threads and what requests wait for. Pure; standard library alone.

It advises and never changes anything by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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
THROTTLED_SHARE = 0.05
"""Share of the quota's periods that were cut short from which on the quota is what requests wait for."""


class Advice(NamedTuple):
    """``kind`` changes when something new is to be told."""

    kind: str
    line: str


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
    """Share of all requests' time that they computed: too little where threads wait for the GIL."""
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
    """Return what to tell; None as long as too little was seen."""
    if mix.samples < MIN_SAMPLES:
        return advise_on_waiting(mix) if mix.requests >= MIN_SAMPLES else None
    profile = "cpu" if mix.computing > CPU_BOUND_SHARE else "io"
    seen = f"requests compute {mix.computing:.0%} of their time"
    waits = waiting_for(mix)
    if waits:
        kind, remedy = waits
        return Advice(kind, f"{seen} and wait {mix.queued:.0%} of it for {remedy}")
    if profile != mix.profile:
        return Advice(
            f"profile {profile}", f"{seen}: --profile {profile} fits, {mix.worth} threads are enough"
        )
    if profile == "io" and mix.worth > 2 * mix.threads:
        return Advice("more threads", f"{seen}: up to {mix.worth} threads a worker would pay (--threads)")
    return Advice("fits", f"{seen}: profile {mix.profile} with {mix.threads} threads fits")


def advise_on_waiting(mix: TrafficProfile) -> Advice | None:
    """Return what to tell where no request runs alone: what they wait for, in the queue or beside others."""
    waits = waiting_for(mix)
    if waits is None:
        return None
    kind, remedy = waits
    queued = f"{mix.queued:.0%} of their time " if mix.queued >= WAIT_SHARE else ""
    return Advice(kind, f"requests wait {queued}for {remedy}")


def waiting_for(mix: TrafficProfile) -> tuple[str, str] | None:
    """Return what the queue waits for and what would help; None where requests hardly wait."""
    if mix.queued < WAIT_SHARE and not (mix.samples < MIN_SAMPLES and mix.saturated):
        return None
    if mix.throttled >= THROTTLED_SHARE:
        return "quota", f"the CPU quota, which cut short {mix.throttled:.0%} of its periods: raise the limit"
    if mix.used >= CPU_FULL_SHARE * mix.cpus:
        return "cpu", f"CPUs: {mix.used:.1f} of {mix.cpus:g} are in use. More CPUs or faster views help"
    if mix.busiest >= CPU_FULL_SHARE:
        return (
            "gil",
            f"the GIL: a worker uses {mix.busiest:.1f} CPUs and others are idle. More --workers help",
        )
    if mix.db_budget:
        return "db", "threads, which --db-connections keeps few: raise it if the database allows"
    if mix.profile == "cpu" and mix.computing <= CPU_BOUND_SHARE:
        return "profile io", f"threads: --profile io fits, up to {mix.worth} a worker would pay"
    return "threads", f"threads: up to {max(mix.worth, 2 * mix.threads)} a worker would pay (--threads)"
