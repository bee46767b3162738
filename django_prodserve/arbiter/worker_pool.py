"""Which workers serve, which must be replaced, which are stopping, and the next steps that follow.

Lives in the arbiter, main loop. Decides; the arbiter forks and sends signals.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..scoreboard.slot import RETIRING, SERVING, Slot
from .policies import WorkerState

PATIENT = {"memory", "max-requests", "max-lifetime"}
"""Reasons for which a worker may wait until the previous one is gone; a hung worker never waits."""


@dataclass
class WorkerHandle:
    """The arbiter's record of one worker; times are monotonic."""

    worker: Any
    slot: Slot
    born: float
    served: bool = False
    leaving: str = ""
    """Why the arbiter stops it; empty while it may stay."""
    killed: bool = False

    @property
    def pid(self) -> int:
        pid: int = self.worker.pid
        return pid

    @property
    def serving(self) -> bool:
        """Whether the worker answers requests."""
        return self.slot.state == SERVING and not self.leaving

    def update(self, now: float, planned: int) -> WorkerState:
        """Return the worker's state for the policies; ``planned``: the bytes that the plan expects."""
        slot = self.slot
        running = slot.running()
        latest = max([slot.last_end(), *(request.progress for request in running)])
        return WorkerState(
            pid=self.pid,
            age=now - self.born,
            serving=slot.state == SERVING,
            silent=now - self.heartbeat(),
            threads=slot.threads,
            busy=len(running),
            idle=now - latest if running else 0.0,
            memory=slot.memory,
            planned=planned,
        )

    def heartbeat(self) -> float:
        """Return when the worker's event loop last iterated; a worker that just began counts as now."""
        last: float = self.slot.heartbeat
        try:
            beat: float = self.worker.tmp.last_update()
        except (OSError, ValueError):
            return last
        # The file begins with the wall clock's time, which is later than any monotonic one.
        return max(last, beat) if beat <= time.monotonic() else last


class WorkerPool:
    """All workers of this arbiter."""

    def __init__(self) -> None:
        self.members: dict[int, WorkerHandle] = {}
        self.pending_replacement: dict[int, str] = {}
        """Workers to be replaced, by pid, and why; the first one is replaced first."""

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self.members.values()))

    def active(self) -> list[WorkerHandle]:
        """Return the workers that were not asked to stop, the oldest first."""
        return sorted((worker for worker in self if not worker.leaving), key=lambda worker: worker.worker.age)

    def serving(self) -> list[WorkerHandle]:
        """Return the workers that answer requests."""
        return [worker for worker in self.active() if worker.serving]

    def leaving(self) -> list[WorkerHandle]:
        """Return the workers that were asked to stop and have not ended yet."""
        return [worker for worker in self if worker.leaving]

    def mark_for_replacement(self, pid: int, reason: str) -> bool:
        """Mark a worker for replacement; False if it is already marked, or must wait for another one."""
        member = self.members.get(pid)
        if member is None or member.leaving or pid in self.pending_replacement:
            return False
        if reason in PATIENT and (self.pending_replacement or self.leaving()):
            return False
        self.pending_replacement[pid] = reason
        return True

    def missing(self, wanted: int) -> int:
        """Return how many workers to start: the missing ones, and one for each that must be replaced."""
        return max(0, wanted + len(self.pending_replacement) - len(self.active()))

    def replaced(self, wanted: int) -> list[tuple[WorkerHandle, str]]:
        """Return the workers that may stop now, and why: as many marked ones as the others can replace."""
        spare = len(self.serving()) - wanted
        ready = [(self.members[pid], reason) for pid, reason in self.pending_replacement.items()]
        # A marked worker that does not serve would not be missed.
        idle = [(member, reason) for member, reason in ready if not member.serving]
        return idle + [pair for pair in ready if pair[0].serving][: max(0, spare)]

    def surplus(self, wanted: int) -> list[WorkerHandle]:
        """Return the workers to stop because fewer are wanted: the marked ones first, then the oldest."""
        staying = self.active()
        count = len(staying) - wanted - len(self.pending_replacement)
        ranked = sorted(staying, key=lambda worker: worker.pid not in self.pending_replacement)
        return ranked[: max(0, count)]

    def mark_leaving(self, member: WorkerHandle, reason: str, deadline: float) -> None:
        """Record that a worker has been asked to stop."""
        member.leaving = reason
        member.slot.state = RETIRING
        member.slot.deadline = deadline
        self.pending_replacement.pop(member.pid, None)

    def remove(self, pid: int) -> WorkerHandle | None:
        """Remove a worker that has ended."""
        self.pending_replacement.pop(pid, None)
        return self.members.pop(pid, None)
