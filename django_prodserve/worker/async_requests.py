"""Run requests as tasks on the asyncio loop: an async view that waits occupies no thread.

Lives in a worker. ``wants`` and ``submit`` run in the thread that receives a request's last bytes. ``retire``
and what the watchdog calls run in the main thread. Everything else runs in the loop's thread. While a task
runs, it owns the connection as a pool thread would; then it returns the connection to the reactor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..asgi import shared_loop
from ..http.exceptions import ClientGoneError
from ..scoreboard.slot import TASK_ROWS, Request, Slot
from ..scoreboard.stacks import describe
from .async_request import ENDING, TIMEOUT, AsyncRequest, AsyncStream
from .asyncio_loop import AsyncioLoop, request_id_of, stack_of
from .connection import Connection
from .lifespan import Lifespan
from .request_handler import ConnectionResponse
from .switch_interval import LOOP, SwitchInterval
from .websockets import LAST_CALL_SECONDS, WebSockets

if TYPE_CHECKING:
    from ..asgi.part import AsyncPart
    from .request_handler import RequestHandler
    from .scheduler import Scheduler
    from .streaming import StreamFlowControl

SWEEP_SECONDS = 0.25
"""Interval at which the loop checks the clients of its requests."""
STREAMS_END_AFTER = 1.0
"""Seconds that an event stream continues in a worker that stops: its client then connects again."""
IDLE_AFTER = 1.0
"""Seconds without a request after which threads may keep the GIL as long as in other workers."""


class Connections(Protocol):
    """What requests on the loop need from the reactor, which owns the connections."""

    worker: Any
    slot: Slot
    streams: StreamFlowControl
    handler: RequestHandler
    scheduler: Scheduler
    retiring: bool

    def finish_response(self, connection: Connection, now: float, *, keep: bool) -> bytes | None:
        """Finish a response; return the bytes behind its request."""

    def next_pipelined(self, connection: Connection, behind: bytes | None, now: float) -> None:
        """Handle the next request if its bytes have already arrived."""

    def drop(self, connection: Connection) -> None:
        """Close a connection."""

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        """Close a connection, ``politely`` once its client does, too."""

    def report_failure(self) -> None:
        """Log an internal error of the server."""


class AsyncRequests:
    """The requests that run on the asyncio loop of one worker."""

    def __init__(self, reactor: Connections, part: AsyncPart, limit: int, interval: SwitchInterval) -> None:
        worker, self.reactor, self.slot, self.limit = reactor.worker, reactor, reactor.slot, limit
        self.handler, self.streams = reactor.handler, reactor.streams
        self.log, self.access = worker.log, worker.access
        self.part, self.wants = part, part.wants
        proxy = worker.application.proxy
        self.sanitize = proxy.sanitize if proxy is not None else lambda environ: None
        self.running: dict[int, AsyncRequest] = {}
        self.loop = AsyncioLoop(self.slot, self, worker.log)
        self.event_loop = self.loop.loop
        self.lifespan: Lifespan | None = None
        if part.lifespan is not None:
            self.lifespan = Lifespan(part.lifespan, part.name, part.state, self.event_loop, worker.log)
        self.rows = [*reversed(self.slot.task_rows)]
        """Free rows of the scoreboard."""
        self._sweeps = False
        self.websockets = (
            None if part.websocket is None else WebSockets(reactor, part, self.loop, self.rows, limit)
        )
        self._interval, self._had_work, self._worked_at = interval, False, 0.0

    def start(self, is_wanted: Callable[[], bool]) -> None:
        """Start the loop, and the application; raise ProdserveError if its startup fails."""
        self.loop.start()
        if self.lifespan is not None:
            self.lifespan.start(is_wanted)

    def stop(self, deadline: float) -> None:
        """Shut the application down, after the last request."""
        if self.lifespan is not None:
            self.lifespan.stop(deadline)

    def thread_started(self) -> None:
        """Let ``async_to_sync`` in this thread of the pool use the loop."""
        if self.part.shares_loop:
            shared_loop.share(self.event_loop)

    def __len__(self) -> int:
        return len(self.running) + len(self.websockets or ())

    # In the thread that receives the request.

    def submit(self, connection: Connection) -> bool:
        """Start a complete request; return False if too many run already."""
        if len(self.running) >= self.limit:
            return False
        self._begin(AsyncRequest(self, connection))
        return True

    # In a thread of the pool.

    def adopt(
        self, response: ConnectionResponse, stream: Any, environ: dict[str, Any], started: float
    ) -> bool:
        """Take over the async stream of a sync view; return False if its thread must send it."""
        if not self.part.adopts or len(self.running) >= self.limit:
            return False
        request = AsyncStream(self, response, stream, environ)
        request.started = started
        self._begin(request)
        return True

    def _begin(self, request: AsyncRequest) -> None:
        self.running[request.connection.fd] = request
        self.slot.tasks = len(self.running)
        self._had_work = True
        self.loop.run_soon(request.begin)

    # In the main thread.

    def tick(self, now: float) -> None:
        """Check the loop, let threads that compute make room for it, and publish how many are leased."""
        self.loop.tick(now)
        if self._had_work or len(self):
            self._had_work, self._worked_at = False, now
            self._interval.shorten(LOOP)
        elif now - self._worked_at >= IDLE_AFTER:
            self._interval.restore(LOOP)
        slot, leases = self.slot, self.part.leases
        slot.leases, slot.leases_busy, slot.leases_waiting = leases.limit, leases.busy, leases.waiting

    def requests(self) -> Iterator[Request]:
        """Return those that run, for the watchdog."""
        for running in [*self.running.values()]:
            if running.started:
                yield running.shown()

    def stack(self, request: Request) -> str:
        """Return where the task of a request waits."""
        running = self.running.get(request.row)
        task = running.task if running is not None else None
        return stack_of(task) if task is not None else "(it has ended)"

    def stacks(self) -> str:
        """Return the oldest requests and websockets, each with where its task waits, for ``dump``."""
        now = time.monotonic()
        found = [(each.shown(), each.task) for each in [*self.running.values()] if each.started]
        if self.websockets is not None:
            found += self.websockets.shown()
        oldest = sorted(found, key=lambda pair: pair[0].start)[:TASK_ROWS]
        lines = [(describe(request, now), task) for request, task in oldest]
        return "\n\n".join(f"{line}\n{stack_of(task) if task else '(it begins)'}" for line, task in lines)

    def interrupt(self, request: Request) -> None:
        """Cancel the task of a request that ran too long."""
        running = self.running.get(request.row)
        if running is not None and running.started == request.start:
            self.loop.run_soon(running.leave, TIMEOUT)

    def retire(self, deadline: float) -> None:
        """End event streams soon, and all others right before the deadline: the worker stops."""
        self.loop.run_soon(self._retire, deadline)

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name the request of a task."""
        name = request_id_of(task)
        for running in [*self.running.values()]:
            if running.task is task or (name and running.name == name):
                return f"{running.request.method} {running.request.path} (id {running.name})"
        return (self.websockets and self.websockets.describe(task)) or "A task of no request"

    # In the loop's thread.

    @property
    def is_retiring(self) -> bool:
        """Return whether the worker stops."""
        return self.reactor.retiring

    def started(self) -> None:
        """Check the clients from time to time while requests run."""
        if not self._sweeps:
            self._sweeps = True
            self.event_loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for running in [*self.running.values()]:
            running.check(now)
        self._sweeps = bool(self.running)
        if self._sweeps:
            self.event_loop.call_later(SWEEP_SECONDS, self._sweep)

    def _retire(self, deadline: float) -> None:
        self.event_loop.call_later(STREAMS_END_AFTER, self._end, deadline)

    def _end(self, deadline: float) -> None:
        is_late = time.monotonic() >= deadline - LAST_CALL_SECONDS
        for running in [*self.running.values()]:
            if is_late or running.is_event_stream:
                running.leave(ENDING)
        self._retire(deadline)

    def finish(self, running: AsyncRequest, *, keep: bool) -> None:
        """Return the connection to the reactor; the next request on it may have arrived."""
        connection, reactor = running.connection, self.reactor
        self._forget(running)
        now = time.monotonic()
        try:
            behind = reactor.finish_response(connection, now, keep=keep)
            if behind is not None:
                reactor.next_pipelined(connection, behind, now)
                reactor.scheduler.serve_queued()
        except ClientGoneError:
            reactor.drop(connection)
        except Exception:  # an internal error costs one connection, not the loop
            reactor.report_failure()
            reactor.drop(connection)

    def drop(self, running: AsyncRequest) -> None:
        """Close the connection of a request whose client is gone."""
        self._forget(running)
        self.reactor.drop(running.connection)

    def _forget(self, running: AsyncRequest) -> None:
        running.unwatch()
        self.running.pop(running.connection.fd, None)
        self.slot.tasks = len(self.running)
