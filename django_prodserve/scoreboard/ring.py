"""A ring in shared memory: the last few texts of one writer, in entries of the same size.

One thread of one process writes. Readers, in any process, take no lock. An entry's number is 0 during a
write. Readers skip an entry that changed while they read it, and one whose writer died during the write.
"""

from __future__ import annotations

from typing import NamedTuple

from .memory import SharedMemory

_COUNT = 0
_HEAD = 1
# An entry: its number, counted from 1, the wall clock time, the length of its text; then the text.
_NUMBER, _TIME, _LENGTH = range(3)
_ENTRY_HEAD = 3


class Entry(NamedTuple):
    """A text and when it was written, in seconds since 1970."""

    time: float
    text: bytes


class Ring:
    """A view of one ring: ``entries`` of ``size`` bytes each, starting at a cell of eight bytes."""

    __slots__ = ("at", "bytes", "entries", "seconds", "size", "whole")

    def __init__(self, memory: SharedMemory, *, at: int, entries: int, size: int) -> None:
        self.bytes, self.whole, self.seconds = memory.bytes, memory.whole, memory.seconds
        self.at, self.entries, self.size = at, entries, size

    @staticmethod
    def cells(entries: int, size: int) -> int:
        """Return how many cells of eight bytes a ring needs; the size is a multiple of eight."""
        return _HEAD + entries * (_ENTRY_HEAD + size // 8)

    def add(self, time: float, text: bytes) -> None:
        """Write an entry over the oldest one; a text that is too long is truncated."""
        text = text[: self.size]
        number = self.whole[self.at + _COUNT] + 1
        at = self._entry(number)
        first = (at + _ENTRY_HEAD) * 8
        self.whole[at + _NUMBER] = 0
        self.seconds[at + _TIME] = time
        self.whole[at + _LENGTH] = len(text)
        self.bytes[first : first + len(text)] = text
        self.whole[at + _NUMBER] = number
        self.whole[self.at + _COUNT] = number

    def read(self, last: int | None = None) -> list[Entry]:
        """Return the entries, or the last few, the oldest first."""
        count = self.whole[self.at + _COUNT]
        numbers = range(max(1, count - min(last or self.entries, self.entries) + 1), count + 1)
        return [entry for number in numbers if (entry := self._read(number)) is not None]

    def copy_from(self, other: Ring) -> None:
        """Add the entries of a ring whose writer is gone."""
        for entry in other.read():
            self.add(*entry)

    def clear(self) -> None:
        """Remove all entries. Called by the writer, or by the arbiter when the writer is gone."""
        end = self.at + self.cells(self.entries, self.size)
        self.bytes[self.at * 8 : end * 8] = bytes((end - self.at) * 8)

    def _entry(self, number: int) -> int:
        return self.at + _HEAD + (number - 1) % self.entries * (_ENTRY_HEAD + self.size // 8)

    def _read(self, number: int) -> Entry | None:
        at = self._entry(number)
        first = (at + _ENTRY_HEAD) * 8
        if self.whole[at + _NUMBER] != number:
            return None
        length = min(self.whole[at + _LENGTH], self.size)
        entry = Entry(self.seconds[at + _TIME], bytes(self.bytes[first : first + length]))
        return entry if self.whole[at + _NUMBER] == number else None
