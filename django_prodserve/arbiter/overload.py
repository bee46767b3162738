"""Detect when the server begins to refuse requests because too many wait, and when that is over. Pure.

The monitor calls this about once a second, with data from the scoreboard. Workers detect overload one by one
(worker/admission.py); here it is one overload of the server, however many workers are involved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..scoreboard.slot import REFUSES, Slot
from ..utils.units import counted, format_duration

CALM_SECONDS = 3.0
"""Seconds without a refusal in any worker that end an overload; each worker itself waits for 2 s."""


@dataclass(frozen=True, kw_only=True)
class Overloaded:
    """The workers that serve, at the moment in which an overload begins."""

    wait: float
    """Seconds for which requests waited in the queue of a worker that refuses."""
    busy: int
    limit: int
    """Requests that may run at the same time: fewer than the threads if requests are CPU-bound."""
    threads: int

    def __str__(self) -> str:
        running = f"{self.busy}/{self.limit} threads busy"
        if self.limit < self.threads:
            running = f"{self.busy} requests running, {self.limit} at a time because they are CPU-bound"
        return f"rejecting new requests with 503 (queue wait {format_duration(self.wait)}, {running})"


def overloaded(slots: Sequence[Slot]) -> Overloaded | None:
    """Return the load if one of these workers refuses requests; None if none does."""
    waits = [slot.queue_wait for slot in slots if slot.saturated == REFUSES]
    if not waits:
        return None
    return Overloaded(
        wait=max(waits),
        busy=sum(slot.count_running() for slot in slots),
        limit=sum(slot.concurrency_limit for slot in slots),
        threads=sum(slot.threads for slot in slots),
    )


class OverloadWatch:
    """Stores when the overload began, and how many requests were refused before it."""

    def __init__(self) -> None:
        self.began = self.last = 0.0
        """Monotonic, 0.0 without an overload: its start, and the last tick at which a worker refused."""
        self.refused_before = 0
        """Requests refused until the last tick before it began."""

    def begin(self, now: float, load: Overloaded | None) -> bool:
        """Process one tick; return whether the overload begins with it."""
        if load is None:
            return False
        begins = not self.began
        self.began, self.last = self.began or now, now
        return begins

    def end(self, now: float, refused: int, calm: float = CALM_SECONDS) -> str:
        """Return the line to log if an overload is over; ``refused`` counts all refused requests so far."""
        if not self.began:
            self.refused_before = refused
        if not self.began or now - self.last < calm:
            return ""
        lasted, rejected = format_duration(self.last - self.began), refused - self.refused_before
        self.began, self.refused_before = 0.0, refused
        return f"over after {lasted}: {counted(rejected, 'request')} rejected"
