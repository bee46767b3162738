"""The worker process as Gunicorn sees it: its start, its heartbeat, and its end.

Lives in a worker, on its main thread, which runs neither requests nor Django. It sends the heartbeat, runs
the tasks that are due once a second, handles signals, and ends the process when it must. ``__init__`` runs in
the arbiter.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn.workers.base import Worker

from ..errors import ProdserveError, UsageError
from ..logs import nonblocking
from ..middleware.application import Application
from ..scoreboard import stop_flags
from ..scoreboard.board import REASONS, Scoreboard
from ..scoreboard.events import Event, write
from ..scoreboard.slot import GO_HUNG, RETIRING, SERVING, Slot
from ..startup import monkey_patching
from ..startup.certificates import contexts_of_gunicorn
from ..tls.contexts import TLSContexts
from ..tls.renewal import Renewals
from ..utils import fork_guard
from . import body_space, refusals
from .access_log import AccessLog
from .async_requests import AsyncRequests
from .asyncio_loop import CHECK_SECONDS
from .config import WorkerConfig
from .deadlines import Deadlines
from .reactor import Reactor
from .watchdog import HUNG, RequestWatchdog, RunningRequests, ThreadRequests

LINGER_IDLE = 2.0
"""Seconds that a retiring worker waits for a request that a client may be sending on an idle connection."""
BEFORE_KILL = 0.5
"""Seconds before the deadline in which a worker logs that a shutdown takes too long: then it is killed."""
HUNG_SHUTDOWN = 1.0
"""Seconds for the shutdown of the application in a worker that is replaced because it hangs."""
SPARE_SLOTS = 8
BOOT_ERROR = 3
"""Gunicorn's exit code of a worker that failed to boot."""


