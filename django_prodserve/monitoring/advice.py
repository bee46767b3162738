"""Derive advice on what is short from live traffic. Pure; standard library alone.

It only advises and never changes a setting. Advice names what is short by what is measured: the CPU, the GIL
of a worker, the CPU quota, threads, database connections or memory. If nothing is short, the samples of
requests that ran alone may show that another profile suits the traffic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..plan.capacity import CONNECTIONS, MEMORY
from ..utils.units import format_share

MIN_REQUESTS = 20
"""Requests, ended or refused, that a window needs before a statement about them; or as many must run."""
MIN_SAMPLES = 100
"""Samples that a statement about the profile needs: of requests that ran alone in their worker."""
CPU_BOUND_SHARE = 0.5
"""Traffic that computes for more than this share of its time suits profile cpu."""
THREADS_PER_COMPUTING = 1.3
"""Useful threads for each one that could compute all the time (MEASURED: 1.3 x (cpu + io) / cpu)."""
MAX_THREADS = 64
WAIT_SHARE = 0.1
"""Share of a request's time from which waiting for a thread is reported."""
REFUSED_SHARE = 0.05
"""Share of the requests that are refused from which the same is reported: then the queue stays short."""
CPU_FULL_SHARE = 0.85
"""Share of the CPU time in use from which the CPU counts as short."""
THREADS_FULL_SHARE = 0.85
"""Share of the threads in use from which they count as short."""
THROTTLED_SHARE = 0.05
"""Share of the quota's throttled periods from which the quota is the bottleneck."""
WAITING_SERVER_SHARE, SERVER_SHARE = 0.25, 0.5
"""Share of the CPUs that the workers must use before a lack is reported, with a queue and without: other
processes may use the rest, while requests only sleep."""
SLEEPS_SHARE = 0.1
"""Share of their time that requests may compute and mostly sleep: on a busy machine, threads help them."""
KEPT, KEPT_FEW = 0.85, 0.6
"""Factors of these shares, and of the small ones, for advice that has begun to hold: it must not come and go
at a limit."""
MIN_BUSY_SHARE, MAX_BUSY_SHARE = 0.3, 0.6
"""Share of their time that all requests must compute for profile cpu to be advised, and may for profile io.
Threads that sleep in a view lower it immediately, even while samples of quieter minutes show only computing
requests. Two CPU-bound requests at a time have 0.5."""


FITS = "fits"
"""The kind for a plan that suits the traffic: nothing needs to change."""
NO_ADVICE = "", ""
SHORTAGES = "cpu", "gil", "quota", "threads", "db", "memory", "slower"
"""Kinds that name what is short."""
AGREES_WITH_WAITING = {*SHORTAGES, "profile io"}
"""Kinds that would shorten the waits of requests."""


class Advice(NamedTuple):
    """``kind`` changes when there is something new to report."""

    kind: str
    line: str
    """What to consider, and why; empty if there is nothing to do."""

    @property
    def is_slow(self) -> bool:
        """Whether it is about the kind of the traffic, which must hold for longer than a shortage."""
        return self.kind.startswith("profile ")


class SteadyAdvice:
    """Advice that has held for a while; advice that no longer holds is withdrawn at the first evaluation."""

    def __init__(self) -> None:
        self.told = self.candidate = Advice(*NO_ADVICE)
        self.since = 0.0

    def update(self, now: float, advice: Advice, hold: float) -> Advice | None:
        """Process the advice of one evaluation; return the advice to show from now on, if that changes."""
        if advice.kind != self.candidate.kind:
            self.candidate, self.since = advice, now
        if advice.kind == self.told.kind:
            return None
        if now - self.since >= hold:
            self.told = advice
        elif self.told.kind:
            self.told = Advice(*NO_ADVICE)
        else:
            return None
        return self.told


@dataclass(frozen=True, kw_only=True)
class TrafficProfile:
    """The traffic of the last seconds: numbers of CPUs and threads, shares from 0 to 1."""

    requests: int
    """Requests that ended or were refused."""
    running: float
    """How many requests ran at a time in threads, on average, and how many waited."""
    waiting: float
    queued: float
    """Share of the time of the requests that ended, in which they waited for a thread."""
    refused: float
    """Share of the requests that were refused."""
    used: float
    """CPUs that all workers used, the busiest worker alone, and all processes on these CPUs."""
    busiest: float
    used_by_all: float
    cpus: float
    """CPUs that ``used_by_all`` is a part of."""
    throttled: float
    workers: int
    """How many workers serve."""
    threads: int
    """How many threads they may have together."""
    threads_by: str = "threads"
    """Which resource sets that number: one of those in plan/capacity.py."""
    held: str = ""
    """What keeps a worker from starting more threads: one of the scoreboard's GROWTH_HOLDS."""
    limit: str = ""
    """What sets the maximum of the threads, in words."""
    profile: str
    computing: float | None = None
    """Share of their time that requests compute, by the last samples; None if there are too few."""

    @property
    def busy(self) -> float:
        """Return the share of the requests' time that they compute: too low if threads wait for the GIL."""
        return min(1.0, self.used / self.running) if self.running else 0.0

    @property
    def waits(self) -> float:
        """Return the share of the requests' time that they wait for a thread, by those that wait now too."""
        both = self.running + self.waiting
        return max(self.queued, self.waiting / both if both else 0.0)

    @property
    def worth(self) -> int:
        """Useful number of threads in each worker, if enough requests were sampled."""
        computing = THREADS_PER_COMPUTING / MAX_THREADS if self.computing is None else self.computing
        useful = math.ceil(THREADS_PER_COMPUTING / max(computing, THREADS_PER_COMPUTING / MAX_THREADS))
        return min(MAX_THREADS, max(2, useful))


