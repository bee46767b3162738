"""The worker monitor: about once a second it checks every worker, applies the policies, and acts.

Lives in the arbiter, on Gunicorn's main loop. Reads the scoreboard and /proc, sends signals, logs. Never
blocks, uses no database and no user code. Each kind of exception is logged once and does not stop the server.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..logs import nonblocking
from ..machine.quota import Throttling, throttling
from ..scoreboard import history
from ..scoreboard.board import REASONS
from ..scoreboard.events import Event, last_of
from ..utils.units import format_age, format_share
from . import policies
from .certificate_watch import CertificateWatch
from .learner import TrafficLearner
from .memory_guard import MemoryGuard
from .overload import CALM_SECONDS, OverloadWatch, overloaded
from .policies import Verdict
from .quota_watch import QuotaWatch
from .room_watch import RoomWatch
from .stack_reports import StackReports
from .traffic_sampler import TrafficSampler
from .worker_pool import WorkerHandle

if TYPE_CHECKING:
    from .interface import ArbiterActions

SURVEY_SECONDS = 5.0
"""Interval between two evaluations of the traffic."""


class WorkerMonitor:
    """The arbiter's state from one tick to the next."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.boot, self.starved = policies.BOOT_SECONDS, policies.STARVED_SECONDS
        self.memory, self.reports = MemoryGuard(arbiter), StackReports(arbiter)
        self.survey = TrafficSampler(arbiter.board, arbiter.pool, arbiter.plan)
        self.learner = TrafficLearner(arbiter.board, arbiter.pool, arbiter.plan, arbiter.log)
        self.next_survey, self.survey_every = 0.0, SURVEY_SECONDS
        self.room = RoomWatch(arbiter.pool, arbiter.plan, self.survey.cgroups, self.survey.cpu)
        self.quota, self.throttled_since = QuotaWatch(), 0.0
        self.overload = OverloadWatch()
        self.certificates = CertificateWatch(
            arbiter, arbiter.plan.certificates, arbiter.tls, arbiter.renewals
        )
        self.last_frozen = -policies.MIN_AGE_SECONDS
        self.next_look = 0.0
        self.raised: set[str] = set()

    def tick(self) -> None:
        """Run every check, each guarded against the errors of the others."""
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + 0.9
            for step in (
                self.reports.log_answers,
                self.kill_overdue,
                self.hung,
                self.recycle,
                self.arbiter.recovered,
                self.arbiter.start_deferred,
                self.arbiter.sides.complete,
                self.advise,
                self.watch_quota,
                self.watch_overload,
                self.watch_certificates,
                self.record_history,
                self.learn,
                self.log_lost_lines,
            ):
                self.run_guarded(step, now)
        self.run_guarded(self.memory.check, now)

    def run_guarded(self, step: Callable[..., object], *arguments: object) -> None:
        """Run a step that must not end the server, whatever it raises; log each kind of exception once."""
        try:
            step(*arguments)
        except Exception as error:
            kind = f"{step.__name__} {type(error).__name__}"
            if kind not in self.raised:
                self.raised.add(kind)
                self.log.exception("Internal error in supervision step %s; continuing.", kind)
                self.arbiter.record_event("failed", f"Internal error in supervision step {kind}")

    def log_lost_lines(self, now: float) -> None:
        """Write lines that logs did not accept before, and report lost lines."""
        for line in nonblocking.report_lost(now):
            self.log.error("%s", line)

    def is_silent(self, member: WorkerHandle) -> bool:
        """Return whether a worker's event loop has been blocked for too long."""
        now = time.monotonic()
        return policies.is_unresponsive(member.update(now, 0), self.frozen_for(now)) is not None

    def waiting(self) -> int:
        """Return how many connections wait in the accept queue."""
        return sum(max(0, listener.get_backlog() or 0) for listener in self.arbiter.LISTENERS)

    # Hung workers.

    def hung(self, now: float) -> None:
        """Replace workers that hang at boot, are unresponsive, or finish nothing while requests wait."""
        waiting = self.waiting()
        for member in self.arbiter.pool.active():
            seen = member.update(now, 0)
            if verdict := policies.hangs_at_boot(seen, self.boot):
                self.log.error("Worker %s %s; killing it.", seen.pid, verdict.line)
                self.arbiter.record_event("boot", f"Worker {seen.pid} {verdict.line}; killing it")
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
        """Return how long a worker's event loop may be blocked at present."""
        return policies.unresponsive_limit(self.arbiter.timeout, now - self.last_frozen)

    def recycle(self, now: float) -> None:
        """Replace workers that have requested it; one that must wait requests it again."""
        for member in self.arbiter.pool.active():
            if number := member.slot.replacement_reason:
                reason = REASONS[number - 1]
                if self.arbiter.pool.mark_for_replacement(member.pid, reason):
                    self._log_replaced(member, reason)
                    if reason == "hung":
                        self.reports.ask(member, Verdict(reason, "could not end a request"))
        longest = self.arbiter.plan.max_lifetime.value
        for member in self.arbiter.pool.active() if longest else ():
            if now - member.born > longest and self.arbiter.pool.mark_for_replacement(
                member.pid, "max-lifetime"
            ):
                self._log_replaced(member, "max-lifetime")

    def _log_replaced(self, member: WorkerHandle, reason: str) -> None:
        self.log.notice("Worker %s is replaced: %s.", member.pid, reason)
        if reason != "hung":  # the worker has logged which request it could not end
            self.arbiter.record_event(reason, f"Worker {member.pid} is replaced: {reason}")

    def kill_overdue(self, now: float) -> None:
        """Kill workers that were asked to stop and have not."""
        for member in self.arbiter.pool.leaving():
            if now <= member.slot.deadline:
                continue
            if not member.killed:
                member.killed = True
                self.reports.ask(member, Verdict(member.leaving, "did not end in time and is killed"))
            else:
                self.arbiter.kill_worker(member.pid, signal.SIGKILL)

    def advise(self, now: float) -> None:
        """Report settings that would suit the traffic better, if new."""
        if now < self.next_survey:
            return
        self.next_survey = now + self.survey_every
        if advice := self.survey.tick(now):
            self.arbiter.log_line(advice=advice.line, advice_kind=advice.kind)
            self._report_advice(advice.line)

    def learn(self, now: float) -> None:
        """Learn from the traffic for the next start, once this generation serves."""
        if self.arbiter.all_ready:
            throttled = self.quota.share > 0
            self._report_advice(self.learner.tick(now, time.time(), throttled=throttled))

    def learn_last(self) -> None:
        """Keep what the traffic has shown since the last span, before this generation ends."""
        self._report_advice(self.learner.end(time.monotonic(), time.time()))

    def _report_advice(self, line: str) -> None:
        if line:
            self.log.notice("advice    %s", line)
            self.arbiter.record_event("advice", line)

    def watch_quota(self, now: float) -> None:
        """Report when the CPU quota begins to throttle this server, and when it no longer does."""
        self.process_quota(now, time.time(), throttling(self.survey.cgroups))

    def process_quota(self, now: float, wall: float, told: Throttling) -> None:
        """Do that with these counters."""
        if not self.quota.tick(now, told):
            return
        if self.quota.share:
            self.throttled_since = wall
            share = format_share(self.quota.share)
            self._warn("throttled", f"The CPU quota throttles this server in {share} of its periods")
        else:
            lasted = format_age(wall - self.throttled_since)
            self._warn("throttling over", f"The CPU quota is enough again; it throttled for {lasted}")

    def _warn(self, kind: str, text: str) -> None:
        """Log a warning and record it as an event."""
        self.log.warning("%s.", text)
        self.arbiter.record_event(kind, text)

    def watch_overload(self, now: float) -> None:
        """Report when the server begins and stops refusing requests: once for all workers."""
        load = overloaded([member.slot for member in self.arbiter.pool.active()])
        if self.overload.begin(now, load):
            self._warn("overload", f"Overloaded: {load}")
        elif load is None:
            self.end_overload(now)

    def watch_certificates(self, now: float) -> None:
        """Take renewed certificates over, and warn before one expires, once this generation serves."""
        if self.arbiter.all_ready:
            self.certificates.tick(now)

    def end_overload(self, now: float, calm: float = CALM_SECONDS) -> None:
        """Report that an overload is over, after so many calm seconds; after none if this generation ends."""
        if text := self.overload.end(now, self.arbiter.board.refused, calm):
            self._warn("overload over", f"Overload {text}")

    def resume(self, events: Sequence[Event]) -> None:
        """Continue or close conditions whose start the previous generation has reported, but not the end."""
        self.certificates.resume(events)
        if last_open(events, "overload", "overload over"):
            self.arbiter.record_event(
                "overload over", "The overload ended with a reload, or continues in the new generation"
            )
        if began := last_open(events, "throttled", "throttling over"):
            self.throttled_since = began.time
            self.quota.share = 1.0

    def record_history(self, now: float) -> None:
        """Record a sample of the counters, and values that only the arbiter knows."""
        board, tally = self.arbiter.board, self.arbiter.board.totals()
        self.memory.measure(new_alone=True)
        board.count_waiting(self.waiting())
        history.write(board.history, board.sample(time.time(), now, tally))
        if (found := self.room.tick(now, tally)) is not None:
            self.arbiter.log_line(room=found.facts())


def last_open(events: Sequence[Event], begin: str, end: str) -> Event | None:
    """Return the last event of a kind that no event of the ending kind has followed."""
    found = last_of(events, begin, end)
    return found if found is not None and found.kind == begin else None
