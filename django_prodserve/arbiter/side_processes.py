"""The minders of the processes alongside the workers: start them, replace a dead one, stop them all.

Lives in the arbiter, main loop. Each minder is a fork of the arbiter (side_processes/minder.py), which knows
it by its slot on the scoreboard. Nothing here waits, and no fault of a process reaches a worker.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections
from gunicorn import util

from ..machine.families import memory_below
from ..plan.sizing import Sizing
from ..project.databases import close_connections
from ..side_processes import command, host_lock, minder, policies, spawn
from ..side_processes.policies import SideState
from ..startup.locks import shared_lock_for
from ..supervisor import run_directory
from ..worker import stop_signals
from . import hooks

if TYPE_CHECKING:
    from ..config.side_processes import SideProcess
    from ..scoreboard.side_slot import SideSlot
    from .interface import ArbiterActions
    from .policies import MemoryBudget

STOP_MARGIN = 0.3
"""Seconds before the end of a stop at which a process is killed: its minder then ends in time."""
RESTART_SECONDS = 60.0
"""Seconds between two restarts for memory."""


class SideProcesses:
    """The minders of one generation, by their position in the plan."""

    def __init__(self, arbiter: ArbiterActions) -> None:
        self.arbiter, self.log = arbiter, arbiter.log
        self.processes = arbiter.plan.inputs.options.beside
        self.minders: dict[int, int] = {}
        """The position of each process, by the pid of its minder."""
        self.next_start = dict.fromkeys(range(len(self.processes)), 0.0)
        self.failures = dict.fromkeys(range(len(self.processes)), 0)
        self.restarts = [0] * len(self.processes)
        """The restarts of each process that were looked at."""
        self.are_wanted = False
        self.last_restart = -RESTART_SECONDS
        self.next_measuring = 0.0

    @property
    def slots(self) -> tuple[SideSlot, ...]:
        return self.arbiter.board.sides

    # Start.

    def start(self) -> None:
        """Start them all: the workers of this generation answer."""
        self.are_wanted = bool(self.processes)
        self.complete(time.monotonic())

    def complete(self, now: float) -> None:
        """Fork the minders that are missing; called about once a second."""
        if not self.are_wanted:
            return
        running = {*self.minders.values()}
        for index in self.next_start:
            if index not in running and now >= self.next_start[index]:
                self._fork(index, now)

    def _fork(self, index: int, now: float) -> None:
        close_connections()
        slot, process = self.slots[index], self.processes[index]
        slot.deadline, slot.pid = 0.0, 0
        signal.pthread_sigmask(signal.SIG_BLOCK, {*hooks.STOPPING, signal.SIGHUP, signal.SIGCHLD})
        parent = os.getpid()
        try:
            task = self._task(process, slot)
            pid = os.fork()
            if not pid:
                self._become_minder(task)
        except (OSError, ValueError) as error:
            self._failed(index, f"cannot be started: {error}", now)
            return
        finally:
            if os.getpid() != parent:  # the minder must not return into the arbiter's loop
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*hooks.STOPPING, signal.SIGHUP, signal.SIGCHLD})
        self.minders[pid] = index
        slot.minder = pid

    def _task(self, process: SideProcess, slot: SideSlot) -> minder.Task:
        config = self.arbiter.cfg
        return minder.Task(
            name=process.name,
            words=command.arguments(process.command),
            environ=command.environment(process.name, config.env),
            slot=slot,
            log=self.log,
            lifeline=-1,
            grace=self.arbiter.plan.graceful_timeout.value,
            lock_path=self._lock_path(process.name),
            shared=self._shared_lock(process),
            drop_privileges=functools.partial(
                util.set_owner_process, config.uid, config.gid, initgroups=config.initgroups
            ),
        )

    def _lock_path(self, name: str) -> str:
        """Return the file that servers of this project on this host lock; empty if there is no directory."""
        place = self.arbiter.generation.run_dir
        if place is None:
            return ""
        return run_directory.lock_path(place, f"{self.arbiter.plan.settings.value}-{name}")

    def _shared_lock(self, process: SideProcess) -> Callable[[], host_lock.SharedLock] | None:
        """Return what makes the lock among all hosts; None if each host runs the process, or there is one."""
        if not process.one_host or connections[DEFAULT_DB_ALIAS].vendor == "sqlite":
            return None
        purpose = f"process {self.arbiter.plan.settings.value} {process.name}"

        def lease() -> host_lock.Lease:
            found = shared_lock_for(connections[DEFAULT_DB_ALIAS], purpose, host_lock.SILENT)
            assert found is not None, "checked before the start"
            return found

        return lambda: host_lock.SharedLock(lease)

    def _become_minder(self, task: minder.Task) -> None:
        """In the fork: release what is the arbiter's, and run the minder. Does not return."""
        os.setpgid(0, 0)
        self.arbiter.release_sockets()
        minder.mind(minder.with_lifeline(task, stop_signals.lifeline()))

    # End.

    def ended(self, pid: int, status: int) -> bool:
        """Return whether a process that has ended was a minder; its process must not outlive it."""
        index = self.minders.pop(pid, None)
        if index is None:
            return False
        slot, now = self.slots[index], time.monotonic()
        if slot.pid:
            spawn.kill_group(slot.pid)
            slot.pid, slot.restarts = 0, slot.restarts + 1
        slot.minder = 0
        if self.are_wanted:
            how = policies.ending(os.waitstatus_to_exitcode(status))
            self._failed(index, f"has lost its minder, which {how}", now)
        return True

    def _failed(self, index: int, how: str, now: float) -> None:
        self.failures[index] += 1
        self.next_start[index] = now + policies.back_off(self.failures[index])
        name = self.processes[index].name
        if self.failures[index] == 1:
            text = f"Process {name} {how}; it is started again"
            self.log.error("%s.", text)
            self.arbiter.record_event("process ended", text)

    def stop(self, seconds: float) -> None:
        """Ask all processes to end within this time."""
        self.are_wanted = False
        deadline = time.monotonic() + max(0.0, seconds - STOP_MARGIN)
        for index in self.minders.values():
            slot = self.slots[index]
            slot.deadline = min(slot.deadline or deadline, deadline)
        self._wake()

    def _wake(self) -> None:
        for pid in self.minders:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the processes that are left, and their minders."""
        for pid, index in self.minders.items():
            if self.slots[index].pid:
                spawn.kill_group(self.slots[index].pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal_all(self, number: int) -> None:
        """Pass a signal on: logs were rotated."""
        for pid in self.minders:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def describe(self) -> list[str]:
        """Return what runs, for the line of a stop."""
        running = [index for index in self.minders.values() if self.slots[index].pid]
        return [f"process {self.processes[index].name}" for index in running]

    # Memory.

    @property
    def memory(self) -> int:
        """The memory of all processes at the last measurement."""
        return sum(slot.memory for slot in self.slots)

    def measure(self, *, new_alone: bool = False) -> None:
        """Read the memory of each process and of all that it has started, or of those not yet measured."""
        for slot in self.slots:
            if not (new_alone and slot.memory):
                slot.memory = memory_below(slot.minder) if slot.pid else 0

    def check_memory(self, room: MemoryBudget, now: float) -> None:
        """Restart the process that has outgrown its plan before the kernel kills something."""
        used = room.used if room.used is not None else self.arbiter.taken_memory()
        soon = max(used, room.soon)
        seen = [
            SideState(index=index, name=process.name, memory=slot.memory, planned=self.planned(process))
            for index, (process, slot) in enumerate(zip(self.processes, self.slots, strict=True))
            if slot.pid
        ]
        found = policies.too_large(seen, used, soon, room.limit)
        if found is None or now - self.last_restart < (
            policies.MEMORY_GRACE if found[2] else RESTART_SECONDS
        ):
            return
        state, why, at_once = found
        self.last_restart = now
        text = f"Process {state.name} {why}; restarting it"
        self.log.warning("%s.", text)
        self.arbiter.record_event("process memory", text)
        slot = self.slots[state.index]
        slot.asked = 1
        self._wake()
        if at_once:
            spawn.kill_group(slot.pid)

    def log_kills(self, was_killer: Callable[[], bool]) -> None:
        """Report the processes that the kernel has killed because memory ran out."""
        for index, slot in enumerate(self.slots):
            if slot.restarts != self.restarts[index]:
                self.restarts[index] = slot.restarts
                if slot.status == -signal.SIGKILL and was_killer():
                    name = self.processes[index].name
                    text = f"Process {name} was killed by the kernel: the memory limit is reached"
                    self.log.warning("%s.", text)
                    self.arbiter.record_event("process memory", text)

    def planned(self, process: SideProcess) -> int:
        """Return the memory that the plan has for a process."""
        plan = self.arbiter.plan
        return process.memory or Sizing.guess(plan.master_memory.value, plan.worker_memory.value)
