"""Measure the CPU time of the workers, and how many more requests the server could serve.

Lives in the arbiter, main loop, each second. Reads the scoreboard, /proc and the control group.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..machine.proc import cpu_seconds
from ..machine.quota import throttling
from ..monitoring.room import KEPT_SECONDS, Mark, Room, Supply, room

if TYPE_CHECKING:
    from ..machine.cgroups import Cgroups
    from ..machine.cpu_use import CpuUse
    from ..plan.plan import Plan
    from ..scoreboard.slot import Counters
    from .worker_pool import WorkerHandle, WorkerPool

CPU_WEIGHT = 0.4
"""Weight of the last second in the CPUs that a worker shows: a change is visible to 90 % after 5 s."""


class RoomWatch:
    """The marks of the last minutes, since the number of workers that serve has changed."""

    def __init__(self, pool: WorkerPool, plan: Plan, cgroups: Cgroups, use: CpuUse) -> None:
        self.pool, self.plan, self.cgroups, self.use = pool, plan, cgroups, use
        self.marks: deque[Mark] = deque()
        self._cpu: dict[int, float] = {}
        self._thread: dict[int, float] = {}
        self._cpu_sum = self._thread_sum = self._when = 0.0
        self._workers = 0

    def tick(self, now: float, tally: Counters) -> Room | None:
        """Measure, and return the room; None for workers that do not count their requests."""
        serving = self.pool.serving()
        self._measure(now, serving)
        if self.plan.worker_class.value != "prodserve":
            return None
        if len(serving) != self._workers:
            self._workers = len(serving)
            self.marks.clear()
        shared, stopped = self.use.seconds(), throttling(self.cgroups).seconds
        self.marks.append(
            Mark(
                now=now,
                requests=tally.requests,
                cpu=self._cpu_sum,
                shared=self._cpu_sum if shared is None else shared,
                thread=self._thread_sum,
                throttled=stopped,
            )
        )
        while now - self.marks[0].now > KEPT_SECONDS:
            self.marks.popleft()
        return room([*self.marks], self._supply(serving))

    def _measure(self, now: float, serving: list[WorkerHandle]) -> None:
        """Publish the CPU time of each worker, and add up what those that serve have used."""
        cpu = {member.pid: cpu_seconds(member.pid) for member in self.pool}
        thread = {member.pid: member.slot.thread_seconds(now) for member in serving}
        for member in self.pool:
            slot, used = member.slot, cpu[member.pid]
            slot.cpu = used
            if member.pid in self._cpu and now > self._when:
                share = (used - self._cpu[member.pid]) / (now - self._when)
                slot.cpu_share += (share - slot.cpu_share) * CPU_WEIGHT
        self._cpu_sum += sum(max(0.0, cpu[pid] - self._cpu.get(pid, cpu[pid])) for pid in thread)
        self._thread_sum += sum(max(0.0, used - self._thread.get(pid, used)) for pid, used in thread.items())
        self._cpu, self._thread, self._when = cpu, thread, now

    def _supply(self, serving: list[WorkerHandle]) -> Supply:
        return Supply(
            cpus=self.plan.cpus.value,
            shared=self.use.cpus,
            workers=len(serving),
            threads=sum(member.slot.max_threads for member in serving),
            threads_by=self.plan.threads_by,
        )
