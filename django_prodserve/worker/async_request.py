"""One request on the asyncio loop: from its last byte to the end of its response.

Lives in a worker, in the loop's thread. The request is a task. Its application gets ASGI's ``receive`` and
``send``, or our handler's quicker forms of both.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import copy_context
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from ..asgi.leases import NoThreadFreeError
from ..asgi.scope import scope_of
from ..asgi.sending import Body, Sender
from ..http.exceptions import ClientGoneError
from ..logs import request_id
from ..logs.environ_keys import EXCEPTION, ID, QUEUE, ROUTE, UNLOGGED
from ..middleware.route_names import name_of
from ..scoreboard.routes import NO_ROUTE
from ..scoreboard.slot import Request, Slot
from ..timeouts import RequestTimeout
from ..utils import fork_guard
from .async_response import AsyncResponse
from .connection import Connection
from .request_handler import ConnectionResponse, RequestHandler, end_copy, timing_since
from .watchdog import LEAVES_WITHIN

if TYPE_CHECKING:
    from ..asgi.part import AsyncPart
    from .streaming import StreamFlowControl

WATCHED_AFTER = 0.1
"""Seconds after which the loop watches whether the client is still connected; most requests have ended."""
PIECES_AT_A_TIME = 32
"""Pieces that a stream sends before it lets other tasks run."""

GONE, TIMEOUT, ENDING = "the client is gone", "the request ran too long", "the worker stops"
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Owner(Protocol):
    """What a request needs from the requests of its worker."""

    part: AsyncPart
    handler: RequestHandler
    slot: Slot
    streams: StreamFlowControl
    event_loop: asyncio.AbstractEventLoop
    rows: list[int]
    log: Any
    access: Any

    @property
    def is_retiring(self) -> bool:
        """Return whether the worker stops."""

    def sanitize(self, environ: dict[str, Any]) -> None:
        """Remove the client data that no trusted proxy has sent."""

    def started(self) -> None:
        """Check the clients from time to time while requests run."""

    def finish(self, running: AsyncRequest, *, keep: bool) -> None:
        """Return the connection of a request that has ended."""

    def drop(self, running: AsyncRequest) -> None:
        """Close the connection of a request whose client is gone."""


class AsyncRequest(Sender):
    """One request on the loop, from its last byte to the last of its response: ASGI's receive and send."""

    response: AsyncResponse

    def __init__(self, owner: Owner, connection: Connection) -> None:
        assert connection.request is not None
        self._owner, self.connection, self.request = owner, connection, connection.request
        self.environ: dict[str, Any] = {}
        self.scope: dict[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        self.name, self.row, self.started, self.progress = "", 0, 0.0, 0.0
        self.reason = ""
        """Why the request must end now; empty while it may continue."""
        self._body: Body | None = None
        self._sends, self._pieces = True, 0
        self._begun = 0.0
        """When a stream has begun."""
        self._watch = False

    def begin(self) -> None:
        """Create the task, in a context of its own."""
        owner = self._owner
        loop = owner.event_loop
        self.response = AsyncResponse(self.connection, self.request, owner.streams, owner.slot, loop)
        self.task = loop.create_task(self._run())
        owner.started()

    async def _run(self) -> None:
        owner, connection, response = self._owner, self.connection, self.response
        handler = owner.handler
        started = self.started = self.started or time.monotonic()
        queued, keep, is_gone = max(0.0, started - connection.arrived), False, False
        if owner.rows:
            self.row = owner.rows.pop()
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
                end_copy(response, error, owner.log)
            if self.environ:
                self.environ[EXCEPTION] = name_of(type(error))
            try:
                handler.failed(connection, response, error, self.environ)
            except ClientGoneError:
                is_gone = True
        finally:
            self._record(started, queued)
        if is_gone:
            owner.drop(self)
        else:
            owner.finish(self, keep=keep)

    async def _work(self, queued: float) -> None:
        """Run the application."""
        owner, connection, request, response = self._owner, self.connection, self.request, self.response
        handler = owner.handler
        if handler.before is not None:
            handler.before(request)
        environ = self.environ = connection.environ(request, connection.body)
        environ[QUEUE] = queued + connection.waited
        self.name = handler.identify(environ)
        self._show()
        if handler.tells:
            response.request_id = self.name
            request_id.set(self.name)
        if handler.times:
            response.timing = partial(timing_since, environ, self.started)
        owner.sanitize(environ)
        self.scope = scope_of(environ, request)
        self.scope["state"] = owner.part.state.copy()
        body = connection.body[0] if connection.body is not None else BytesIO()
        self._body = Body(cast(BinaryIO, body))
        await owner.part.application(self.scope, self._body, self)

    def _show(self) -> None:
        """Show the request on the scoreboard."""
        if self.row:
            request = self.request
            self._owner.slot.write_request(self.row, self.started, request.method, request.path, self.name)

    def _complete(self) -> bool:
        """Return whether the connection stays open, after the application has returned."""
        response = self.response
        if fork_guard.PROCESS.is_copy:
            end_copy(response, None, self._owner.log)
        if self.reason == GONE or response.is_broken:
            raise ClientGoneError(GONE)
        if not response.headers_sent:
            raise RuntimeError("the application returned without a response")
        if self._sends:
            raise RuntimeError("the application returned in the middle of its response")
        response.note_missing()
        if response.missing:
            self._owner.handler.tell_missing(response)
        return not response.should_close

    def _cancelled(self) -> tuple[bool, bool]:
        """Return whether the client gets nothing more, and whether the connection stays open."""
        response, handler = self.response, self._owner.handler
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
            self._owner.slot.count_refused()
            self._owner.handler.unavailable(self.response)
        return self.response.headers_sent

    def _record(self, started: float, queued: float) -> None:
        owner, response, environ, scope = self._owner, self.response, self.environ, self.scope
        environ.update((key, scope[key]) for key in (ROUTE, UNLOGGED, EXCEPTION) if key in scope)
        now = time.monotonic()
        status = min(response.status_code or 500, 599)
        is_event_stream = self.is_event_stream  # it lasts as long as its client stays
        answered = (is_event_stream and self._begun) or now
        owner.slot.task_finished(self.row, answered, status, started, queued, self.request.method)
        if self.row:
            owner.rows.append(self.row)
        if not is_event_stream:
            owner.slot.routes.add(environ.get(ROUTE) or NO_ROUTE, now, now - started)
        if status >= 500:
            owner.handler.record_error(self.request, status, environ)
        owner.access.note(response, environ, now - started)
        if owner.handler.after is not None:
            owner.handler.after(environ, response)

    # ASGI.

    def start(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        """Take what comes before the body."""
        self.response.must_close = self._owner.is_retiring
        line = f"{status} {reason}" if reason else STATUS_LINES.get(status) or f"{status} Unknown"
        self.response.start_response(line, headers)

    async def write(self, data: bytes, *, last: bool) -> None:
        """Send a piece of the body, and what comes before; wait while the client is far behind."""
        response = self.response
        if self.reason == GONE or response.is_broken:
            if self._owner.part.is_ours:
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
        self._begun = self._begun or self.progress
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
        """Return whether this is a stream that has no end of its own."""
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
            self._owner.event_loop.add_reader(self.connection.fd, self._readable)

    def _readable(self) -> None:
        self._owner.event_loop.remove_reader(self.connection.fd)
        connection = self.connection
        if connection.is_gone():
            self.leave(GONE)
        elif connection.tls is not None and not connection.buffer:  # a message of TLS itself, which is read
            self._owner.event_loop.add_reader(connection.fd, self._readable)

    def unwatch(self) -> None:
        """Let the reactor have the socket."""
        self.response.stop_writing()
        if self._watch:
            self._owner.event_loop.remove_reader(self.connection.fd)

    def leave(self, reason: str) -> None:
        """End the request: cancel its task, whose ``finally`` blocks run."""
        if self.reason or not self._sends or self.task is None:
            return
        self.reason = reason
        if reason == GONE:
            self.response.give_up(ClientGoneError(GONE))
            if self._body is not None:
                self._body.disconnect()
            if not self._owner.part.is_ours:
                self._owner.event_loop.call_later(LEAVES_WITHIN, self.task.cancel)
                return
        self.task.cancel()

    def shown(self) -> Request:
        """Return what the watchdog needs to know; an event stream may wait for its next event for hours."""
        progress = time.monotonic() if self.is_event_stream else max(self.started, self.progress)
        request = self.request
        return Request(
            self.connection.fd, 0, 0, self.started, progress, request.method, request.path, self.name
        )


class AsyncStream(AsyncRequest):
    """An async stream that a sync view has returned: its thread is free while the loop sends it."""

    def __init__(
        self, owner: Owner, response: ConnectionResponse, stream: Any, environ: dict[str, Any]
    ) -> None:
        super().__init__(owner, response.connection)
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
        response.must_close = answer.must_close or self._owner.is_retiring
        await self._owner.part.stream(self._stream, self)
