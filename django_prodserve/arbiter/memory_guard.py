"""Keep the server below its memory limit: measure use, replace workers, and check reloads for room.

Lives in the arbiter, main loop; ``Headroom`` also in a new generation's process, before it loads the project.
Reads /proc and the control group; values that cannot be read are unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProdserveError
from ..machine.cgroups import Cgroups, FileRoot, Level, parse_amount, parse_table
from ..machine.proc_memory import read_memory
from ..plan.sizing import REPLACE_SHARE
from ..utils.units import format_size
from . import policies
from .policies import MemoryBudget, Verdict, WorkerState

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from .interface import ArbiterActions

MEASURE_SECONDS = 15.0
"""Seconds between two measurements; reading a worker's PSS holds its memory lock for about 1 ms."""
MEASURE_ALONE_SECONDS = 4.0
"""The same if no control group shows how much this server uses: operators must read it within 5 s."""


class MemoryMonitor:
    """The memory of this server's container, or of its machine."""

    def __init__(self, limit: int | None, root: Path = Path("/"), beside: int = 0) -> None:
        self.cgroups = Cgroups.find(FileRoot(root))
        found = min(self.cgroups.memory_limits(), key=lambda limit: limit.size, default=None)
        tightest = min((size for size in (limit, found and found.size) if size), default=None)
        self.limit = tightest
        # The group accounts for this server only if it is the group that limits it.
        self.level: Level | None = found.level if found is not None and found.size == tightest else None
        version = self.cgroups.group("memory").version
        self.current = "memory.current" if version == 2 else "memory.usage_in_bytes"
        self.master = read_memory().size
        self.beside = beside
        """Planned for processes alongside the workers."""
        self.kills = self.count_kills()
        self.before = (0, 0.0)

    def budget(self, now: float) -> MemoryBudget | None:
        """Return the limit and the memory in use now; None if there is no limit."""
        if self.limit is None:
            return None
        used = self.used(self.level) if self.level else None
        room = MemoryBudget(
            limit=self.limit, used=used, master=self.master + self.beside, growth=self._growth(used or 0, now)
        )
        self.before = (used or 0, now)
        return room

    def firm_budget(self) -> MemoryBudget | None:
        """Return the limit and the unreclaimable memory in use, without file pages; None if unknown."""
        used = self.cgroups.memory_used(self.level, firm=True) if self.level else None
        if self.limit is None or used is None:
            return None
        return MemoryBudget(limit=self.limit, used=used, master=self.master)

    def used(self, level: Level) -> int | None:
        """Return the bytes in use, without file pages that the kernel may drop if that matters."""
        used = parse_amount(self.cgroups.tree.read(level.file(self.current)) or "")
        if used is None or self.limit is None or used < self.limit / 2:
            return used
        return self.cgroups.memory_used(level)

    def _growth(self, used: int, now: float) -> float:
        before, then = self.before
        return max(0.0, (used - before) / (now - then)) if then and now > then else 0.0

    def count_kills(self) -> int:
        """Return how many processes of the group the OOM killer has killed."""
        group = self.cgroups.group("memory")
        if not group.levels:
            return 0
        name = "memory.events" if group.version == 2 else "memory.oom_control"
        text = self.cgroups.tree.read(group.levels[0].file(name)) or ""
        return parse_amount(parse_table(text).get("oom_kill", "")) or 0

    def was_killer(self) -> bool:
        """Return whether the OOM killer has killed one more process than is accounted for."""
        if self.count_kills() <= self.kills:
            return False
        self.kills += 1
        return True


