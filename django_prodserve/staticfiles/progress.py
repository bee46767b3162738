"""The progress of collecting static files, in memory shared by the collecting process and its parent.

The child process counts, and the command's process shows the count. Standard library alone.
"""

from __future__ import annotations

import mmap

READ, COLLECT, HASH, COMPRESS = range(4)
_TITLES = ("reading", "collecting", "hashing", "compressing")
_PHASE, _DONE, _TOTAL = range(3)


class FileCount:
    """The files of a phase: how many are finished, and how many there are."""

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 24)).cast("q")

    def begin(self, phase: int, total: int) -> None:
        """Begin a phase with this many files."""
        self._cells[_DONE], self._cells[_TOTAL], self._cells[_PHASE] = 0, total, phase

    def advance(self, phase: int) -> None:
        """Count one more finished file, if this is the phase."""
        if self._cells[_PHASE] == phase:
            self._cells[_DONE] += 1

    def __str__(self) -> str:
        phase, done, total = self._cells
        title = f"{_TITLES[phase]} static files"
        return f"{title}: {min(done, total)}/{total}" if total else title
