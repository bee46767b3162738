"""What each path costs: CPU, wait, database. Pure; standard library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

COMPUTES, WAITS, DATABASE, MIXED = "computes", "waits", "database", "mixed"
"""Kinds of paths."""
DATABASE_SHARE = 0.1
"""Share of a request's time in database queries from which a path counts as one that uses the database. A
query is timed until the database answers. Reading rows and making objects of them takes longer: in a view
that lists 80 users from SQLite, four queries took 13 % of the time, and almost all of the rest followed."""
COMPUTING_SHARE, WAITING_SHARE = 0.8, 0.2
"""Share of CPU time in a request from which a path computes, and to which it waits."""


@dataclass(frozen=True, kw_only=True)
class PathCost:
    """What one request to a path costs on average, alone on the server; times in seconds."""

    path: str
    share: float
    """Of all requests, from 0 to 1."""
    cpu: float
    """CPU time of the server's processes."""
    wait: float
    seconds: float
    """From the request to the end of the response."""
    queries: float = 0.0
    query_seconds: float = 0.0
    thread: bool = True
    """Whether it runs in a thread, and not on the asyncio loop."""
    requests: int = 0
    """How many were measured."""
    statuses: tuple[int, ...] = (200,)

    @property
    def computing(self) -> float:
        """Return the share of its time that it computes."""
        return self.cpu / (self.cpu + self.wait) if self.cpu + self.wait else 0.0

    @property
    def kind(self) -> str:
        """Return what its time goes into."""
        if self.query_seconds >= DATABASE_SHARE * (self.cpu + self.wait) > 0:
            return DATABASE
        if self.computing >= COMPUTING_SHARE:
            return COMPUTES
        return WAITS if self.computing <= WAITING_SHARE else MIXED


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The mean request of all paths, by their shares; times in seconds."""

    cpu: float
    """CPU time of the server's processes..."""
    other: float = 0.0
    """...and of all other processes on these CPUs, such as a database on this machine."""
    wait: float
    thread: float
    """Time during which a request keeps a thread."""
    queries: float
    query_seconds: float
    spread: float = 0.0
    """Squared coefficient of variation of the paths' times: 0 if all take as long."""

    @classmethod
    def of(cls, costs: Sequence[PathCost]) -> Mix:
        """Return the mean of these paths."""
        total = sum(cost.share for cost in costs) or 1.0

        def mean(values: Sequence[float]) -> float:
            return sum(cost.share * value for cost, value in zip(costs, values, strict=True)) / total

        times = [cost.cpu + cost.wait for cost in costs]
        usual = mean(times)
        return cls(
            spread=mean([(time - usual) ** 2 for time in times]) / usual**2 if usual else 0.0,
            cpu=mean([cost.cpu for cost in costs]),
            wait=mean([cost.wait for cost in costs]),
            thread=mean([(cost.cpu + cost.wait) * cost.thread for cost in costs]),
            queries=mean([cost.queries for cost in costs]),
            query_seconds=mean([cost.query_seconds for cost in costs]),
        )

    def under_load(self, cpu: float, other: float) -> Mix:
        """Return the same mix with the CPU time that was measured while many requests ran.

        Alone, a request also pays for waking the worker, and finds its caches cold.
        """
        return replace(self, cpu=cpu, other=other, thread=max(0.0, self.thread + cpu - self.cpu))

    @property
    def computing(self) -> float:
        """Return the share of a request's time that it computes."""
        return self.cpu / (self.cpu + self.wait) if self.cpu + self.wait else 0.0
