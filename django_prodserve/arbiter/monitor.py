"""The worker monitor: about once a second it checks every worker, asks the policies, and acts.

Lives in the arbiter, on Gunicorn's main loop. Reads the scoreboard and /proc, sends signals, logs. Never
blocks, touches no database and no user code; what it raises is logged once of each kind and ends nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..logs import nonblocking
from ..scoreboard import history
from ..scoreboard.board import REASONS
from . import policies
from .memory_guard import MemoryGuard
from .policies import Verdict
from .stack_reports import StackReports
from .traffic_sampler import TrafficSampler
from .worker_pool import WorkerHandle

if TYPE_CHECKING:
    from .interface import ArbiterActions

SURVEY_SECONDS = 15.0
"""Seconds between two looks at what traffic was like."""


class WorkerMonitor:
    """What the arbiter remembers from one look to the next."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.boot, self.starved = policies.BOOT_SECONDS, policies.STARVED_SECONDS
        self.memory, self.reports = MemoryGuard(arbiter), StackReports(arbiter)
        self.survey = TrafficSampler(arbiter.board, arbiter.pool, arbiter.plan)
        self.next_survey, self.survey_every = 0.0, SURVEY_SECONDS
        self.throttling = 0.0
        self.last_frozen = -policies.MIN_AGE_SECONDS
        self.next_look = 0.0
        self.raised: set[str] = set()

    def tick(self) -> None:
        """Look at all there is to look at, each by itself."""
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + 0.9
            for step in (
                self.reports.log_answers,
                self.kill_overdue,
                self.stuck,
                self.recycle,
                self.arbiter.recovered,
                self.arbiter.start_deferred,
                self.advise,
                self.record_history,
                self.log_lost_lines,
            ):
                self.run_guarded(step, now)
        self.run_guarded(self.memory.check, now)

    def run_guarded(self, step: Callable[..., object], *arguments: object) -> None:
        """Do something that must not end the server whatever it raises; log each kind of that once."""
        try:
            step(*arguments)
        except Exception as error:
            kind = f"{step.__name__} {type(error).__name__}"
            if kind not in self.raised:
                self.raised.add(kind)
                self.log.exception("Looking after the workers failed in %s; the server goes on.", kind)
                self.arbiter.record_event("failed", f"Looking after the workers failed in {kind}")

    def log_lost_lines(self, now: float) -> None:
        """Write what logs did not take before, and tell what they have lost."""
        for line in nonblocking.report_lost(now):
            self.log.error("%s", line)

    def is_silent(self, member: WorkerHandle) -> bool:
        """Say whether a worker's event loop has stood still for too long."""
        now = time.monotonic()
        return policies.is_unresponsive(member.update(now, 0), self.frozen_for(now)) is not None

    def waiting(self) -> int:
        """Return how many connections wait to be accepted."""
        return sum(max(0, each.get_backlog() or 0) for each in self.arbiter.LISTENERS)

    # Stuck workers.

    def stuck(self, now: float) -> None:
        """Replace workers that hang at boot, stand still or finish nothing while others wait."""
        waiting = self.waiting()
        for member in self.arbiter.pool.active():
            seen = member.update(now, 0)
            if verdict := policies.hangs_at_boot(seen, self.boot):
                self.log.error("Worker %s %s: it is killed.", seen.pid, verdict.line)
                self.arbiter.record_event("boot", f"Worker {seen.pid} {verdict.line}: it is killed")
                self.reports.ask(member, verdict)
                self.arbiter.pool.mark_leaving(member, "boot", now + 1.0)
                self.arbiter.start_failed("")
                continue
            verdict = policies.is_unresponsive(seen, self.frozen_for(now)) or policies.is_starved(
                seen, waiting + member.slot.queue, self.starved
            )
            if verdict is not None and self.arbiter.replace(member, verdict):
                self.reports.ask(member, verdict)
                self.last_frozen = now if self.is_silent(member) else self.last_frozen

    def frozen_for(self, now: float) -> float:
        """Return how long a worker may stand still now."""
        return policies.unresponsive_limit(self.arbiter.timeout, now - self.last_frozen)

    def recycle(self, now: float) -> None:
        """Replace workers that have asked for it; who must wait is asked again."""
        for member in self.arbiter.pool.active():
            if number := member.slot.replacement_reason:
                reason = REASONS[number - 1]
                if self.arbiter.pool.mark_for_replacement(member.pid, reason):
                    self._log_replaced(member, reason)
                    if reason == "stuck":
                        self.reports.ask(member, Verdict(reason, "could not end a request"))
        longest = self.arbiter.plan.max_lifetime.value
        for member in self.arbiter.pool.active() if longest else ():
            if now - member.born > longest and self.arbiter.pool.mark_for_replacement(
                member.pid, "max-lifetime"
            ):
                self._log_replaced(member, "max-lifetime")

    def _log_replaced(self, member: WorkerHandle, reason: str) -> None:
        self.log.notice("Worker %s is replaced: %s.", member.pid, reason)
        if reason != "stuck":  # the worker has told which request it could not end
            self.arbiter.record_event(reason, f"Worker {member.pid} is replaced: {reason}")

    def kill_overdue(self, now: float) -> None:
        """Kill workers that were told to go and have not."""
        for member in self.arbiter.pool.leaving():
            if now <= member.slot.deadline:
                continue
            if not member.killed:
                member.killed = True
                self.reports.ask(member, Verdict(member.leaving, "did not end in time and is killed"))
            else:
                self.arbiter.kill_worker(member.pid, signal.SIGKILL)

    def advise(self, now: float) -> None:
        """Tell what fits the traffic, when there is something new to tell."""
        if now < self.next_survey:
            return
        self.next_survey = now + self.survey_every
        if advice := self.survey.tick(now):
            self.arbiter.log_line(advice=advice.line, advice_kind=advice.kind)
            self.log.notice("advice    %s", advice.line)
            self.arbiter.record_event("advice", advice.line)
        if self.survey.throttling != self.throttling:
            self.throttling = self.survey.throttling
            told = (
                f"cuts short {self.throttling:.0%} of its periods" if self.throttling else "is enough again"
            )
            self.arbiter.record_event("throttled", f"The CPU quota {told}")

    def record_history(self, now: float) -> None:
        """Leave a sample of the counters, and what only the arbiter knows."""
        board = self.arbiter.board
        self.memory.measure(new_alone=True)
        board.count_waiting(self.waiting())
        history.write(board.history, board.sample(time.time(), now, board.totals()))
