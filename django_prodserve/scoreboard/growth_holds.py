"""What keeps the threads of a worker from growing: the one list for the worker, status, page and metrics."""

from __future__ import annotations

MAXIMUM = "maximum"
GROWTH_HOLDS = {
    "": "",
    "cpu": "no more while the CPU is busy",
    MAXIMUM: "the maximum",
    "slower": "no more while requests take longer than usual",
}
"""Each reason with its words; ``Slot.growth_hold`` is its position."""


def reason(number: int) -> str:
    """Return the reason at this position."""
    return [*GROWTH_HOLDS][number]


def in_words(number: int, limit: str = "") -> str:
    """Return the words for it; ``limit`` names what sets the maximum of the threads."""
    found = reason(number)
    return f"{GROWTH_HOLDS[found]} ({limit})" if limit and found == MAXIMUM else GROWTH_HOLDS[found]
