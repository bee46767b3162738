"""Memory for two generations at once: a reload must not have the kernel kill the one that serves.

Lives in the process of the new generation: once before it loads the project, then in its arbiter, main loop.
Where memory holds few of its workers beside the old ones it begins with those, and starts the others when the
old ones have given theirs back. Where it holds none, the reload is refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ProdserveError
from ..footprint import read_memory
from ..units import format_size
from . import policies
from .memory import MemoryOf

if TYPE_CHECKING:
    from ..plan import Plan
    from .arbiter import ProdserveArbiter


class Headroom:
    """The memory that a generation may take while another one serves."""

    def __init__(self, plan: Plan) -> None:
        self.memory = MemoryOf(plan.memory.value)
        self.each = policies.fresh(plan.worker_memory.value, preloaded=plan.preload.value)
        self.missing = 0
        """Workers that are still to be started."""
        self.most = plan.graceful_timeout.value + 3.0
        self.until = 0.0
        """When the generation before has ended at the latest; monotonic."""

    def check(self, plan: Plan) -> None:
        """Refuse to load the project where not even one worker of it would fit."""
        room = self.memory.firm_room(time.monotonic())
        needed = max(0, plan.master_memory.value - read_memory().size) + self.each
        if room is not None and not policies.fits_beside(room, 1, needed):
            raise ProdserveError(
                f"Memory holds no second generation: {format_size(room.used or 0)} of "
                f"{format_size(room.limit)} are used, and the new code takes about {format_size(needed)} "
                "more before the old one can go.",
                "Give it more memory, or restart the server: that needs no room for two.",
            )

    def begin(self, wanted: int) -> int:
        """Return with how many workers to begin: one at least, which ``check`` has promised."""
        room = self.memory.firm_room(time.monotonic())
        fits = wanted if room is None else policies.fits_beside(room, wanted, self.each)
        count = min(wanted, max(1, fits))
        self.missing = wanted - count
        return count

    def look(self, arbiter: ProdserveArbiter, now: float) -> None:
        """Start one more worker if there is memory for it by now."""
        if not self.missing or not arbiter.answering:
            return
        self.until = self.until or now + self.most
        room = self.memory.firm_room(now)
        if now > self.until or room is None or policies.fits_beside(room, 1, self.each):
            self.missing -= 1
            arbiter.num_workers += 1
