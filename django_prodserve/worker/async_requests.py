"""Run requests as tasks on the asyncio loop: an async view that waits occupies no thread.

Lives in a worker: ``wants`` and ``submit`` in the thread that receives a request's last bytes, the methods of
the watchdog and ``retire`` in the main thread, everything else in the loop's thread. While a task runs, it
owns the connection as a pool thread would; then it returns the connection to the reactor.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterator, Mapping
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from ..asgi import shared_loop
from ..asgi.leases import NoThreadFreeError
from ..asgi.sending import Body, Sender
from ..http.exceptions import ClientGoneError
from ..logs import request_id
from ..logs.environ_keys import EXCEPTION, ID, QUEUE, ROUTE, UNLOGGED
from ..middleware.request_id import timing
from ..middleware.route_names import name_of
from ..scoreboard.slot import Request, Slot
from ..timeouts import RequestTimeout
from ..utils import fork_guard
from .async_response import AsyncResponse
from .asyncio_loop import AsyncioLoop
from .connection import Connection
from .request_handler import ConnectionResponse, end_copy
from .watchdog import LEAVES_WITHIN

if TYPE_CHECKING:
    from ..asgi.part import AsyncPart
    from .request_handler import RequestHandler
    from .scheduler import Scheduler
    from .streaming import StreamFlowControl

SWEEP_SECONDS = 0.25
"""Interval at which the loop checks the clients of its requests."""
WATCHED_AFTER = 0.1
"""Seconds after which the loop watches whether the client is still connected; most requests have ended."""
PIECES_AT_A_TIME = 32
"""Pieces that a stream sends before it lets other tasks run."""
STREAMS_END_AFTER = 1.0
"""Seconds that an event stream goes on in a worker that stops: its client then connects again."""

LAST_CALL_SECONDS = 2.0
"""Seconds before a stopping worker ends in which the requests that still run are answered with 503."""

GONE, TIMEOUT, ENDING = "the client is gone", "the request ran too long", "the worker stops"
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


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


class AsyncRequests:
    """The requests that run on the asyncio loop of one worker."""

    def __init__(self, reactor: Connections, part: AsyncPart, limit: int) -> None:
        worker, self.reactor, self.slot, self.limit = reactor.worker, reactor, reactor.slot, limit
        self.handler, self.log = reactor.handler, worker.log
        self.part, self.wants = part, part.wants
        proxy = worker.application.proxy
        self.sanitize = proxy.sanitize if proxy is not None else lambda environ: None
        self.running: dict[int, AsyncRequest] = {}
        self.loop = AsyncioLoop(self.slot, self, worker.log)
        self.rows = [*reversed(self.slot.task_rows)]
        self._sweeps = False

    def start(self) -> None:
        """Start the loop."""
        self.loop.start()

    def thread_started(self) -> None:
        """Let ``async_to_sync`` in this thread of the pool use the loop."""
        if self.part.shares_loop:
            shared_loop.share(self.loop.loop)

    def __len__(self) -> int:
        return len(self.running)

    # In the thread that receives the request.

    def submit(self, connection: Connection) -> bool:
        """Start a complete request; return False if too many run already."""
        if len(self.running) >= self.limit:
            return False
        self.running[connection.fd] = request = AsyncRequest(self, connection)
        self.slot.tasks = len(self.running)
        self.loop.run_soon(request.begin)
        return True

    # In a thread of the pool.

    def adopt(
        self, response: ConnectionResponse, stream: Any, environ: dict[str, Any], started: float
    ) -> bool:
        """Take over the async stream of a sync view; return False if its thread must send it."""
        if not self.part.is_ours or len(self.running) >= self.limit:
            return False
        request = AsyncStream(self, response, stream, environ)
        request.started = started
        self.running[response.connection.fd] = request
        self.slot.tasks = len(self.running)
        self.loop.run_soon(request.begin)
        return True

    # In the main thread.

    def tick(self, now: float) -> None:
        """Check the loop."""
        self.loop.tick(now)

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

    def interrupt(self, request: Request) -> None:
        """Cancel the task of a request that ran too long."""
        running = self.running.get(request.row)
        if running is not None and running.started == request.start:
            self.loop.run_soon(running.leave, TIMEOUT)

    def retire(self, deadline: float) -> None:
        """End event streams soon, and all others right before the deadline: the worker stops."""
        self.loop.run_soon(self._retire, deadline)

    def describe(self, task: asyncio.Task[Any] | None) -> str:
        """Name the request of a task."""
        name = _name_of(task)
        for running in [*self.running.values()]:
            if task is not None and (running.task is task or (name and running.name == name)):
                return f"{running.request.method} {running.request.path} (id {running.name})"
        return "Code that belongs to no request"

    # In the loop's thread.

    def started(self) -> None:
        """Check the clients from time to time while requests run."""
        if not self._sweeps:
            self._sweeps = True
            self.loop.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for running in [*self.running.values()]:
            running.check(now)
        self._sweeps = bool(self.running)
        if self._sweeps:
            self.loop.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _retire(self, deadline: float) -> None:
        self.loop.loop.call_later(STREAMS_END_AFTER, self._end, deadline)

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

    def drop(self, running: AsyncRequest) -> None:
        """Close the connection of a request whose client is gone."""
        self._forget(running)
        self.reactor.drop(running.connection)

    def _forget(self, running: AsyncRequest) -> None:
        running.unwatch()
        self.running.pop(running.connection.fd, None)
        self.slot.tasks = len(self.running)


class AsyncRequest(Sender):
    """One request on the loop, from its last byte to the last of its response: ASGI's receive and send."""

    response: AsyncResponse

    def __init__(self, requests: AsyncRequests, connection: Connection) -> None:
        assert connection.request is not None
        self._all, self.connection, self.request = requests, connection, connection.request
        self.environ: dict[str, Any] = {}
        self.scope: dict[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        self.name, self.row, self.started, self.progress = "", 0, 0.0, 0.0
        self.reason = ""
        """Why the request must end now; empty while it may go on."""
        self._reads, self._sends, self._pieces = True, True, 0
        self._watch = False
        self._disconnected: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Create the task, in a context of its own."""
        requests = self._all
        loop = requests.loop.loop
        reactor = requests.reactor
        self.response = AsyncResponse(self.connection, self.request, reactor.streams, requests.slot, loop)
        self.task = loop.create_task(self._run())
        requests.started()

    async def _run(self) -> None:
        requests, connection, response = self._all, self.connection, self.response
        handler = requests.handler
        started = self.started = self.started or time.monotonic()
        queued, keep, is_gone = max(0.0, started - connection.arrived), False, False
        if requests.rows:
            self.row = requests.rows.pop()
        try:
            await self._work(queued)
            keep = self._complete()
        except NoThreadFreeError:
            is_gone = self._refused()
        except asyncio.CancelledError:
            is_gone, keep = self._cancelled()
        except ClientGoneError:
            is_gone = True
        except BaseException as error:  # an exception of the application costs this request, not the loop
            if fork_guard.PROCESS.is_copy:
                end_copy(response, error, requests.log)
            if self.environ:
                self.environ[EXCEPTION] = name_of(type(error))
            try:
                handler.failed(connection, response, error, self.environ)
            except ClientGoneError:
                is_gone = True
        finally:
            self._record(started, queued)
        if is_gone:
            requests.drop(self)
        else:
            requests.finish(self, keep=keep)

    async def _work(self, queued: float) -> None:
        """Run the application."""
        requests, connection, request, response = self._all, self.connection, self.request, self.response
        handler = requests.handler
        environ = self.environ = connection.environ(request, connection.body)
        environ[QUEUE] = queued + connection.waited
        self.name = handler.identify(environ)
        self._show()
        if handler.tells:
            response.request_id = self.name
            request_id.set(self.name)
        if handler.times:
            response.timing = partial(_timing, environ, self.started)
        requests.sanitize(environ)
        self.scope = scope_of(environ, request)
        body = connection.body[0] if connection.body is not None else BytesIO()
        receive = Body(cast(BinaryIO, body)) if requests.part.is_ours else self.receive
        await requests.part.application(self.scope, receive, self)

    def _show(self) -> None:
        """Show the request on the scoreboard."""
        if self.row:
            request = self.request
            self._all.slot.write_request(self.row, self.started, request.method, request.path, self.name)

    def _complete(self) -> bool:
        """Return whether the connection stays open, after the application has returned."""
        response = self.response
        if fork_guard.PROCESS.is_copy:
            end_copy(response, None, self._all.log)
        if self.reason == GONE or response.is_broken:
            raise ClientGoneError(GONE)
        if not response.headers_sent:
            raise RuntimeError("the application returned without a response")
        if self._sends:
            raise RuntimeError("the application returned in the middle of its response")
        response.note_missing()
        if response.missing:
            self._all.handler.tell_missing(response)
        return not response.should_close

    def _cancelled(self) -> tuple[bool, bool]:
        """Return whether the client gets nothing more, and whether the connection stays open."""
        response, handler = self.response, self._all.handler
        try:
            if self.reason == ENDING and response.headers_sent:
                response.write(b"", last=True)
            elif self.reason == ENDING:
                handler.unavailable(response)
            elif self.reason == TIMEOUT:
                handler.failed(self.connection, response, RequestTimeout(), self.environ)
            elif self.reason == GONE:
                return True, False
            else:  # the application has cancelled its own task
                handler.failed(self.connection, response, asyncio.CancelledError(), self.environ)
        except ClientGoneError:
            return True, False
        return False, False

    def _refused(self) -> bool:
        """Answer a request that got no thread in time; return whether the client gets nothing more."""
        if not self.response.headers_sent:
            self._all.slot.count_refused()
            self._all.handler.unavailable(self.response)
        return self.response.headers_sent

    def _record(self, started: float, queued: float) -> None:
        requests, response, environ, scope = self._all, self.response, self.environ, self.scope
        environ.update((key, scope[key]) for key in (ROUTE, UNLOGGED, EXCEPTION) if key in scope)
        now = time.monotonic()
        status = min(response.status_code or 500, 599)
        requests.slot.task_finished(self.row, now, status, started, queued, self.request.method)
        if self.row:
            requests.rows.append(self.row)
        if status >= 500:
            requests.handler.record_error(self.request, status, environ)
        requests.reactor.worker.access.note(response, environ, now - started)

    # ASGI.

    async def receive(self) -> dict[str, Any]:
        """Return the body, then wait until the client is gone."""
        if self._reads:
            self._reads = False
            body = self.connection.body
            data = b"" if body is None else body[0].read()
            return {"type": "http.request", "body": data, "more_body": False}
        if self.reason != GONE and self._sends:
            self._watch_client()
            self._disconnected = self._disconnected or self._all.loop.loop.create_future()
            await asyncio.shield(self._disconnected)
        return {"type": "http.disconnect"}

    def start(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Take what comes before the body."""
        self.response.must_close = self._all.reactor.retiring
        line = f"{status} {reason}" if reason else STATUS_LINES.get(status) or f"{status} Unknown"
        self.response.start_response(line, headers)

    async def write(self, data: bytes, *, last: bool) -> None:
        """Send a piece of the body, and what comes before; wait while the client is far behind."""
        response = self.response
        if self.reason == GONE or response.is_broken:
            if self._all.part.is_ours:
                raise ClientGoneError(GONE)
            return  # Django's own handler would leave an error that nobody handles
        if not self._sends:
            raise RuntimeError("the application sends more after the end of its response")
        self._sends = not last
        if last:
            self.unwatch()
        response.write(data, last=last)
        if last:
            return
        self.progress = time.monotonic()
        if response.is_ahead:
            await response.room()
        self._pieces += 1
        if self._pieces % PIECES_AT_A_TIME == 0:
            await asyncio.sleep(0)

    async def send_file(self, file: Any) -> bool:
        """Let the kernel send a file; return False if it must be read."""
        self._sends = not self.response.respond_with_file(file)
        return not self._sends

    # The client.

    @property
    def is_event_stream(self) -> bool:
        """Say whether this is a stream that has no end of its own."""
        response = self.response
        kind = next((value for name, value in response.headers if name.lower() == "content-type"), "")
        return response.headers_sent and kind.startswith("text/event-stream")

    def check(self, now: float) -> None:
        """Watch the client of a request that takes long, and end a stream that it does not read."""
        if self.started and self._sends and now - self.started > WATCHED_AFTER:
            self._watch_client()
            self.response.check(now)

    def _watch_client(self) -> None:
        if not self._watch and self._sends:
            self._watch = True
            self._all.loop.loop.add_reader(self.connection.fd, self._readable)

    def _readable(self) -> None:
        self._all.loop.loop.remove_reader(self.connection.fd)
        if self.connection.is_gone():
            self.leave(GONE)

    def unwatch(self) -> None:
        """Let the reactor have the socket."""
        self.response.stop_writing()
        if self._watch:
            self._all.loop.loop.remove_reader(self.connection.fd)

    def leave(self, reason: str) -> None:
        """End the request: cancel its task, whose ``finally`` blocks run."""
        if self.reason or not self._sends or self.task is None:
            return
        self.reason = reason
        if reason == GONE:
            self.response.give_up(ClientGoneError(GONE))
            if self._disconnected is not None and not self._disconnected.done():
                self._disconnected.set_result(None)
            if not self._all.part.is_ours:
                self._all.loop.loop.call_later(LEAVES_WITHIN, self.task.cancel)
                return
        self.task.cancel()

    def shown(self) -> Request:
        """Return what the watchdog needs to know."""
        progress = max(self.started, self.progress)
        request = self.request
        return Request(
            self.connection.fd, 0, 0, self.started, progress, request.method, request.path, self.name
        )


class AsyncStream(AsyncRequest):
    """An async stream that a sync view has returned: its thread is free while the loop sends it."""

    def __init__(
        self, requests: AsyncRequests, response: ConnectionResponse, stream: Any, environ: dict[str, Any]
    ) -> None:
        super().__init__(requests, response.connection)
        self._answer, self._stream, self.environ = response, stream, environ
        self.name = str(environ.get(ID, ""))
        self._context = copy_context()

    def begin(self) -> None:
        """Create the task in the context of the view."""
        self._context.run(super().begin)

    async def _work(self, queued: float) -> None:
        answer, response = self._answer, self.response
        self._show()
        response.request_id, response.timing = answer.request_id, answer.timing
        response.start_response(answer.status, answer.plain_headers)
        response.must_close = answer.must_close or self._all.reactor.retiring
        await self._all.part.stream(self._stream, self)


def scope_of(environ: dict[str, Any], request: Any, kind: str = "http") -> dict[str, Any]:
    """Return the ASGI scope of a request; its headers are those that the middleware has left."""
    headers = [
        (key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]
    for key, name in (("CONTENT_TYPE", b"content-type"), ("CONTENT_LENGTH", b"content-length")):
        if environ.get(key):
            headers.append((name, environ[key].encode("latin-1")))
    script = environ["SCRIPT_NAME"]
    path = (script + environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    port = environ.get("SERVER_PORT")
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1" if request.version >= (1, 1) else "1.0",
        "method": request.method,
        "scheme": environ["wsgi.url_scheme"],
        "path": path,
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": script,
        "headers": headers,
        "server": (environ.get("SERVER_NAME", ""), int(port) if port else None),
        "client": (environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)),
        "state": {},
        "extensions": {},
    }


def _name_of(task: asyncio.Task[Any] | None) -> str:
    """Return the request id in the context of a task, which a task of a request inherits (Python 3.12)."""
    context: Mapping[Any, Any] = getattr(task, "get_context", dict)()
    return str(context.get(request_id, ""))


def stack_of(task: asyncio.Task[Any]) -> str:
    """Return the stack of a task that waits, its outermost coroutine first."""
    frames = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = next((found for key in FRAMES if (found := getattr(waits, key, None)) is not None), None)
        if frame is None:
            break
        frames.append((frame, frame.f_lineno))
        waits = next((found for key in AWAITS if (found := getattr(waits, key, None)) is not None), None)
    return "".join(traceback.StackSummary.extract(iter(frames)).format()).rstrip() or "(it runs)"


FRAMES = "cr_frame", "gi_frame", "ag_frame"
AWAITS = "cr_await", "gi_yieldfrom", "ag_await"
"""What coroutines, generators and async generators tell of themselves."""


def _timing(environ: dict[str, Any], started: float) -> str:
    return timing(environ, time.monotonic() - started)
