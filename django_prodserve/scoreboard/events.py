"""Events of a server, for operators: replacements, reloads, slow requests, hung workers, crashes.

The arbiter writes a ring of events on its main loop, and each worker a small one on its main thread. The
arbiter copies a worker's ring when the worker is gone (board.py). Pure but for the shared memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .ring import Entry, Ring

ENTRIES, WORKER_ENTRIES = 64, 4
SIZE = 3072
"""Bytes of an event: a line, and the last 30 or so lines of a stack."""
_LINE = 500

BAD, WARN, GOOD, PLAIN = "bad", "warn", "ok", ""
CRASHES = ("crashed", "killed", "out of memory", "hung", "boot", "failed")
"""Kinds of events in which a worker, or all of them, ended or could not start."""
SEVERITY = {
    **dict.fromkeys(CRASHES, BAD),
    **dict.fromkeys(("stacks", "timeout", "overload", "reload failed"), BAD),
    **dict.fromkeys(("process ended",), BAD),
    **dict.fromkeys(("slow", "memory", "process memory", "throttled", "loop blocked", "lane"), WARN),
    **dict.fromkeys(("certificate expires", "certificate refused"), WARN),
    **dict.fromkeys(("start", "reload", "process recovered", "overload over", "throttling over"), GOOD),
    **dict.fromkeys(("certificate renewed",), GOOD),
    **dict.fromkeys(("max-requests", "max-lifetime", "fewer wanted", "asked", "advice"), PLAIN),
}
"""Every kind of event and its severity: the live page, ``status`` and its JSON use this table."""


class Event(NamedTuple):
    """``kind`` is a key of SEVERITY; many are reasons of board.REASONS."""

    time: float
    """Seconds since 1970."""
    kind: str
    text: str
    stack: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "level": SEVERITY.get(self.kind, PLAIN)}


def write(ring: Ring, event: Event) -> None:
    """Record an event for readers; a line and a stack that are too long are truncated."""
    line = event.text.replace("\0", " ")[:_LINE]
    ring.add(event.time, f"{event.kind}\0{line}\0{event.stack}".encode("utf-8", "replace"))


def read(rings: Iterable[Ring]) -> list[Event]:
    """Return the events of all these rings, the oldest first; an event in two rings appears once."""
    found = {_event(entry): None for ring in rings for entry in ring.read()}
    return sorted(found, key=lambda event: event.time)


def last_of(events: Sequence[Event], *kinds: str) -> Event | None:
    """Return the last event of one of these kinds."""
    return next((event for event in reversed(events) if event.kind in kinds), None)


def _event(entry: Entry) -> Event:
    kind, text, stack = [*entry.text.decode("utf-8", "ignore").split("\0", 2), "", ""][:3]
    return Event(entry.time, kind, text, stack)


def innermost(stack: str, size: int = SIZE - 700) -> str:
    """Return the end of a stack as Python prints it, the innermost calls, in complete lines."""
    if len(stack.encode("utf-8", "replace")) <= size:
        return stack
    end = stack.encode("utf-8", "replace")[-size:].decode("utf-8", "ignore")
    return f"  ...\n{end.partition(chr(10))[2]}"
