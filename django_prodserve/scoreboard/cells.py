"""Attributes of a slot that are cells of the shared memory. Pure."""

from __future__ import annotations

from typing import Protocol


class Cells(Protocol):
    """A slot: views of the shared memory, and the number of its first cell."""

    whole: memoryview[int]
    seconds: memoryview[float]
    at: int


class Whole:
    """A whole number in a slot."""

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def __get__(self, slot: Cells, owner: type[Cells]) -> int:
        return slot.whole[slot.at + self.cell]

    def __set__(self, slot: Cells, value: int) -> None:
        slot.whole[slot.at + self.cell] = value


class Seconds:
    """A number of seconds, or a monotonic time, in a slot."""

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def __get__(self, slot: Cells, owner: type[Cells]) -> float:
        return slot.seconds[slot.at + self.cell]

    def __set__(self, slot: Cells, value: float) -> None:
        slot.seconds[slot.at + self.cell] = value
