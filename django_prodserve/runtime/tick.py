"""The tick: about once a second look at every worker, ask the policies, act.

Lives in the arbiter, on Gunicorn's main loop. Reads the board and /proc, sends signals, logs. Never blocks,
touches no database and no user code; what it raises is logged once of each kind and ends nothing.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..footprint import read_memory
from . import history, outlets, policies
from .board import REASONS
from .crew import Member
from .memory import MemoryOf
from .policies import Seen, Verdict
from .slot import SERVING
from .stacks import describe, stack_of, with_a_request, with_requests
from .survey import Survey

if TYPE_CHECKING:
    from .arbiter import ProdserveArbiter

MEASURE_EVERY = 15.0  # seconds; reading a worker's PSS takes about 1 ms of its memory lock


class Tick:
    """What the arbiter remembers from one look to the next."""

    def __init__(self, arbiter: ProdserveArbiter) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.patience, self.boot, self.starved = 0.05, policies.BOOT, policies.STARVED
        self.memory = MemoryOf(arbiter.plan.memory.value)
        self.survey = Survey(arbiter)
        self.next_survey, self.survey_every = 0.0, MEASURE_EVERY
        self.throttling = 0.0
        self.last_frozen = -policies.YOUNG
        self.last_replaced, self.pause = -policies.YOUNG, policies.YOUNG
        self.next_measuring = 0.0
        self.next_look = 0.0
        self.asked: dict[int, str] = {}
        """Workers that were asked for their stacks, by pid, and why."""
        self.raised: set[str] = set()

    def look(self) -> None:
        """Look at all there is to look at, each by itself."""
        now = time.monotonic()
        if now >= self.next_look:
            self.next_look = now + 0.9
            for step in (
                self.tell_stacks,
                self.overdue,
                self.stuck,
                self.wishes,
                self.recovered,
                self.grow,
                self.advise,
                self.remember,
                self.tell_lost_lines,
            ):
                self.safely(step, now)
        self.safely(self.memories, now)

    def safely(self, step: Callable[..., object], *arguments: object) -> None:
        """Do something that must not end the server whatever it raises; log each kind of that once."""
        try:
            step(*arguments)
        except Exception as error:
            kind = f"{step.__name__} {type(error).__name__}"
            if kind not in self.raised:
                self.raised.add(kind)
                self.log.exception("Looking after the workers failed in %s; the server goes on.", kind)
                self.arbiter.event("failed", f"Looking after the workers failed in {kind}")

    def tell_lost_lines(self, now: float) -> None:
        """Write what logs did not take before, and tell what they have lost."""
        for line in outlets.look(now):
            self.log.error("%s", line)

    # Looking.

    def see(self, member: Member, now: float) -> Seen:
        """Return a worker as the policies know it."""
        slot = member.slot
        running = slot.running()
        latest = max([slot.last_end(), *(request.progress for request in running)])
        return Seen(
            pid=member.pid,
            age=now - member.born,
            serving=slot.state == SERVING,
            silent=now - self.heartbeat(member),
            threads=slot.threads,
            busy=len(running),
            idle=now - latest if running else 0.0,
            memory=slot.memory,
            planned=self.arbiter.plan.worker_memory.value,
        )

    def heartbeat(self, member: Member) -> float:
        """Return when the worker's event loop last turned; a worker that just began has turned now."""
        last: float = member.slot.heartbeat
        try:
            beat: float = member.worker.tmp.last_update()
        except (OSError, ValueError):
            return last
        # The file begins with the wall clock's time, which is later than any monotonic one.
        return max(last, beat) if beat <= time.monotonic() else last

    def is_silent(self, member: Member) -> bool:
        now = time.monotonic()
        return policies.stands_still(self.see(member, now), self.frozen_for(now)) is not None

    def waiting(self) -> int:
        """Return how many connections wait to be accepted."""
        return sum(max(0, each.get_backlog() or 0) for each in self.arbiter.LISTENERS)

    # Stuck workers.

    def stuck(self, now: float) -> None:
        """Replace workers that hang at boot, stand still or finish nothing while others wait."""
        waiting = self.waiting()
        for member in self.arbiter.crew.staying():
            seen = self.see(member, now)
            if verdict := policies.hangs_at_boot(seen, self.boot):
                self.log.error("Worker %s %s: it is killed.", seen.pid, verdict.line)
                self.arbiter.event("boot", f"Worker {seen.pid} {verdict.line}: it is killed")
                self.ask_stacks(member, verdict)
                self.arbiter.crew.leave(member, "boot", now + 1.0)
                self.arbiter.failed("")
                continue
            verdict = policies.stands_still(seen, self.frozen_for(now)) or policies.is_starved(
                seen, waiting + member.slot.queue, self.starved
            )
            if verdict is not None and self.arbiter.replace(member, verdict):
                self.ask_stacks(member, verdict)
                self.last_frozen = now if self.is_silent(member) else self.last_frozen

    def frozen_for(self, now: float) -> float:
        """Return how long a worker may stand still now."""
        return policies.frozen_for(self.arbiter.timeout, now - self.last_frozen)

    def wishes(self, now: float) -> None:
        """Replace workers that have asked for it; who must wait is asked again."""
        for member in self.arbiter.crew.staying():
            if wish := member.slot.wish:
                reason = REASONS[wish - 1]
                if self.arbiter.crew.mark(member.pid, reason):
                    self._say_replaced(member, reason)
                    if reason == "stuck":
                        self.ask_stacks(member, Verdict(reason, "could not end a request"))
        longest = self.arbiter.plan.max_lifetime.value
        for member in self.arbiter.crew.staying() if longest else ():
            if now - member.born > longest and self.arbiter.crew.mark(member.pid, "max-lifetime"):
                self._say_replaced(member, "max-lifetime")

    def _say_replaced(self, member: Member, reason: str) -> None:
        self.log.say("Worker %s is replaced: %s.", member.pid, reason)
        if reason != "stuck":  # the worker has told which request it could not end
            self.arbiter.event(reason, f"Worker {member.pid} is replaced: {reason}")

    def overdue(self, now: float) -> None:
        """Kill workers that were told to go and have not."""
        for member in self.arbiter.crew.leaving():
            if now <= member.slot.deadline:
                continue
            if not member.killed:
                member.killed = True
                self.ask_stacks(member, Verdict(member.leaving, "did not end in time and is killed"))
            else:
                self.arbiter.kill_worker(member.pid, signal.SIGKILL)

    def recovered(self, now: float) -> None:
        """Forget failed rounds once workers serve again for a while."""
        serving = self.arbiter.crew.serving()
        for member in serving:
            member.served = True
        self.arbiter.has_served = self.arbiter.has_served or bool(serving)
        if any(now - member.born > 10 and member.born > self.arbiter.last_failure for member in serving):
            self.arbiter.rounds = 0

    def grow(self, now: float) -> None:
        """Start workers that had to wait until another generation gave its memory back."""
        self.arbiter.headroom.look(self.arbiter, now)

    def advise(self, now: float) -> None:
        """Tell what fits the traffic, when there is something new to tell."""
        if now < self.next_survey:
            return
        self.next_survey = now + self.survey_every
        if advice := self.survey.look(now):
            self.arbiter.tell(advice=advice.line, advice_kind=advice.kind)
            self.log.say("advice    %s", advice.line)
            self.arbiter.event("advice", advice.line)
        if self.survey.throttling != self.throttling:
            self.throttling = self.survey.throttling
            told = (
                f"cuts short {self.throttling:.0%} of its periods" if self.throttling else "is enough again"
            )
            self.arbiter.event("throttled", f"The CPU quota {told}")

    def remember(self, now: float) -> None:
        """Leave a sample of the counters, and what only the arbiter knows."""
        board = self.arbiter.board
        self.measure(new_alone=True)
        board.count_waiting(self.waiting())
        history.write(board.history, board.sample(time.time(), now, board.totals()))

    # Stacks.

    def ask_stacks(self, member: Member, verdict: Verdict) -> None:
        """Ask a worker for its stacks: they are told with the next look."""
        self.asked[member.pid] = verdict.line
        if member.slot.pid == member.pid:  # it has registered: the signal would end one that has not
            self.arbiter.stacks.ask(member.slot.index, member.pid)

    def tell_stacks(self, now: float) -> None:
        """Log the stacks of the workers that were asked."""
        for member in self.arbiter.crew:
            if line := self.asked.pop(member.pid, ""):
                text = with_requests(self.arbiter.stacks.read(member.slot.index), member.slot.running(), now)
                self.log.error("Worker %s %s. Its threads:\n%s", member.pid, line, text or "(no answer)")
                self.arbiter.event("stacks", f"Worker {member.pid} {line}", with_a_request(text))

    def ask_unfinished(self) -> None:
        """Ask those for their stacks who have a moment left."""
        for member in self.arbiter.crew:
            self.ask_stacks(member, Verdict("asked", "did not finish in time and is killed"))

    def tell_unfinished(self, member: Member) -> None:
        """Log what a worker was cut off in: each request, and its stack where it was asked for."""
        line, now = self.asked.pop(member.pid, ""), time.monotonic()
        text = self.arbiter.stacks.read(member.slot.index) if line else ""
        running = member.slot.running()
        for request in running:
            stack = stack_of(text, request.ident)
            told = f" Its thread:\n{stack}" if stack else ""
            self.log.warning("Request %s did not finish in time.%s", describe(request, now), told)
        if text and member.killed and not running:  # Gunicorn's own workers do not say what they run
            self.log.warning("Worker %s %s. Its threads:\n%s", member.pid, line, text.strip())

    def tell_requests(self, member: Member) -> str:
        """Log what a worker was doing when it ended, and return it."""
        now = time.monotonic()
        running = [f"ended while it ran {describe(each, now)}" for each in member.slot.running()]
        for line in running:
            self.log.error("Worker %s %s", member.pid, line)
        return "\n".join(running)

    def forget(self, pid: int) -> None:
        self.asked.pop(pid, None)

    # Memory.

    def memories(self, now: float) -> None:
        """Replace the fattest worker before the kernel acts."""
        room = self.memory.room(now)
        self.arbiter.board.count_memory(self.memory.limit or 0, (room and room.used) or self.taken())
        self.patience = policies.until_next_look(room)
        if room is None:
            return
        if room.soon > policies.HIGH * room.limit or now >= self.next_measuring:
            self.next_measuring = now + MEASURE_EVERY
            self.measure()
        leaving = sum(member.slot.memory for member in self.arbiter.crew.leaving())
        room = room.without(leaving)
        crew = [self.see(each, now) for each in self.arbiter.crew.serving() if each.slot.memory]
        found = policies.too_fat(
            crew, room, now - self.last_replaced if self.last_replaced else policies.YOUNG
        )
        if found is not None:
            self._slim(*found, now)

    def taken(self) -> int:
        """Return what the workers took when they were last measured, and the arbiter at its start."""
        return self.memory.master + sum(member.slot.memory for member in self.arbiter.crew)

    def _slim(self, seen: Seen, verdict: Verdict, at_once: bool, now: float) -> None:
        member = self.arbiter.crew.members[seen.pid]
        if at_once:
            self.log.warning("Worker %s %s: it must go at once.", seen.pid, verdict.line)
            self.arbiter.event(verdict.reason, f"Worker {seen.pid} {verdict.line}: it must go at once")
            self.arbiter.let_go(member, verdict.reason)
            self.last_replaced = now
        elif self.arbiter.replace(member, verdict):
            self.last_replaced, self.pause = now, policies.next_pause(self.pause, seen.age)

    def measure(self, *, new_alone: bool = False) -> None:
        """Read every worker's memory, or that of workers that were not measured yet."""
        for member in self.arbiter.crew:
            if new_alone and (member.slot.memory or not member.serving):
                continue
            try:
                member.slot.memory = read_memory(Path(f"/proc/{member.pid}")).size
            except OSError:  # it has ended
                continue
