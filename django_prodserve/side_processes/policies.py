"""When a process alongside the workers is started again, and how its end is described. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ..plan.sizing import KILL_SHARE, REPLACE_SHARE
from ..utils.units import format_size

STABLE_SECONDS = 10.0
"""Seconds after which a start counts as a success: the next end is the first failure again."""
LONGEST_PAUSE = 30.0
MEMORY_GRACE = 10.0
"""Seconds that a process has to end if memory is short."""
MIN_GROWTH = 1.5
"""A process below this multiple of its planned memory is not restarted: it would soon be no smaller."""


def back_off(failures: int) -> float:
    """Return the pause before the next start after so many failures in a row."""
    return min(LONGEST_PAUSE, 0.25 * 2 ** min(failures - 1, 10)) if failures else 0.0


def ending(status: int) -> str:
    """Return how a process ended: its exit code, or the signal as a negative number."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


@dataclass(frozen=True, kw_only=True)
class SideState:
    """A process as the memory guard sees it; sizes in bytes."""

    index: int
    name: str
    memory: int
    planned: int


def too_large(
    processes: Sequence[SideState], used: int, soon: int, limit: int
) -> tuple[SideState, str, bool] | None:
    """Return the process to restart because memory is short, why, and whether it must end immediately.

    The one that is furthest above its planned memory goes first: a worker that answers requests stays.
    """
    grown = [seen for seen in processes if seen.memory > MIN_GROWTH * seen.planned]
    if not grown or soon < REPLACE_SHARE * limit:
        return None
    seen = max(grown, key=lambda one: one.memory - one.planned)
    sizes = f"uses {format_size(seen.memory)}, {format_size(seen.planned)} are planned"
    why = f"{sizes} ({format_size(used)} of {format_size(limit)} used)"
    return seen, why, soon >= KILL_SHARE * limit