class ProdserveWorker(Worker):  # type: ignore[misc]  # Gunicorn has no types
    """Serves one process's share of the connections."""

    wsgi: Any
    board: Scoreboard
    """Shared with the arbiter; under plain Gunicorn with the other workers."""
    application: Application
    """The same as ``wsgi``, with its layers by name: the event loop does the work of some of them."""
    config: WorkerConfig
    marks_its_start = True
    """Whether this class shows on the scoreboard by itself that it serves."""
    prodserve: Any
    """Our arbiter, as it was when it forked; plain Gunicorn sets none."""
    is_supervised = False
    """Whether our arbiter replaces this worker on request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slot = self._claim()
        self._reopens = False
        if self.cfg.is_ssl and getattr(self.app, "tls", None) is None:  # under plain Gunicorn
            self.app.tls = self._contexts()

    def _contexts(self) -> TLSContexts:
        """Return the contexts that all workers share; the arbiter ends if they cannot be made."""
        try:
            return contexts_of_gunicorn(self.cfg)
        except UsageError as error:
            self.log.critical("%s", error)
            sys.exit(error.exit_code)

    def _claim(self) -> Slot:
        """Take a free slot on the scoreboard, in the arbiter, before the fork.

        Gunicorn gives every worker the same application object, so that object carries the scoreboard.
        """
        board: Scoreboard | None = getattr(self.app, "board", None)
        if board is None:
            slots = 2 * self.cfg.workers + SPARE_SLOTS
            board = Scoreboard.create(None, slots=slots, rows=self.cfg.threads + 1, now=time.monotonic())
            self.app.board = board
        self.board = board
        for slot in board.active_slots():
            if slot.pid and not _is_alive(slot.pid):
                board.release(slot)
        return board.claim()

    def init_process(self) -> None:
        """Take the slot, then let Gunicorn set up the process, load the application and call ``run``."""
        self.slot.start(os.getpid(), self.slot.generation, self.cfg.threads, time.monotonic())
        self.access = AccessLog(self.log, self.cfg)  # before a signal handler can write it
        super().init_process()

    @property
    def sees_no_requests(self) -> bool:
        """Return whether no user hook needs to see every request."""
        names = ("pre_request", "post_request")
        return all(self.cfg.settings[name].get() is self.cfg.settings[name].default for name in names)

    def run(self) -> None:
        """Serve until the arbiter stops this worker, or until ``max_requests`` were served."""
        self.application = Application.of(self.wsgi)
        config: WorkerConfig | None = getattr(
            self.app, "worker_config", None
        )  # plain Gunicorn's app has none
        self.config = config or WorkerConfig.from_plan(self.application.plan)
        self.application.health.readiness.start()
        body_space.count_bodies()
        self.reactor = Reactor(self, self.sockets, self.board, self.slot)
        self.deadlines = Deadlines(self.reactor)
        tasks = self.reactor.async_requests
        sources: list[RunningRequests] = [ThreadRequests(self.slot), *([] if tasks is None else [tasks])]
        limits: dict[str, Any] = {"timeout": self.config.timeout, "slow": self.config.slow_request}
        watchdog = partial(RequestWatchdog, self.slot, **limits, log=self.log)
        self.watches = [*map(watchdog, sources)]
        self.access.configure()
        if tasks is not None:
            self._start(tasks)
        self.slot.state = SERVING
        self.reactor.acceptor.start()
        self.reactor.scheduler.start()
        self._wakeup = select.poll()
        self._wakeup.register(self.PIPE[0], select.POLLIN)
        next_look, scheduler = 0.0, self.reactor.scheduler
        while self.alive:
            now = time.monotonic()
            scheduler.tick(now)
            if tasks is not None:
                tasks.tick(now)
            if now >= next_look:
                next_look = now + 1.0
                self._tick(now)
            due = min(scheduler.tick_in(now), next_look - now)
            self._sleep(due if tasks is None else min(due, CHECK_SECONDS))
            if self._reopens:
                self._write_logs(now)
        if fork_guard.PROCESS.is_copy:  # a signal handler or other code in the main thread has forked
            fork_guard.end("The main thread", None, self.log)
        self._drain()

    def _start(self, tasks: AsyncRequests) -> None:
        """Start the asyncio loop and the application on it; a failed startup is a failed boot."""
        try:
            tasks.start(lambda: bool(self.alive))
        except ProdserveError as error:
            self.log.critical("%s", error)
            text = f"{error.message} ({error.where})" if error.where else error.message
            write(self.slot.events, Event(time.time(), "boot", text))
            nonblocking.drain()
            sys.exit(BOOT_ERROR)
        if self.is_supervised:
            self.prodserve.stacks.add_tasks(self.slot.index, tasks.stacks)

    def _tick(self, now: float) -> None:
        self.notify()
        self.slot.heartbeat = now
        if self.ppid != os.getppid():
            self.log.debug("The master process is gone; this worker exits.")
            self.alive = False
        self.reactor.tick(now)
        self.deadlines.tick(now)
        self._load_renewed()
        for watch in self.watches:
            watch.tick(now)
        if not self.slot.replacement_reason and (
            what := monkey_patching.found()
        ):  # a request has patched it: its threads are greenlets now
            self.log.error(
                "%s in a worker: it is replaced. %s %s",
                what,
                monkey_patching.CONSEQUENCE,
                monkey_patching.remedy(),
            )
            self.slot.replacement_reason = HUNG
        if not self.slot.replacement_reason and self.slot.counters().requests >= self.max_requests:
            self._request_replacement()
        self._write_logs(now)

    def _load_renewed(self) -> None:
        """Load the certificates that the arbiter has taken over; if that fails, request a replacement."""
        renewals: Renewals | None = getattr(self.app, "renewals", None)
        if renewals is not None and (error := renewals.follow(self.app.tls)) is not None:
            self.log.error("A renewed certificate cannot be loaded: %s. This worker is replaced.", error)
            self.slot.replacement_reason = REASONS.index("asked") + 1

    def _write_logs(self, now: float) -> None:
        """Write the noted lines, and report lines that could not be written."""
        if self._reopens:
            self._reopens = False
            self.log.reopen_files()
        self.access.flush()
        for line in nonblocking.report_lost(now):
            self.log.error("%s", line)

    def _request_replacement(self) -> None:
        """Request a replacement; without our arbiter, Gunicorn starts one after this worker ends."""
        self.slot.replacement_reason = REASONS.index("max-requests") + 1
        self.alive = self.is_supervised and self.alive

    def _sleep(self, seconds: float) -> None:
        """Sleep for this time, or until a signal."""
        if self._wakeup.poll(max(0.0, seconds) * 1000):
            os.read(self.PIPE[0], 4096)

    def wake(self) -> None:
        """End the main thread's sleep. Any thread may call this."""
        with suppress(BlockingIOError):  # it is about to wake already
            os.write(self.PIPE[1], b".")

    def _drain(self) -> None:
        """Accept no more connections, answer those that are open, and end: by the deadline at the latest."""
        began = now = time.monotonic()
        deadline = began + self.cfg.graceful_timeout
        self.slot.state = RETIRING
        self.reactor.retire(now, deadline)
        stop_flags.mark_stopped_accepting(self)
        next_look = now
        while (self.reactor.connections or self.reactor.websockets) and now < deadline:
            if now >= next_look:
                next_look = now + 0.25
                self._tick(now)
                if self.slot.exit_mode == GO_HUNG:
                    self.deadlines.turn_away(now)
                if now - began > LINGER_IDLE:
                    self.deadlines.hurry(now)
            self.reactor.scheduler.tick(now)
            if self.reactor.async_requests is not None:
                self.reactor.async_requests.tick(now)
            self._sleep(0.02)
            now = time.monotonic()
        if self.reactor.async_requests is not None:
            most = HUNG_SHUTDOWN if self.slot.exit_mode == GO_HUNG else deadline - now - BEFORE_KILL
            self.reactor.async_requests.stop(now + most)
        self.access.flush()
        nonblocking.drain()

    def disown(self) -> None:
        """In a copy of this process, close the copied client sockets, and let no thread serve them."""
        if hasattr(self, "reactor"):
            self.reactor.disown()
        for descriptor in self.PIPE:
            os.close(descriptor)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Log and answer a request that is refused, or that raised."""
        refusals.refuse(self, req, client, addr, exc)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        """Make the main loop reopen the logs: it may be writing to one at this moment."""
        self._reopens = True

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End immediately, but write the noted requests first."""
        self.access.flush()
        super().handle_quit(sig, frame)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
