"""The arbiter's part in start, reload and stop, from the first worker's answer to the last one's end.

Mixed into our Arbiter; lives in the arbiter, main thread, in its loop. This code waits only for signals.
"""

from __future__ import annotations

import os
import queue
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gunicorn import sock
from gunicorn.errors import HaltServer

from ..machine.proc import EXPENDABLE, set_oom_score_adj
from ..scoreboard import stop_flags
from ..supervisor.file_watcher import POLL_SECONDS, Watcher
from ..utils.units import counted, format_duration
from ..worker import stop_signals

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter as _Arbiter

    from ..supervisor.link import SupervisorLink
    from .monitor import WorkerMonitor
    from .side_processes import SideProcesses
else:
    _Arbiter = object

IMMEDIATE_SIGNALS = {signal.SIGINT, signal.SIGQUIT}
STOPPING = {signal.SIGTERM, *IMMEDIATE_SIGNALS}
HURRIED_STOP_SECONDS = 1.0  # seconds that workers have to stop if the operator is in a hurry
REPORT_SECONDS = 0.25  # seconds before the end in which workers report unfinished requests
MAX_DEATHS_AT_START = 3  # if this many workers die before all have answered, the start fails


class Lifecycle(_Arbiter):  # type: ignore[misc]
    """Reports when the workers answer, hands over to a new generation, and stops without losing a request."""

    generation: SupervisorLink
    num_workers: int
    LISTENERS: list[Any]
    all_ready = False
    """Whether the first full set of workers has answered."""
    stopped = False
    failed = False
    """Whether the server stops for a reason that has been logged."""
    aborted = 0
    """Requests that a stop did not wait for."""
    monitor: WorkerMonitor
    sides: SideProcesses
    watcher: Watcher | None = None

    def start(self) -> None:
        stop_signals.install()
        plan = self.app.plan
        if plan.reload.value and self.generation.supervisor:
            # The first generation was the supervisor's process before the fork, and began to load there.
            process = self.generation.supervisor if self.generation.number == 1 else os.getpid()
            self.watcher = Watcher(plan.env_file.value, process)
        super().start()
        for bound in self.app.sockets:
            bound.close()  # Gunicorn has its own copies; ours would keep the listeners open in every worker
        if self.generation.extra_workers:
            self.num_workers = max(1, self.num_workers + self.generation.extra_workers)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Wait for signals. Gunicorn's loop calls this in every iteration, so our checks run here."""
        if not self.all_ready:
            timeout = 0.02
        elif self.watcher:
            timeout = min(timeout, POLL_SECONDS)
        signals: list[int] = super().wait_for_signals(min(timeout, self.generation.beats or timeout))
        if not self.all_ready:
            self._check_for_answers()
        if not self.all_ready:
            self.app.say.poll(self._describe_answers)
        if self.generation.is_orphan():
            self.log.error("The supervisor is gone: stopping.")
            raise StopIteration
        self.generation.beat()
        for number, reason in self.generation.failed_reloads():
            self.on_reload_failed(number, reason)
        if self.all_ready and self.watcher and (file := self.watcher.tick()):
            self.generation.changed(file)
        return signals

    def _check_for_answers(self) -> None:
        if len(self.WORKERS) >= self.num_workers and all(map(_has_answered, self.WORKERS.values())):
            self.all_ready = True
            self.app.say.end_poll()
            self.on_all_ready()  # before the supervisor stops the serving generation
            if self.generation.during_reload:
                self._restore_oom_score()
            self.generation.ready(self.app.facts())
        elif (
            self.generation.number > 1
            and self._stats["workers_spawned"] - self.num_workers >= MAX_DEATHS_AT_START
        ):
            # The supervisor then informs the serving generation that this one cannot serve.
            raise HaltServer(f"{MAX_DEATHS_AT_START} workers ended before they answered", 1)

    def _describe_answers(self) -> str:
        what = "starting the workers" if self.cfg.preload_app else "loading the project in the workers"
        return f"{what}: {sum(map(_has_answered, self.WORKERS.values()))}/{self.num_workers}"

    def on_all_ready(self) -> None:
        """Copy the records of the previous generation, which still exists; must not raise."""

    def on_reload_failed(self, number: int, reason: str) -> None:
        """Record that the generation with this number could not take over; must not raise."""

    def _restore_oom_score(self) -> None:
        """Restore the OOM score: until this generation serves, the OOM killer would kill it first."""
        set_oom_score_adj(os.getpid(), 0, than=self.generation.supervisor)
        for pid in self.WORKERS:
            set_oom_score_adj(pid, EXPENDABLE, than=self.generation.supervisor)

    def spawn_worker(self) -> int | None:
        stop_flags.forget(self.worker_age + 1)
        pid: int | None = super().spawn_worker()
        return pid

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a signal to a worker, which obeys because the arbiter sets its flag first."""
        if sig in STOPPING and pid in self.WORKERS:
            stop_flags.request_stop(self.WORKERS[pid].age, at_once=sig in IMMEDIATE_SIGNALS)
        super().kill_worker(pid, sig)

    def handle_int(self) -> None:
        """Handle Ctrl-C like SIGTERM; a second one stops immediately."""
        raise StopIteration

    handle_quit = handle_int

    def handle_hup(self) -> None:
        """Ignore SIGHUP here: Gunicorn would fork workers from the loaded code, which is the old code."""
        self._refuse("SIGHUP")

    def handle_usr2(self) -> None:
        self._refuse("SIGUSR2")

    def _refuse(self, name: str) -> None:
        supervisor = self.generation.supervisor
        remedy = f"send it to the supervisor, pid {supervisor}" if supervisor else self._how_to_reload()
        self.log.warning("%s has no effect: %s.", name, remedy)

    def _how_to_reload(self) -> str:
        why = self.app.plan.supervisor.why
        return f"restart the server to serve new code (without a supervisor, because {why})"

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if reason is not None:
            self.failed = True
            self.generation.failed(reason)
        super().halt(reason, exit_status)

    def stop(self, graceful: bool = True) -> None:
        """Fail readiness, wait for the drain delay, close the listeners, let workers finish, kill the others.

        Takes at most the drain delay plus the graceful timeout. SIGINT or SIGQUIT meanwhile ends it
        immediately.
        """
        if self.stopped:
            return
        self.stopped, began = True, time.monotonic()
        self.app.say.end_poll()
        self.generation.stopping()
        if self.all_ready:
            self.monitor.run_guarded(self.monitor.learn_last)
        for_good = not self.generation.is_retired()
        drains = bool(self.WORKERS) and for_good and not self.generation.is_orphan()
        hasty, patience = False, self.app.plan.graceful_timeout.value
        delay = self.app.plan.drain_delay.value if drains else 0.0
        waits_for = self._log_stopping(delay, patience, for_good)
        self.sides.stop(delay + patience)
        if drains:
            hasty = self._drain(delay)
        if for_good:
            stop_flags.mark_closing()
        sock.close_sockets(self.LISTENERS, False)
        self.LISTENERS = []
        self._kill_all(signal.SIGTERM if graceful else signal.SIGQUIT)
        self._await_workers(0 if hasty else patience)
        if waits_for:
            who = "Stopped" if for_good else f"Generation {self.generation.number} has stopped"
            cut = f": {_count(self.aborted)} aborted" if self.aborted else ""
            self._log_notice("%s after %.1f s%s.", who, time.monotonic() - began, cut)

    def _log_stopping(self, drain: float, patience: float, for_good: bool) -> bool:
        """Log how many requests a stop waits for, and how long; return whether its end should be logged.

        The log already explains a failed start. After a reload, only requests that still run are news.
        """
        number, is_new = self.unfinished(), self.generation.during_reload and not self.all_ready
        if self.failed or is_new or not (number or for_good or self.sides.minders):
            return False
        most, sockets = format_duration(patience), self.websockets()
        parts = [_count(number)] if number or not self.sides.minders else []
        parts += [counted(sockets, "websocket")] if sockets else []
        parts += self.sides.describe()
        what = " and ".join(parts)
        if not for_good:
            self._log_notice("Generation %d finishes %s, for at most %s.", self.generation.number, what, most)
        elif drain:
            still = f"{format_duration(drain)} of drain delay, in which requests are still accepted"
            self._log_notice("Stopping: %s running; %s; then at most %s.", what, still, most)
        else:
            self._log_notice("Stopping: %s running, at most %s.", what, most)
        return True

    def _log_notice(self, message: str, *arguments: object) -> None:
        """Log at info; a custom logger class has only Gunicorn's method for that."""
        getattr(self.log, "notice", self.log.info)(message, *arguments)

    def unfinished(self) -> int | None:
        """Return how many requests run or wait in the workers; None if the workers do not report it."""
        return None

    def websockets(self) -> int:
        """Return how many websockets are open."""
        return 0

    def _drain(self, seconds: float) -> bool:
        """Keep serving while load balancers learn of the stop; return whether the operator is in a hurry."""
        stop_flags.drain()
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0:
            received = super().wait_for_signals(min(remaining, 0.5))
            if IMMEDIATE_SIGNALS & set(received):
                return True
            self.reap_workers()
            self.murder_workers()
            self.manage_workers()
            self.generation.beat()
        return False

    def _await_workers(self, seconds: float) -> None:
        """Wait until every worker and process has ended; kill those that have not ended in time."""
        if not seconds:
            self.sides.stop(HURRIED_STOP_SECONDS)
        end = time.monotonic() + seconds
        left = asked = False
        while self._has_children() and (remaining := end - time.monotonic()) > 0:
            if not asked and remaining < REPORT_SECONDS:
                asked = True
                self.monitor.run_guarded(self.monitor.reports.ask_unfinished)
            if not left and stop_flags.all_stopped_accepting(self.WORKERS.values()):
                left = True
                self.generation.stopped_accepting()
            with suppress(queue.Empty):
                if self.SIG_QUEUE.get(timeout=min(remaining, 0.2 if left else 0.01)) in IMMEDIATE_SIGNALS:
                    self.aborted = max(self.aborted, self.unfinished() or 0)
                    self._kill_all(signal.SIGQUIT)
                    self.sides.stop(HURRIED_STOP_SECONDS)
                    end = min(end, time.monotonic() + HURRIED_STOP_SECONDS)
        self.kill_remaining()
        end = time.monotonic() + 0.3
        while self._has_children() and time.monotonic() < end:
            time.sleep(0.01)

    def kill_remaining(self) -> None:
        """Kill the workers and processes that have not finished in time."""
        self.sides.kill()
        self.aborted = max(self.aborted, self.unfinished() or 0)
        self._kill_all(signal.SIGKILL)

    def _has_children(self) -> bool:
        """Return whether a child process is left; those that have ended are reaped first."""
        self.reap_dirty_arbiter()
        with suppress(HaltServer):  # a worker that failed to boot changes nothing now
            self.reap_workers()
        return bool(self.WORKERS or self.dirty_arbiter_pid or self.sides.minders)

    def _kill_all(self, number: int) -> None:
        self.kill_workers(number)
        self.kill_dirty_arbiter(number)


def _count(requests: int | None) -> str:
    if requests is None:
        return "an unknown number of requests"
    return counted(requests, "request") if requests else "no requests"


def _has_answered(worker: Any) -> bool:
    """Return whether a worker's loop runs: before its first beat, its file has the wall clock's time."""
    with suppress(OSError, ValueError):
        return bool(worker.tmp.last_update() <= time.monotonic())
    return False
