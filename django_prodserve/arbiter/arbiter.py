"""Gunicorn's master process with our sockets, a scoreboard, and workers that are replaced before they stop.

Lives in the arbiter process, on its main loop; ``install_slot_hooks`` wraps hooks that run in workers, too.
monitor.py has the tasks that run once a second. The arbiter reads the scoreboard and /proc, forks, sends
signals, and never blocks.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from ..machine.proc import raise_own_oom_score
from ..monitoring.server_facts import server_facts
from ..scoreboard.board import Scoreboard, board_path, last_board
from ..scoreboard.events import Event, last_of, read
from ..scoreboard.slot import GO_HUNG, SERVING
from ..scoreboard.stacks import Stacks
from ..tls.contexts import TLSContexts
from ..tls.renewal import Renewals
from ..utils.units import counted
from . import hooks, policies
from .lifecycle import Lifecycle
from .memory_guard import Headroom
from .monitor import WorkerMonitor
from .policies import Verdict, WorkerExit
from .side_processes import SideProcesses
from .worker_pool import WorkerHandle, WorkerPool

if TYPE_CHECKING:
    from ..plan.plan import Plan

BEYOND = 2.0
"""Seconds after its graceful timeout until the arbiter kills a worker."""


class ProdserveArbiter(Lifecycle, Arbiter):  # type: ignore[misc]
    """Gunicorn's master process, with our sockets and without its reload, which would serve old code."""

    board: Scoreboard
    stacks: Stacks
    _last_logged_active_worker_count: int | None

    def __init__(self, app: Any) -> None:
        app.arbiter = self
        self.plan: Plan = app.plan
        self.generation = app.generation
        self.number: int = self.generation.number
        place = self.generation.run_dir
        self.board_path: Path | None = board_path(place, self.number) if place else None
        self.pool = WorkerPool()
        self.headroom = Headroom(self.plan)
        self.rounds, self.last_failure, self.next_start = 0, 0.0, 0.0
        self.has_served = self.stopping = False
        super().__init__(app)

    def start(self) -> None:
        # "systemd" is Gunicorn's name for sockets of another owner: it does not unlink their paths.
        self.systemd = True
        self.plan = self.app.plan  # loading has measured the project since
        self.sides = SideProcesses(self)
        self.make_board()
        self.tls: TLSContexts | None = self.app.tls
        self.renewals = None if self.tls is None else Renewals(self.tls.pairs)
        self.app.renewals = self.renewals
        self.monitor = WorkerMonitor(self)
        super().start()
        if self.generation.during_reload:
            self.begin_small()

    def begin_small(self) -> None:
        """Begin with as many workers as fit into memory alongside those of the previous generation."""
        wanted, self.num_workers = self.num_workers, self.headroom.begin(self.num_workers)
        if self.num_workers < wanted:
            self.log.notice(
                "Memory has room for %d of %d workers alongside the old ones; others start when those stop.",
                self.num_workers,
                wanted,
            )

    def make_board(self) -> None:
        """Create the scoreboard; if its file cannot be written, only this server can read it."""
        slots, rows = 2 * self.num_workers + 8, max(self.cfg.threads, self.plan.max_threads.value) + 1
        now = time.monotonic()
        names = [process.name for process in self.sides.processes]
        document = {"plan": self.app.explained(), "server": server_facts(self.plan), "processes": names}
        try:
            self.board = Scoreboard.create(
                self.board_path, slots=slots, rows=rows, now=now, document=document, sides=len(names)
            )
            self.stacks = Stacks(slots, self.board_path)
        except OSError as error:
            self.log.warning(
                "Cannot create the status file: %s. prodserve status and dump will not work.", error
            )
            self.board_path = None
            self.board = Scoreboard.create(
                None, slots=slots, rows=rows, now=now, document=document, sides=len(names)
            )
            self.stacks = Stacks(slots, None)
        self.app.board = self.board
        self.note: dict[str, Any] = {}
        self.log_line(profile=self.plan.profile.value, settings=self.plan.settings.value)

    def log_line(self, **facts: Any) -> None:
        """Write facts to the scoreboard for ``status``."""
        self.note |= facts
        self.board.write_summary(self.note)

    def record_event(self, kind: str, text: str, stack: str = "") -> None:
        """Record an event on the scoreboard."""
        self.board.record_event(Event(time.time(), kind, text, stack))

    def on_all_ready(self) -> None:
        self.monitor.run_guarded(self._go_on)
        self.monitor.run_guarded(self.monitor.learn, time.monotonic())
        self.monitor.run_guarded(self.sides.start)
        self.monitor.run_guarded(self.app.announce)

    def _go_on(self) -> None:
        """Copy the records of the previous generation, and log that this one serves."""
        before = last_board(self.board_path.parent, self.number) if self.board_path else None
        if before is not None:
            self.board.take_over(before)
            self.monitor.resume(before.read_events())
        text = f"Generation {self.number} serves with {counted(self.num_workers, 'worker')}"
        self.record_event("reload" if self.number > 1 else "start", text)

    def on_reload_failed(self, number: int, reason: str) -> None:
        """Record it as an event; the supervisor has logged it."""
        line, _, more = reason.strip().partition("\n")
        text = f"Generation {number} could not start, generation {self.number} keeps serving: {line}"
        self.monitor.run_guarded(self.record_event, "reload failed", text, more)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        signals: list[int] = super().wait_for_signals(min(timeout, self.monitor.memory.patience))
        return signals

    # Starting workers.

    def spawn_worker(self) -> int | None:
        """Fork a worker that cannot miss a stop signal: the signal waits until the worker has its handlers.

        Gunicorn loses a SIGTERM between the fork and ``init_signals``; stopping then takes all of
        graceful_timeout. The worker's part is in ``hooks.post_worker_init``.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, hooks.STOPPING)
        arbiter_pid = os.getpid()
        try:
            pid = super().spawn_worker()
            assert pid is not None  # the worker ends below
            worker = self.WORKERS[pid]
            self.pool.members[pid] = WorkerHandle(worker, worker.slot, born=time.monotonic())
            return pid
        except SystemExit as ending:
            if os.getpid() != arbiter_pid:
                hooks.exit_worker(ending)
            raise
        finally:
            if os.getpid() == arbiter_pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, hooks.STOPPING)

    def manage_workers(self) -> None:
        """Keep the worker pool complete; Gunicorn calls this in each iteration of its loop."""
        self.monitor.run_guarded(self._complete_pool)

    def _complete_pool(self) -> None:
        """Stop workers that have a replacement, and start workers that the pool lacks."""
        wanted = self.num_workers
        for member in self.pool.surplus(wanted):
            self.let_go(member, "fewer wanted")
        for member, reason in self.pool.replaced(wanted):
            self.let_go(member, reason)
        if time.monotonic() >= self.next_start:
            self._start_missing(wanted)
        self._send_metrics()

    def _start_missing(self, wanted: int) -> None:
        free = sum(1 for slot in self.board.slots if slot.is_free)
        for _ in range(min(free, self.pool.missing(wanted))):
            try:
                self.spawn_worker()
            except OSError as error:  # no process or memory left for one more
                self.start_failed(f"Cannot start a worker: {error}")
                self._free_slots()
                return

    def _free_slots(self) -> None:
        """Free the slots of workers that never began."""
        known = {member.slot.index for member in self.pool}
        for slot in self.board.active_slots():
            if slot.index not in known:
                slot.clear()

    def _send_metrics(self) -> None:
        """Log the lines that Gunicorn's statsd logger turns into metrics."""
        count = len(self.pool.active())
        if count != self._last_logged_active_worker_count:
            self._last_logged_active_worker_count = count
            self._gauge("workers", count, "gauge")
        if self.cfg.enable_backlog_metric:
            self._gauge("backlog", self.monitor.waiting(), "histogram")

    def _gauge(self, name: str, value: int, kind: str) -> None:
        extra = {"metric": f"gunicorn.{name}", "value": value, "mtype": kind}
        self.log.debug("%s: %d", name, value, extra=extra)

    # Stopping workers.

    def replace(self, member: WorkerHandle, verdict: Verdict) -> bool:
        """Replace a worker, starting its replacement first; False if it must wait or is already marked."""
        if not self.pool.mark_for_replacement(member.pid, verdict.reason):
            return False
        self.log.warning("Worker %s %s; replacing it.", member.pid, verdict.line)
        self.record_event(verdict.reason, f"Worker {member.pid} {verdict.line}; replacing it")
        return True

    def let_go(self, member: WorkerHandle, reason: str) -> None:
        """Make a worker finish its requests and stop; abort an unresponsive one after a second."""
        silent = reason == "hung" and self.monitor.is_silent(member)
        patience = 1.0 if silent else self.cfg.graceful_timeout + BEYOND
        member.slot.exit_mode = GO_HUNG if reason == "hung" else 0
        self.pool.mark_leaving(member, reason, time.monotonic() + patience)
        self.kill_worker(member.pid, signal.SIGABRT if silent else signal.SIGTERM)

    def murder_workers(self) -> None:
        """Check every worker: Gunicorn calls this in each iteration of its loop."""
        self.monitor.tick()

    # Workers that have ended.

    def reap_workers(self) -> None:
        """Reap workers that have ended; Gunicorn's own method may stop a serving site because of one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.dirty_arbiter_pid:
                self.handle_dirty_arbiter_exit(pid, status)
            else:
                self.monitor.run_guarded(self.ended, pid, status)

    def ended(self, pid: int, status: int) -> None:
        """Log why a worker has ended, unless the arbiter stopped it; keep its counts."""
        worker, member = self.WORKERS.pop(pid, None), self.pool.remove(pid)
        if member is None:  # a minder; or an orphan, if this is PID 1
            self.sides.ended(pid, status)
            return
        now = time.monotonic()
        member.served = member.served or member.slot.state == SERVING
        self.has_served = self.has_served or member.served
        verdict = policies.why_it_ended(self._end(member, status))
        crash = self.stacks.crash(member.slot.index) if os.WIFSIGNALED(status) else ""
        if verdict is not None:
            self.log.error("Worker %s %s.%s", pid, verdict.line, crash and f" Stack:\n{crash}")
            ran = self.monitor.reports.log_requests(member)
            stack = "\n".join(part for part in (ran, crash) if part)
            self.record_event(verdict.reason, f"Worker {pid} {verdict.line}", stack)
            self.board.count_restart(verdict.reason)
        elif member.leaving and not self.stopping:
            self.board.count_restart(member.leaving)
        if verdict is None and crash:
            self.log.error("Worker %s crashed while it stopped. Stack:\n%s", pid, crash)
        if verdict is None and not member.killed:
            self.monitor.reports.log_unfinished(member)
        told = last_of(read([member.slot.events]), "boot")
        self.board.release(member.slot)
        self.monitor.reports.forget(pid)
        if worker is not None:
            worker.tmp.close()
            self.cfg.child_exit(self, worker)
        if verdict is not None and not (member.served and now - member.born > 10):
            self._failed_early(member, status, told.text if told is not None else "No worker could boot.")

    def _end(self, member: WorkerHandle, status: int) -> WorkerExit:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        by_another = number == signal.SIGKILL and not member.killed
        return WorkerExit(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            number=number,
            ours=bool(member.leaving) or self.stopping,
            served=member.served,
            recycles=bool(self.cfg.max_requests),
            out_of_memory=by_another and self.monitor.memory.was_killer(),
        )

    def _failed_early(self, member: WorkerHandle, status: int, reason: str) -> None:
        """Increase the delay before the next attempt; stop if no worker has ever served, or none can."""
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if code in (self.WORKER_BOOT_ERROR, self.APP_LOAD_ERROR) and not self.has_served:
            raise HaltServer(reason, code)
        if member.born >= self.last_failure:
            self.start_failed("")
        if policies.gives_up(self.rounds, len(self.pool.serving())):
            text = f"No worker serves after {self.rounds} attempts: stopping the server"
            self.log.critical("%s.", text)
            self.record_event("failed", text)
            raise HaltServer("No worker can serve.", self.WORKER_BOOT_ERROR)

    def start_failed(self, line: str) -> None:
        """Count a failed round and delay the next one."""
        self.last_failure = time.monotonic()
        self.rounds += 1
        self.next_start = self.last_failure + policies.back_off(self.rounds)
        if line or self.rounds == 3:
            line = line or "Workers exit as soon as they start; retrying with increasing delays."
            self.log.error("%s", line)
            self.record_event("failed", line)

    def recovered(self, now: float) -> None:
        """Reset the failed rounds once workers have served for a while."""
        serving = self.pool.serving()
        for member in serving:
            member.served = True
        self.has_served = self.has_served or bool(serving)
        if any(now - member.born > 10 and member.born > self.last_failure for member in serving):
            self.rounds = 0

    def start_deferred(self, now: float) -> None:
        """Start workers that had to wait until another generation released its memory."""
        more = self.headroom.tick(now) if self.all_ready else 0
        if more:  # Gunicorn calls the hook nworkers_changed whenever the number is set
            self.num_workers += more

    # Stopping.

    def stop(self, graceful: bool = True) -> None:
        self.stopping = True
        super().stop(graceful)
        self.monitor.run_guarded(self.monitor.end_overload, time.monotonic(), 0.0)
        self.board.remove()
        self.stacks.remove(self.board_path)

    def unfinished(self) -> int | None:
        if self.plan.worker_class.value != "prodserve" and not self.plan.is_asgi_class:
            return None
        return sum(slot.count_running() + slot.waiting() + slot.tasks for slot in self.board.active_slots())

    def websockets(self) -> int:
        return sum(slot.websockets for slot in self.board.active_slots())

    def kill_remaining(self) -> None:
        """Log the unfinished requests of the remaining workers, and kill the workers."""
        for member in self.pool:
            member.killed = True
            self.monitor.run_guarded(self.monitor.reports.log_unfinished, member)
        super().kill_remaining()

    # Around a fork.

    def release_sockets(self) -> None:
        """In a fork that is not a worker: close the sockets of the server."""
        for listener in (*self.LISTENERS, *filter(None, [self.app.management])):
            listener.close()
        self.generation.release()

    def taken_memory(self) -> int:
        return self.monitor.memory.taken()

    def handle_usr1(self) -> None:
        self.sides.signal_all(signal.SIGUSR1)
        super().handle_usr1()

    def give_slot(self, worker: Any) -> None:
        """Give a worker its slot on the scoreboard, before the fork; our own workers already have one."""
        worker.is_supervised = True
        if not hasattr(worker, "slot"):
            worker.slot = self.board.claim()

    def take_slot(self, worker: Any) -> None:
        """In the worker, right after the fork: register in the slot, and for requests of stacks."""
        raise_own_oom_score()
        self.stacks.register(worker.slot.index)
        worker.slot.start(os.getpid(), self.number, self.cfg.threads, time.monotonic())

    def serves_now(self, worker: Any) -> None:
        """In the worker, when it has loaded; our own has its application's startup before it serves."""
        if not getattr(worker, "marks_its_start", False):
            worker.slot.state = SERVING


def install_slot_hooks(config: Any) -> None:
    """Combine the arbiter's own steps with the hooks in Gunicorn's configuration."""
    pre_fork, post_fork, post_worker_init = config.pre_fork, config.post_fork, config.post_worker_init

    def before(arbiter: ProdserveArbiter, worker: Any) -> None:
        arbiter.give_slot(worker)
        worker.prodserve = arbiter
        pre_fork(arbiter, worker)

    def after(arbiter: ProdserveArbiter, worker: Any) -> None:
        arbiter.take_slot(worker)
        post_fork(arbiter, worker)

    def loaded(worker: Any) -> None:
        post_worker_init(worker)
        worker.prodserve.serves_now(worker)

    wrapped: dict[str, Callable[..., None]] = {
        "pre_fork": before,
        "post_fork": after,
        "post_worker_init": loaded,
    }
    for name, hook in wrapped.items():
        config.set(name, hook)
