"""Collect the data that monitoring/advice.py evaluates, and report changes.

Lives in the arbiter, main loop, every 5 s. Reads the scoreboard, /proc and the quota's counters. What is
short follows from the last seconds; which profile suits the traffic, from samples of up to ten minutes.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine.cgroups import Cgroups, FileRoot
from ..machine.cpu_use import CpuUse
from ..machine.proc import cpu_seconds
from ..machine.quota import throttling
from ..monitoring.advice import MIN_SAMPLES, Advice, SteadyAdvice, TrafficProfile, advise
from ..scoreboard import history
from ..scoreboard.growth_holds import reason
from ..scoreboard.slot import Counters

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..scoreboard.board import Scoreboard
    from .worker_pool import WorkerPool

WINDOW_SECONDS = 15.0
"""Seconds of traffic that are evaluated: a load that has changed fills them within a third of a minute."""
HOLD_SECONDS = 20.0
"""Seconds for which each evaluation must give the same advice before it is shown. With the window, that is
within a minute after the load has changed; a rush of half a minute gives no advice."""
PROFILE_HOLD_SECONDS = 180.0
"""The same for a profile, which needs a restart: longer than caches stay cold after a deployment, or most
crawlers and cron jobs run."""
MAX_SAMPLES_SECONDS = 600.0
"""Maximum age of the oldest sample: a rush must not be lost in hours of quiet."""


@dataclass(frozen=True)
class CounterSnapshot:
    """Counters at one moment."""

    when: float
    tally: Counters
    cpu: dict[int, float]
    """CPU seconds of each worker, by pid..."""
    used: float
    """...and of all processes on the same CPUs."""
    periods: int
    throttled: int


class TrafficSampler:
    """The traffic of the last seconds, and the advice that follows from it."""

    def __init__(self, board: Scoreboard, pool: WorkerPool, plan: Plan, root: Path = Path("/")) -> None:
        self.board, self.pool, self.plan = board, pool, plan
        self.cgroups = Cgroups.find(FileRoot(root))
        self.cpu = CpuUse(self.cgroups)
        self.marks: deque[CounterSnapshot] = deque()
        self.sampled_since: CounterSnapshot | None = None
        self.computing: float | None = None
        """Share of their time that requests compute, by the last samples; None if there are too few."""
        self.steady = SteadyAdvice()
        self.window, self.hold, self.profile_hold = WINDOW_SECONDS, HOLD_SECONDS, PROFILE_HOLD_SECONDS

    def tick(self, now: float) -> Advice | None:
        """Return advice if it changes; advice without a line withdraws the previous one."""
        return self.evaluate(self.mark(now))

    def evaluate(self, mark: CounterSnapshot) -> Advice | None:
        """Do that with these counters, which are newer than those of the last call."""
        marks, now = self.marks, mark.when
        self._follow_samples(mark)
        marks.append(mark)
        while len(marks) > 2 and now - marks[1].when >= self.window:
            marks.popleft()
        if now - marks[0].when < self.window:
            return None
        advice = advise(self.mix(marks[0], mark), self.steady.candidate.kind)
        return self.steady.update(now, advice, self.profile_hold if advice.is_slow else self.hold)

    def _follow_samples(self, mark: CounterSnapshot) -> None:
        """Follow what requests that ran alone show of their computing."""
        since = self.sampled_since or mark
        samples = mark.tally.samples - since.tally.samples
        is_old = mark.when - since.when >= MAX_SAMPLES_SECONDS
        if samples >= MIN_SAMPLES:
            cpu, wait = mark.tally.cpu_sum - since.tally.cpu_sum, mark.tally.wait_sum - since.tally.wait_sum
            self.computing = cpu / (cpu + wait) if cpu + wait > 0 else 0.0
        elif is_old:
            self.computing = None
        self.sampled_since = mark if is_old or samples >= MIN_SAMPLES else since

    def mark(self, now: float) -> CounterSnapshot:
        """Return the current counters."""
        cpu = {member.pid: cpu_seconds(member.pid) for member in self.pool}
        told = throttling(self.cgroups)
        used = self.cpu.seconds() or 0.0
        return CounterSnapshot(now, self.board.totals(), cpu, used, told.periods, told.throttled)

    def mix(self, before: CounterSnapshot, after: CounterSnapshot) -> TrafficProfile:
        """Return the traffic between two marks."""
        plan, seconds = self.plan, max(after.when - before.when, 1e-3)
        used = [(after.cpu[pid] - before.cpu.get(pid, 0.0)) / seconds for pid in after.cpu]
        queued = max(0.0, after.tally.queued_sum - before.tally.queued_sum)
        latency = max(0.0, after.tally.latency_sum - before.tally.latency_sum)
        refused = max(0, after.tally.refused - before.tally.refused)
        ended = max(0, after.tally.requests - before.tally.requests)
        periods = after.periods - before.periods
        running, waiting = self._mean_load(seconds)
        slots = [member.slot for member in self.pool]
        return TrafficProfile(
            requests=ended,
            running=running,
            waiting=waiting,
            queued=queued / (queued + latency) if queued + latency else 0.0,
            refused=min(1.0, refused / ended) if ended else 0.0,
            used=sum(used),
            busiest=max(used, default=0.0),
            used_by_all=max(0.0, after.used - before.used) / seconds,
            cpus=min(self.cpu.cpus, plan.cpus.value),
            throttled=(after.throttled - before.throttled) / periods if periods > 0 else 0.0,
            workers=len(slots),
            threads=sum(slot.max_threads for slot in slots),
            threads_by=plan.threads_by,
            held=self._held(),
            limit=plan.threads_limit,
            profile=plan.profile.value,
            computing=self.computing,
        )

    def _held(self) -> str:
        """Return what keeps threads from growing, in most of the workers that have it; empty for nothing."""
        found = Counter(reason(member.slot.growth_hold) for member in self.pool)
        del found[""]
        return found.most_common(1)[0][0] if found else ""

    def _mean_load(self, seconds: float) -> tuple[float, float]:
        """Return how many requests ran and how many waited, on average, with those that have not ended."""
        samples = [*history.read(self.board.history, max(1, round(seconds)))]
        count = max(1, len(samples))
        return sum(each.busy for each in samples) / count, sum(each.waiting for each in samples) / count
