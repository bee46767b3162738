"""The minder of one process alongside the workers: starts it, logs its lines, starts it again, stops it.

Lives in a process of its own, a fork of the arbiter; main thread. It waits for the pipes of the process, for
signals, and for the end of the arbiter. A signal only wakes it: what the arbiter wants is in the slot, since
systemd and Heroku send their signals to every process. No fault of the process reaches the site.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from subprocess import Popen
from typing import Any, NoReturn

from ..logs.side_lines import LineSplitter, SideLog
from ..machine.proc import SIDE_EXPENDABLE, set_oom_score_adj
from ..scoreboard import events
from ..scoreboard.side_slot import ENDED, PAUSED, RUNNING, STOPPING, WAITING, SideSlot
from ..utils.outlet import drain, report_lost, unsent
from ..utils.units import format_duration
from . import policies, spawn
from .host_lock import FileLock, SharedLock

AT_ONCE = 65_536
"""Bytes read from a pipe at a time: as many as it holds."""
FLOOD_SECONDS = 0.02
"""The pause after so many bytes: 3 MiB a second cost a quarter of a CPU, and the workers keep the rest."""
LOCK_SECONDS = 0.2
"""Seconds between two questions for the lock that another minder holds."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a minder needs; the arbiter makes it before the fork."""

    name: str
    words: Sequence[str]
    environ: Mapping[str, str]
    slot: SideSlot
    log: Any
    lifeline: int
    """A pipe that ends with the arbiter."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    lock_path: str
    shared: Callable[[], SharedLock] | None
    """Makes the lock among all hosts; None if each host runs the process."""
    drop_privileges: Callable[[], object]


def with_lifeline(task: Task, lifeline: int) -> Task:
    """Return the same with the pipe that ends with the arbiter."""
    return replace(task, lifeline=lifeline)


class Minder:
    """One process, and its state from one iteration of the loop to the next."""

    def __init__(self, task: Task) -> None:
        self.task, self.slot = task, task.slot
        self.lines = SideLog(task.log, task.name)
        self.file_lock = FileLock(task.lock_path)
        task.drop_privileges()
        self.shared = task.shared() if task.shared else None
        self.process: Popen[bytes] | None = None
        self.pipes: dict[int, LineSplitter] = {}
        self.start_at = time.monotonic()
        self.began = self.kill_at = 0.0
        self.failures = 0
        self.is_locked = self.is_stopping = self.is_killed = self.is_asked = False
        self.reason = ""
        """Why the process was asked to end, if it starts again afterwards."""
        self.told_waiting = self.has_child_ended = False
        self.lifeline: int | None = task.lifeline
        self.wake = -1

    def run(self) -> None:
        """Run until the arbiter wants the process to stop, or ends itself."""
        self.wake = _listen()
        spawn.adopt_orphans()
        while not (self.is_stopping and self.process is None):
            now = time.monotonic()
            self._obey(now)
            for line in report_lost(now):
                self.task.log.error("%s", line)
            if self.process is not None:
                self._watch(self.process, now)
            elif not self.is_stopping and now >= self.start_at and self._may_start(now):
                self._start(now)
            self._wait()
        self._release()
        self.slot.state = ENDED

    # Requests of the arbiter.

    def _obey(self, now: float) -> None:
        """Begin to stop if the arbiter wants that, or is gone; begin a restart if it asks for one."""
        slot = self.slot
        if slot.deadline and not self.is_stopping:
            self.is_stopping = True
            self._ask(slot.deadline)
        elif self.is_stopping and slot.deadline:
            self.kill_at = min(self.kill_at, slot.deadline)
        if slot.asked:
            slot.asked = 0
            if self.process is not None and not self.is_stopping and not self.is_asked:
                self.reason = "memory"
                self._ask(now + min(self.task.grace, policies.MEMORY_GRACE))
        has_process = self.process is not None and not self.is_asked
        if has_process and self.shared is not None and not self.shared.is_sure(now):
            self.reason = "lock"
            self._log("warning", "is stopped: this host has lost its lock in the database")
            self._ask(self.shared.kill_at)

    def _ask(self, kill_at: float) -> None:
        """Ask the process to end."""
        self.kill_at = kill_at
        if self.process is not None and not self.is_asked:
            self.is_asked, self.slot.state = True, STOPPING
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.process.pid, signal.SIGTERM)

    # The life of the process.

    def _may_start(self, now: float) -> bool:
        """Return whether no other minder runs it, on this host or, if so chosen, on any."""
        if not self.is_locked and self.file_lock.take():
            self.is_locked = True
            if self.shared is not None:
                self.shared.start()  # a minder before us on this host has released both locks
        if self.is_locked and (self.shared is None or self.shared.is_ours(now)):
            self.told_waiting = False
            return True
        self.slot.state = WAITING
        patience = self.task.grace + 3 if not self.is_locked else 20.0
        if not self.told_waiting and now - self.start_at > patience:
            self.told_waiting = True
            where = "another host runs it" if self.is_locked else "another server on this host runs it"
            if self.shared is not None and self.shared.fault:
                where = f"the database does not answer: {self.shared.fault}"
            self._log("info", f"waits: {where}")
        return False

    def _start(self, now: float) -> None:
        try:
            self.process = spawn.spawn(self.task.words, self.task.environ)
        except OSError as error:
            self.began = now
            self._failed(f"cannot be started: {error.strerror or error}", now)
            return
        pid = self.process.pid
        set_oom_score_adj(pid, SIDE_EXPENDABLE)
        pipes = [pipe for pipe in (self.process.stdout, self.process.stderr) if pipe is not None]
        self.pipes = {pipe.fileno(): LineSplitter() for pipe in pipes}
        for descriptor in self.pipes:
            os.set_blocking(descriptor, False)
        self.began, self.is_asked, self.is_killed, self.reason = now, False, False, ""
        self.slot.memory, self.slot.pid, self.slot.started, self.slot.state = 0, pid, now, RUNNING
        if not self.failures:
            self._log("info", f"started, pid {pid}")

    def _watch(self, process: Popen[bytes], now: float) -> None:
        if spawn.has_ended(process.pid):
            self._ended(process, now)
            return
        if self.has_child_ended:
            self.has_child_ended = False
            spawn.reap_adopted(process.pid)
        if self.is_asked and now >= self.kill_at and not self.is_killed:
            self.is_killed = True
            spawn.kill_group(process.pid)
        elif self.slot.failing and now - self.began >= policies.STABLE_SECONDS:
            self.slot.failing = self.failures = 0
            self._tell("process recovered", "runs again", "info")

    def _ended(self, process: Popen[bytes], now: float) -> None:
        """End all that the process leaves behind, and decide what comes next."""
        spawn.kill_group(process.pid)  # before it is reaped: until then its number is not given again
        status = process.returncode = spawn.reap(process.pid)
        spawn.kill_children()
        self._read_rest(process)
        self.process, self.slot.pid, self.slot.status = None, 0, status
        self.slot.memory = 0
        if self.is_stopping:
            how = policies.ending(status)
            if self.is_killed:
                self._log("warning", "did not end in time and was killed")
            else:
                self._log("info", f"has stopped: {how}")
        elif self.reason:
            self.slot.restarts += 1
            self.slot.state, self.start_at = PAUSED, now
            if self.reason == "lock" and self.shared is not None:
                self._log("info", f"has stopped: {policies.ending(status)}")
        else:
            self._failed(
                f"{policies.ending(status)} after {format_duration(round(now - self.began, 1))}", now
            )

    def _failed(self, how: str, now: float) -> None:
        """Start the process again after a pause; log only the first failure in a row."""
        if now - self.began >= policies.STABLE_SECONDS:
            self.failures = 0
        self.failures += 1
        pause = policies.back_off(self.failures)
        self.start_at = now + pause
        self.slot.state, self.slot.failing = PAUSED, self.failures
        self.slot.restarts += 1
        if self.failures == 1:
            self._tell("process ended", f"{how}; it is started again, with increasing pauses", "error")

    def _release(self) -> None:
        if self.shared is not None:
            self.shared.release()
        self.file_lock.release()

    # The log.

    def _tell(self, kind: str, text: str, level: str) -> None:
        """Write a line to the log, and an event for operators."""
        self._log(level, text)
        events.write(self.slot.events, events.Event(time.time(), kind, f"Process {self.task.name} {text}"))

    def _log(self, level: str, text: str) -> None:
        log = self.task.log
        method = getattr(log, "notice", log.info) if level == "info" else getattr(log, level)
        method("Process %s %s.", self.task.name, text)

    def _read(self, descriptor: int) -> bool:
        """Read from a pipe and log complete lines; return whether the process has filled it."""
        splitter = self.pipes[descriptor]
        try:
            data = os.read(descriptor, AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        pid = self.slot.pid
        if not data:
            self.lines.write(splitter.end(), pid)
            del self.pipes[descriptor]
            return False
        self.lines.write(splitter.feed(data), pid)
        return len(data) == AT_ONCE

    def _read_rest(self, process: Popen[bytes]) -> None:
        """Read what the process has written before its end; another process may keep the pipe open."""
        for descriptor in [*self.pipes]:
            for _ in range(16):
                if not self._read(descriptor):
                    break
            if descriptor in self.pipes:
                self.lines.write(self.pipes[descriptor].end(), self.slot.pid)
        self.pipes = {}
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    # Waiting.

    def _wait(self) -> None:
        """Wait for a signal, for lines, or for the next moment at which there is something to do."""
        poller = select.poll()
        for descriptor in (self.wake, *self.pipes, *([self.lifeline] if self.lifeline is not None else [])):
            poller.register(descriptor, select.POLLIN)
        is_flood = False
        for descriptor, _ in poller.poll(self._seconds() * 1000 + 1):
            if descriptor == self.wake:
                with suppress(BlockingIOError):
                    arrived = os.read(self.wake, 4096)
                    self.has_child_ended |= signal.SIGCHLD in arrived
                    if signal.SIGUSR1 in arrived:
                        self.task.log.reopen_files()
            elif descriptor == self.lifeline:
                self.lifeline = None
                if not self.slot.deadline:
                    self.slot.deadline = time.monotonic() + self.task.grace
            elif descriptor in self.pipes:
                is_flood |= self._read(descriptor)
        if is_flood:
            time.sleep(FLOOD_SECONDS)

    def _seconds(self) -> float:
        now = time.monotonic()
        if self.process is None:
            pause = LOCK_SECONDS if self.slot.state == WAITING else 0.0
            return 0.0 if self.is_stopping else max(pause, self.start_at - now)
        if self.is_asked and not self.is_killed:
            return max(0.0, min(1.0, self.kill_at - now))
        soon = self.slot.failing or self.shared is not None or any(data for _, data in unsent())
        return 1.0 if soon else 60.0


def _listen() -> int:
    """Turn signals into bytes of a pipe, and let those in that the arbiter has held back."""
    read, write = os.pipe()
    for descriptor in (read, write):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    return read


def mind(task: Task) -> NoReturn:
    """Run a minder, and end this process: a fork of the arbiter must not return into it."""
    code = 1
    try:
        Minder(task).run()
        code = 0
    except Exception:
        task.log.exception("The minder of process %s has failed.", task.name)
    finally:
        if task.slot.pid:
            spawn.kill_group(task.slot.pid)
        drain()
        os._exit(code)
