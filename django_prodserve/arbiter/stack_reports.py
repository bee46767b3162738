"""Request the stacks of workers' threads, and log them.

Lives in the arbiter, main loop. At a signal, a worker writes its stacks into a file that it shares with the
arbiter; the arbiter reads them a second later. Never blocks.
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
    """The workers whose stacks were requested, and why."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.asked: dict[int, str] = {}
        """The reason by pid."""

    def ask(self, member: WorkerHandle, verdict: Verdict) -> None:
        """Request a worker's stacks; ``log_answers`` logs them a second later."""
        self.asked[member.pid] = verdict.line
        if member.slot.pid == member.pid:  # it has its handler: without one, the signal would end it
            self.arbiter.stacks.request_dump(member.slot.index, member.pid)

    def log_answers(self, now: float) -> None:
        """Log the stacks of the workers from which they were requested."""
        for member in self.arbiter.pool:
            if line := self.asked.pop(member.pid, ""):
                text = with_requests(self.arbiter.stacks.read(member.slot.index), member.slot.running(), now)
                self.log.error("Worker %s %s. Its threads:\n%s", member.pid, line, text or "(no answer)")
                self.arbiter.record_event("stacks", f"Worker {member.pid} {line}", only_busy_threads(text))

    def ask_unfinished(self) -> None:
        """Request the stacks of every remaining worker, shortly before it is killed."""
        for member in self.arbiter.pool:
            self.ask(member, Verdict("asked", "did not finish in time and is killed"))

    def log_unfinished(self, member: WorkerHandle) -> None:
        """Log the unfinished requests of a killed worker, each with its stack if that was requested."""
        line, now = self.asked.pop(member.pid, ""), time.monotonic()
        text = self.arbiter.stacks.read(member.slot.index) if line else ""
        running = member.slot.running()
        for request in running:
            stack = stack_of(text, request.ident)
            its_thread = f" Its thread:\n{stack}" if stack else ""
            self.log.warning("Request %s did not finish in time.%s", describe(request, now), its_thread)
        if text and member.killed and not running:  # Gunicorn's own workers do not record their requests
            self.log.warning("Worker %s %s. Its threads:\n%s", member.pid, line, text.strip())

    def log_requests(self, member: WorkerHandle) -> str:
        """Log the requests that a worker ran when it ended, and return the lines."""
        now = time.monotonic()
        running = [f"ended while it ran {describe(request, now)}" for request in member.slot.running()]
        for line in running:
            self.log.error("Worker %s %s", member.pid, line)
        return "\n".join(running)

    def forget(self, pid: int) -> None:
        """Remove the requests for a worker that has ended."""
        self.asked.pop(pid, None)