class MemoryGuard:
    """Replaces the worker that uses the most memory before the kernel kills one."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.memory = MemoryMonitor(arbiter.plan.memory.value, beside=arbiter.plan.side_memory.value)
        self.patience = 0.05
        """Seconds until the next memory check."""
        self.last_replaced = -policies.MIN_AGE_SECONDS
        self.next_measuring = 0.0

    def check(self, now: float) -> None:
        """Replace the worker that uses the most memory before the kernel kills one."""
        pool = self.arbiter.pool
        room = self.memory.budget(now)
        self.arbiter.board.count_memory(self.memory.limit or 0, (room and room.used) or self.taken())
        self.patience = policies.until_next_look(room)
        self.arbiter.sides.log_kills(self.was_killer)
        if room is None:
            return
        if room.soon > REPLACE_SHARE * room.limit or now >= self.next_measuring:
            self.next_measuring = now + (MEASURE_ALONE_SECONDS if room.used is None else MEASURE_SECONDS)
            self.measure()
        self.arbiter.sides.check_memory(room, now)
        room = room.without(sum(member.slot.memory for member in pool.leaving()))
        planned = self.arbiter.plan.worker_memory.value
        seen = [member.update(now, planned) for member in pool.serving() if member.slot.memory]
        since_last = now - self.last_replaced if self.last_replaced else policies.MIN_AGE_SECONDS
        found = policies.largest_to_replace(seen, room, since_last)
        if found is not None:
            self._replace(*found, now)

    def was_killer(self) -> bool:
        """Return whether the OOM killer has killed one more process than is accounted for."""
        return self.memory.was_killer()

    def taken(self) -> int:
        """Return the memory at the last measurement, and that of the arbiter at its start."""
        workers = sum(member.slot.memory for member in self.arbiter.pool)
        return self.memory.master + workers + self.arbiter.sides.memory

    def _replace(self, seen: WorkerState, verdict: Verdict, at_once: bool, now: float) -> None:
        member = self.arbiter.pool.members[seen.pid]
        if at_once:
            text = f"Worker {seen.pid} {verdict.line}; stopping it before the OOM killer does"
            self.log.warning("%s.", text)
            self.arbiter.record_event(verdict.reason, text)
            self.arbiter.let_go(member, verdict.reason)
            self.last_replaced = now
        elif self.arbiter.replace(member, verdict):
            self.last_replaced = now

    def measure(self, *, new_alone: bool = False) -> None:
        """Read the memory of every worker and process, or only that of workers not yet measured."""
        self.arbiter.sides.measure(new_alone=new_alone)
        for member in self.arbiter.pool:
            if new_alone and (member.slot.memory or not member.serving):
                continue
            try:
                member.slot.memory = read_memory(Path(f"/proc/{member.pid}")).size
            except OSError:  # the worker has ended
                continue


class Headroom:
    """The memory that a generation may take while another one serves: a reload must not end the old one.

    If memory holds only some of the new workers alongside the old ones, the generation begins with those. It
    starts the others when the old workers have released theirs. If memory holds none, the reload is refused.
    """

    def __init__(self, plan: Plan) -> None:
        self.memory = MemoryMonitor(plan.memory.value)
        self.each = policies.startup_memory(plan.worker_memory.value, preloaded=plan.preload.value)
        self.missing = 0
        """Workers that must still be started."""
        self.most = plan.graceful_timeout.value + 3.0
        self.until = 0.0
        """When the previous generation will have ended at the latest; monotonic."""

    def check(self, plan: Plan) -> None:
        """Refuse to load the project if there is not enough memory for one of its workers."""
        room = self.memory.firm_budget()
        needed = max(0, plan.master_memory.value - read_memory().size) + self.each
        if room is not None and not policies.fits_beside(room, 1, needed):
            raise ProdserveError(
                f"Not enough memory to reload: the new release needs about {format_size(needed)} alongside "
                f"the old one ({format_size(room.used or 0)} of {format_size(room.limit)} used).",
                "Restart the server instead, or raise its memory limit.",
            )

    def begin(self, wanted: int) -> int:
        """Return how many workers to begin with: at least one, which ``check`` has ensured."""
        room = self.memory.firm_budget()
        fits = wanted if room is None else policies.fits_beside(room, wanted, self.each)
        count = min(wanted, max(1, fits))
        self.missing = wanted - count
        return count

    def tick(self, now: float) -> int:
        """Return how many more workers may start by now: 0 or 1."""
        if not self.missing:
            return 0
        self.until = self.until or now + self.most
        room = self.memory.firm_budget()
        if now > self.until or room is None or policies.fits_beside(room, 1, self.each):
            self.missing -= 1
            return 1
        return 0
