"""What ``prodserve tune`` has found. Pure; standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .costs import Mix, PathCost


@dataclass(frozen=True, kw_only=True)
class Run:
    """The mix with one number of clients: what was predicted, and what was measured; times in seconds."""

    clients: int
    predicted_rate: float
    predicted_latency: float
    rate: float
    mean: float
    p50: float
    p95: float
    p99: float
    failed: float
    """Share of the requests that had no 2xx."""
    cpus: float
    """CPUs that the server used..."""
    client_cpus: float
    """...that the load client used..."""
    other_cpus: float
    """...and that all other programs used."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A path that is not measured, and why."""

    path: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """How to serve this project."""

    profile: str
    workers: int
    threads: int
    """Of each worker at the start..."""
    max_threads: int
    """...and at most."""
    held_by: str
    """What keeps a worker from the threads that it could use: ``connections``, ``memory``, or empty."""
    connections: int
    """Database connections that this server may open; 0 without a database that counts them."""
    memory: int
    """Bytes that the server used after the load."""
    flags: str
    """What to write on the command line, if that differs from the plan."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """All that was measured, predicted and recommended."""

    when: float
    """Seconds since 1970."""
    seconds: float
    requests: int
    """How many requests were sent."""
    settings: str
    python: str
    cpus: float
    planned_cpus: float
    """Those of the plan, and so of each replica."""
    paths: tuple[PathCost, ...]
    skipped: tuple[Skipped, ...]
    mix: Mix
    predicted: float
    """Maximum rate in requests a second, with the load client on the same CPUs..."""
    short: str
    """...and what is short at that rate: a word of plan/capacity.py, or ``shared``."""
    runs: tuple[Run, ...]
    curve: tuple[tuple[int, float, float], ...]
    """Clients, predicted rate and latency."""
    expected: float
    """Requests a second that this machine serves if clients are elsewhere..."""
    expected_per_replica: float
    """...and that a server with the plan's CPUs serves."""
    recommended: Recommendation
    busy: str
    """Why nothing can be concluded: the machine was too busy; empty if it was not."""
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> float:
        """Return the highest rate that was measured."""
        return max((run.rate for run in self.runs), default=0.0)

    @property
    def is_conclusive(self) -> bool:
        """Return whether the figures may be used."""
        return not self.busy

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        found = asdict(self)
        for shown, cost in zip(found["paths"], self.paths, strict=True):
            shown["kind"] = cost.kind
        return {**found, "measured": self.measured, "conclusive": self.is_conclusive}
