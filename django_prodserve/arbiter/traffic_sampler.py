"""Collect the data that monitoring/advice.py evaluates, period by period, and report changes.

Lives in the arbiter, main loop, every 15 s. Reads the scoreboard, /proc and the quota's counters.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine.cgroups import Cgroups, FileRoot
from ..machine.proc import cpu_seconds
from ..machine.quota import throttling
from ..monitoring.advice import MIN_SAMPLES, Advice, SteadyAdvice, TrafficProfile, advise
from ..scoreboard import history
from ..scoreboard.slot import GROWTH_HOLDS, Counters

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..scoreboard.board import Scoreboard
    from .worker_pool import WorkerPool

MAX_SURVEY_SECONDS = 600.0
"""Maximum seconds of a period: a rush must not be lost in hours of quiet."""
HOLD_SECONDS = 180.0
"""Seconds for which each period must give the same advice before it is shown: twelve evaluations. This is
longer than caches stay cold after a deployment, or most crawlers and cron jobs run. Operators restart a
server only for a lasting condition."""


@dataclass(frozen=True)
class CounterSnapshot:
    """Counters at the beginning of a period."""

    when: float
    tally: Counters
    cpu: dict[int, float]
    """CPU seconds of each worker, by pid."""
    periods: int
    throttled: int


class TrafficSampler:
    """The traffic since the last mark."""

    def __init__(self, board: Scoreboard, pool: WorkerPool, plan: Plan, root: Path = Path("/")) -> None:
        self.board, self.pool, self.plan = board, pool, plan
        self.cgroups = Cgroups.find(FileRoot(root))
        self.before: CounterSnapshot | None = None
        self.steady, self.hold = SteadyAdvice(), HOLD_SECONDS

    def tick(self, now: float) -> Advice | None:
        """Return advice if it changes; advice without a line withdraws the previous one.

        A period lasts until it has enough samples.
        """
        mark = self.mark(now)
        if self.before is None:
            self.before = mark
            return None
        mix = self.mix(self.before, mark)
        advice = advise(mix)
        if advice is None and mix.samples < MIN_SAMPLES and now - self.before.when < MAX_SURVEY_SECONDS:
            return None
        self.before = mark
        return None if advice is None else self.steady.update(now, advice, self.hold)

    def mark(self, now: float) -> CounterSnapshot:
        """Return the current counters."""
        cpu = {member.pid: cpu_seconds(member.pid) for member in self.pool}
        for member in self.pool:
            member.slot.cpu = cpu.get(member.pid, 0.0)
        told = throttling(self.cgroups)
        return CounterSnapshot(now, self.board.totals(), cpu, told.periods, told.throttled)

    def mix(self, before: CounterSnapshot, after: CounterSnapshot) -> TrafficProfile:
        """Return the traffic between two marks."""
        plan, seconds = self.plan, max(after.when - before.when, 1e-3)
        used = [(after.cpu[pid] - before.cpu.get(pid, 0.0)) / seconds for pid in after.cpu]
        queued = after.tally.queued_sum - before.tally.queued_sum
        latency = after.tally.latency_sum - before.tally.latency_sum
        periods = after.periods - before.periods
        running = self._mean_running(seconds)
        return TrafficProfile(
            samples=after.tally.samples - before.tally.samples,
            requests=after.tally.requests - before.tally.requests,
            cpu=after.tally.cpu_sum - before.tally.cpu_sum,
            wait=after.tally.wait_sum - before.tally.wait_sum,
            busy=min(1.0, sum(used) * seconds / latency, sum(used) / running if running else 1.0)
            if latency
            else 0.0,
            queued=queued / (queued + latency) if queued + latency else 0.0,
            used=sum(used),
            busiest=max(used, default=0.0),
            cpus=plan.cpus.value,
            throttled=(after.throttled - before.throttled) / periods if periods > 0 else 0.0,
            profile=plan.profile.value,
            threads=plan.max_threads.value,
            grows=plan.max_threads.value > plan.threads.value,
            held=self._held(),
            db_budget=plan.database_caps_threads,
        )

    def _held(self) -> str:
        """Return what keeps threads from growing, in most of the workers that have it; empty for nothing."""
        found = Counter(GROWTH_HOLDS[member.slot.growth_hold] for member in self.pool)
        del found[""]
        return found.most_common(1)[0][0] if found else ""

    def _mean_running(self, seconds: float) -> float:
        """Return how many requests ran on average, including those that have not ended."""
        busy = [sample.busy for sample in history.read(self.board.history, max(1, round(seconds)))]
        return sum(busy) / len(busy) if busy else 0.0