def advise(mix: TrafficProfile, kept: str = "") -> Advice:
    """Return the advice for this traffic; without a kind there is none.

    ``kept``: the kind of the last evaluation, for which lower limits are enough.
    """
    if mix.requests < MIN_REQUESTS and mix.running + mix.waiting < MIN_REQUESTS:
        return Advice(*NO_ADVICE)
    return shortage(mix, kept) or _profile(mix) or Advice(FITS, "")


def shortage(mix: TrafficProfile, kept: str = "") -> Advice | None:
    """Return advice that names what is short; None if nothing is.

    The CPU comes first: more threads would only compete for it.
    """

    def reaches(value: float, limit: float, *kinds: str) -> bool:
        factor = KEPT if limit > 0.5 else KEPT_FEW
        return value >= (factor * limit if kept in kinds else limit)

    waits = reaches(mix.waits, WAIT_SHARE, *SHORTAGES) or reaches(mix.refused, REFUSED_SHARE, *SHORTAGES)
    why = _waits(mix) if waits else "requests slow each other down"
    if reaches(mix.throttled, THROTTLED_SHARE, "quota"):
        share = format_share(mix.throttled)
        return Advice("quota", f"Consider a higher CPU limit: it throttles {share} of its periods, and {why}")
    is_full = reaches(max(mix.used, mix.used_by_all) / mix.cpus, CPU_FULL_SHARE, "cpu")
    if is_full and mix.used >= (WAITING_SERVER_SHARE if waits else SERVER_SHARE) * mix.cpus:
        return Advice("cpu", f"Consider more CPUs or faster views: {_used(mix)}, and {why}")
    if mix.workers < mix.cpus and reaches(mix.busiest, CPU_FULL_SHARE, "gil"):
        used = f"one uses {mix.busiest:.1f} CPUs, the most that its GIL allows, while CPUs are idle"
        return Advice("gil", f"Consider more --workers: {used}, and {why}")
    if not waits or (is_full and mix.busy > SLEEPS_SHARE):
        return None
    if mix.held == "slower":
        return Advice("slower", f"Find what requests wait for: they take longer than usual, and {why}")
    are_busy = reaches(mix.running / max(1, mix.threads), THREADS_FULL_SHARE, "threads", "db", "memory")
    if not are_busy and mix.held != "maximum":
        return None  # they wait for their turn, or threads are about to become more
    return _more_threads(mix, why)


def _more_threads(mix: TrafficProfile, why: str) -> Advice:
    """Return what would allow more threads, where all of them are busy while the CPU is idle."""
    taken = mix.limit or f"all {mix.threads} threads are busy"
    if mix.threads_by == CONNECTIONS:
        return Advice("db", f"Consider a higher --db-connections: {taken}, and {why}")
    if mix.threads_by == MEMORY:
        return Advice("memory", f"Consider more memory for more threads: {taken}, and {why}")
    each = math.ceil(mix.threads / max(1, mix.workers))
    more = max(2 * each, mix.worth if mix.computing is not None else 0)
    busy = f"all {mix.threads} threads are busy and use {mix.used:.1f} of {mix.cpus:g} CPUs"
    return Advice("threads", f"Consider --threads {more}: {busy}, and {why}")


def _waits(mix: TrafficProfile) -> str:
    if mix.refused >= REFUSED_SHARE and mix.refused >= mix.waits:
        return f"{format_share(mix.refused)} of the requests are refused"
    return f"requests wait {format_share(mix.waits)} of their time for a thread"


def _used(mix: TrafficProfile) -> str:
    """Return how many CPUs are in use, and the workers' part if that is the smaller one."""
    used = f"{max(mix.used, mix.used_by_all):.1f} of {mix.cpus:g} CPUs are in use"
    return used if mix.used >= CPU_FULL_SHARE * mix.cpus else f"{used}, {mix.used:.1f} of them by the workers"


def _profile(mix: TrafficProfile) -> Advice | None:
    """Return the profile that suits the traffic better; None if that is not known, or is the plan's."""
    if mix.computing is None:
        return None
    profile = "cpu" if mix.computing > CPU_BOUND_SHARE else "io"
    fits = mix.busy >= MIN_BUSY_SHARE if profile == "cpu" else mix.busy <= MAX_BUSY_SHARE
    if profile == mix.profile or not fits:
        return None
    enough = f"{mix.worth} threads in each worker are enough"
    seen = f"requests compute {format_share(mix.computing)} of their time"
    return Advice(f"profile {profile}", f"Consider --profile {profile}: {seen}, so {enough}")
