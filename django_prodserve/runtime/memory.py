"""How much memory the server uses and may use, for the tick.

Lives in the arbiter, main loop. Reads /proc and the control group; what cannot be read is not known.
"""

from __future__ import annotations

from pathlib import Path

from ..cgroups import Cgroups, Level, Tree, parse_amount, parse_table
from ..footprint import read_memory
from .policies import Room


class MemoryOf:
    """The memory of this server's container, or of its machine."""

    def __init__(self, limit: int | None, root: Path = Path("/")) -> None:
        self.cgroups = Cgroups.find(Tree(root))
        found = min(self.cgroups.memory_limits(), key=lambda each: each.size, default=None)
        tightest = min((size for size in (limit, found and found.size) if size), default=None)
        self.limit = tightest
        # The group accounts for this server only if it is the group that limits it.
        self.level: Level | None = found.level if found is not None and found.size == tightest else None
        version = self.cgroups.group("memory").version
        self.current = "memory.current" if version == 2 else "memory.usage_in_bytes"
        self.master = read_memory().size
        self.kills = self.count_kills()
        self.before = (0, 0.0)

    def room(self, now: float) -> Room | None:
        """Return the limit and what is used of it now; None where nothing limits."""
        if self.limit is None:
            return None
        used = self.used(self.level) if self.level else None
        room = Room(limit=self.limit, used=used, master=self.master, growth=self._growth(used or 0, now))
        self.before = (used or 0, now)
        return room

    def firm_room(self, now: float) -> Room | None:
        """Return the limit and what is used of it for good, no file pages; None where nobody says."""
        used = self.cgroups.memory_used(self.level, firm=True) if self.level else None
        if self.limit is None or used is None:
            return None
        return Room(limit=self.limit, used=used, master=self.master)

    def used(self, level: Level) -> int | None:
        """Return the bytes in use; file pages that the kernel may drop are left out where it matters."""
        used = parse_amount(self.cgroups.tree.read(level.file(self.current)) or "")
        if used is None or self.limit is None or used < self.limit / 2:
            return used
        return self.cgroups.memory_used(level)

    def _growth(self, used: int, now: float) -> float:
        before, then = self.before
        return max(0.0, (used - before) / (now - then)) if then and now > then else 0.0

    def count_kills(self) -> int:
        """Return how many processes of the group the kernel has killed for memory."""
        group = self.cgroups.group("memory")
        if not group.levels:
            return 0
        name = "memory.events" if group.version == 2 else "memory.oom_control"
        text = self.cgroups.tree.read(group.levels[0].file(name)) or ""
        return parse_amount(parse_table(text).get("oom_kill", "")) or 0

    def was_killer(self) -> bool:
        """Say whether the kernel has killed one more process for memory than is accounted for."""
        if self.count_kills() <= self.kills:
            return False
        self.kills += 1
        return True
