"""How much memory files may still take, where the temporary directory is memory (tmpfs).

A worker asks before it stores a request body in a file: bytes on a tmpfs count against the memory limit, and
beyond that the kernel kills. Reads /proc and the control group.
"""

from __future__ import annotations

from pathlib import Path

from .cgroups import Cgroups, FileRoot
from .detect import meminfo

MACHINE_RESERVE = 64 * 2**20
"""Bytes of the machine's available memory that files leave to programs."""


class MemoryFiles:
    """The memory that files of this server may take."""

    def __init__(self, share: float, root: Path = Path("/")) -> None:
        self.tree = FileRoot(root)
        self.cgroups = Cgroups.find(self.tree)
        self.limits = self.cgroups.memory_limits()
        self.share = share
        """The share of a memory limit that may be in use."""

    def left(self) -> int:
        """Return how many more bytes files may take, by every memory limit and by the machine's memory."""
        self.tree.notes.clear()
        found = []
        for limit in self.limits:
            used = self.cgroups.memory_used(limit.level, firm=True)
            if used is not None:
                found.append(int(self.share * limit.size) - used)
        available = meminfo(self.tree, "MemAvailable")
        if available is not None:
            found.append(available - MACHINE_RESERVE)
        return max(0, min(found, default=2**63))
