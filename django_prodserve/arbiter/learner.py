"""Learn from the traffic what suits this project, for the next start: with ``--apply-advice``.

Lives in the arbiter, main loop, about once a second; writes a small file every quarter of an hour, and at the
stop. monitoring/learning.py decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..monitoring.learning import (
    SPAN_SECONDS,
    ServedBy,
    SpanCounter,
    conclude,
    is_news,
    recent,
    replaces,
    since_tune,
)
from ..project import learned_file
from ..scoreboard.growth_holds import reason

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..project.learned import Learned, TrafficSpan
    from ..scoreboard.board import Scoreboard
    from .worker_pool import WorkerPool


class TrafficLearner:
    """The traffic since the last span ended."""

    def __init__(self, board: Scoreboard, pool: WorkerPool, plan: Plan, log: Any) -> None:
        self.board, self.pool, self.plan, self.log = board, pool, plan, log
        self.is_on = plan.apply_advice.value and plan.worker_class.value == "prodserve"
        self.counter: SpanCounter | None = None
        self.before = board.totals()  # workers answer before the first tick
        self.has_failed = False

    def tick(self, now: float, wall: float, *, throttled: bool) -> str:
        """Process one second; return a line if the next start will use something new."""
        if not self.is_on:
            return ""
        if self.counter is None:
            self.counter = SpanCounter(now, self.before)
            return ""
        slots = [member.slot for member in self.pool.active()]
        self.counter.observe(
            now,
            [slot.count_running() for slot in slots],
            sum(slot.cpu_share for slot in slots),
            self._contradiction([slot.growth_hold for slot in slots], throttled=throttled),
        )
        if now - self.counter.began < SPAN_SECONDS:
            return ""
        return self.end(now, wall)

    def end(self, now: float, wall: float) -> str:
        """End the span, and keep it; return a line if the next start will use something new."""
        counter = self.counter
        if counter is None or now <= counter.began:
            return ""
        tally = self.board.totals()
        self.counter = SpanCounter(now, tally)
        try:
            return self._keep(counter.end(now, wall, tally), wall)
        except OSError as error:
            if not self.has_failed:
                self.has_failed = True
                self.log.warning("Cannot keep what the traffic shows: %s.", error)
            return ""

    def _keep(self, span: TrafficSpan, wall: float) -> str:
        """Write the span and what follows from the last day, after those that other servers have written."""
        kept = learned_file.read(wall)
        spans = [*recent(kept.spans, wall), span]
        before = kept.learned
        found = conclude(since_tune(spans, before), self._served_by())
        if found is not None and replaces(found, before):
            learned_file.write(found, spans)
            return _line(found) if is_news(found, before) else ""
        learned_file.write(before, spans)
        return ""

    def _served_by(self) -> ServedBy:
        plan = self.plan
        return ServedBy(
            profile=plan.profile.value,
            workers=plan.workers.value,
            max_threads=plan.max_threads.value,
            cpus=plan.cpus.value,
            memory=plan.memory.value,
        )

    @staticmethod
    def _contradiction(holds: list[int], *, throttled: bool) -> str:
        """Return why this second shows nothing about the project."""
        if "slower" in map(reason, holds):
            return "requests took longer than usual"
        return "the CPU quota throttled the server" if throttled else ""


def _line(found: Learned) -> str:
    sizes = f"profile {found.profile} and {found.threads} threads in each worker"
    return f"The next start begins with {sizes}: {found}"
