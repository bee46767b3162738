"""Ask workers for the stacks of their threads, and log what they answer.

Lives in the arbiter, main loop. A worker writes its stacks into a file that it shares with the arbiter, at a
signal; the arbiter reads them a second later. Never blocks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..scoreboard.stacks import describe, only_busy_threads, stack_of, with_requests
from .policies import Verdict

if TYPE_CHECKING:
    from .interface import ArbiterActions
    from .worker_pool import WorkerHandle


class StackReports:
    """The workers that were asked for their stacks, and why."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.asked: dict[int, str] = {}
        """Why, by pid."""

    def ask(self, member: WorkerHandle, verdict: Verdict) -> None:
        """Ask a worker for its stacks; ``log_answers`` logs them a second later."""
        self.asked[member.pid] = verdict.line
        if member.slot.pid == member.pid:  # it has registered: the signal would end one that has not
            self.arbiter.stacks.request_dump(member.slot.index, member.pid)

    def log_answers(self, now: float) -> None:
        """Log the stacks of the workers that were asked."""
        for member in self.arbiter.pool:
            if line := self.asked.pop(member.pid, ""):
                text = with_requests(self.arbiter.stacks.read(member.slot.index), member.slot.running(), now)
                self.log.error("Worker %s %s. Its threads:\n%s", member.pid, line, text or "(no answer)")
                self.arbiter.record_event("stacks", f"Worker {member.pid} {line}", only_busy_threads(text))

    def ask_unfinished(self) -> None:
        """Ask every worker that is left for its stacks, shortly before it is killed."""
        for member in self.arbiter.pool:
            self.ask(member, Verdict("asked", "did not finish in time and is killed"))

    def log_unfinished(self, member: WorkerHandle) -> None:
        """Log what a worker was cut off in: each request, and its stack where it was asked for."""
        line, now = self.asked.pop(member.pid, ""), time.monotonic()
        text = self.arbiter.stacks.read(member.slot.index) if line else ""
        running = member.slot.running()
        for request in running:
            stack = stack_of(text, request.ident)
            its_thread = f" Its thread:\n{stack}" if stack else ""
            self.log.warning("Request %s did not finish in time.%s", describe(request, now), its_thread)
        if text and member.killed and not running:  # Gunicorn's own workers do not say what they run
            self.log.warning("Worker %s %s. Its threads:\n%s", member.pid, line, text.strip())

    def log_requests(self, member: WorkerHandle) -> str:
        """Log the requests that a worker ran when it ended, and return the lines."""
        now = time.monotonic()
        running = [f"ended while it ran {describe(request, now)}" for request in member.slot.running()]
        for line in running:
            self.log.error("Worker %s %s", member.pid, line)
        return "\n".join(running)

    def forget(self, pid: int) -> None:
        """Drop what a worker that has ended was asked."""
        self.asked.pop(pid, None)
