"""Run Django for one complete request.

Lives in a worker, in a pool thread that this request has for itself.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from ..http.exceptions import ClientGoneError, FileShrankError
from ..http.parser import RequestHead
from ..http.response import Response, body_size
from ..logs import request_id
from ..logs.environ_keys import EXCEPTION, ID, QUEUE, ROUTE
from ..middleware.application import Application
from ..middleware.request_id import RequestIDs, timing
from ..middleware.route_names import name_of
from ..scoreboard.errors import RequestError
from ..scoreboard.routes import NO_ROUTE
from ..scoreboard.slot import Slot
from ..timeouts import RequestTimeout
from ..utils import fork_guard
from . import watchdog
from .connection import Connection
from .sampling import Sampler
from .streaming import StreamFlowControl
from .thread_growth import is_late
from .write_buffer import FileRange, WriteBuffer

CLIENT_GONE_SECONDS = 1.0
"""Seconds without bytes in a stream after which the worker checks whether the client is still connected."""
NEVER = -1, 0.0
USUAL_SECONDS = 1.0
"""Seconds without a question after which the means of the routes are read again. While all threads are busy,
the worker asks ten times a second: then what was usual before counts."""
USUAL_REQUESTS = 10
"""Requests of a route from which its mean is known."""


class ConnectionResponse(Response):
    """A response that is sent through a connection."""

    __slots__ = ("_idle", "_row", "_slot", "_streams", "adopt", "connection", "is_adopted")

    def __init__(
        self,
        connection: Connection,
        request: RequestHead,
        streams: StreamFlowControl,
        slot: Slot,
        row: int,
        *,
        must_close: bool,
    ) -> None:
        super().__init__(request, must_close=must_close)
        self.connection, self._streams, self._slot, self._row = connection, streams, slot, row
        self._idle = NEVER
        self.adopt: Callable[[Any], bool] | None = None
        """Passes an async stream to the asyncio loop; None if there is no loop for it."""
        self.is_adopted = False

    def hand_over(self, stream: Any) -> bool:
        """Let the asyncio loop send an async stream, if it can: then this thread is done."""
        self.is_adopted = self.adopt is not None and self.adopt(stream)
        return self.is_adopted

    def send(self, data: bytes, last: bool) -> None:
        """Send as much as the client accepts now. The event loop sends the rest of a complete response."""
        connection = self.connection
        if not last or connection.write_buffer is not None:
            self._streams.push(connection, data)
            self._slot.progress(self._row, time.monotonic())
            return
        sent = connection.send_nowait(data)
        if sent < len(data):
            connection.write_buffer = WriteBuffer()
            connection.write_buffer.add(memoryview(data)[sent:])

    @property
    def sends_files(self) -> bool:
        """Return Gunicorn's setting ``sendfile``."""
        return self._streams.sends_files

    def idle(self) -> None:
        """End a stream that has nothing to send if its client has disconnected."""
        now, (sent, since) = time.monotonic(), self._idle
        if sent != self.sent:
            self._idle = self.sent, now
        elif now - since >= CLIENT_GONE_SECONDS:
            self._idle = sent, now
            if self.connection.is_gone():
                raise ClientGoneError("the client is gone")

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int, after: bytes) -> None:
        """Let the kernel send what the client accepts now; a duplicate of the file serves the rest."""
        connection = self.connection
        out = connection.write_buffer or WriteBuffer()
        connection.sock.setblocking(False)  # sendfile has no flag that avoids waiting
        if head:
            out.add(head)
        part = FileRange(descriptor, offset, count, title=f"{self.request.method} {self.request.path}")
        out.add_part(part)
        if after:
            out.add(after)
        try:
            out.flush(connection.sock)
        finally:
            if part.left:
                part.descriptor = os.dup(descriptor)
                part.is_ours = True
        connection.write_buffer = out if out.pieces else None


class RequestHandler:
    """Runs the application of one worker."""

    def __init__(self, worker: Any, streams: StreamFlowControl, slot: Slot) -> None:
        application: Application = worker.application
        self._worker, self._wsgi = worker, application.inner
        self._streams, self._slot, self.sampler = streams, slot, Sampler(slot)
        self._usual: dict[str, float] = {}
        self._asked = -USUAL_SECONDS  # when requests were last compared with these means
        self.environs: dict[int, dict[str, Any]] = {}
        """The environ of each request that runs, by its row: Django notes the route there."""
        self.identify, self.tells, self.times = RequestIDs(lambda environ: False), False, False
        if application.request_ids is not None:  # the middleware's work costs half as much here
            self.identify, self.tells = application.request_ids.identity, True
            self.times = application.request_ids.timing
        before, self._after = _hook(worker, "pre_request"), _hook(worker, "post_request")
        self.before = None if before is None else functools.partial(before, worker)
        """Gunicorn's hook for a request that begins."""
        self.after = None if self._after is None else self._guarded
        """Gunicorn's hook for a request that has ended."""
        self.adopt: Callable[[ConnectionResponse, Any, dict[str, Any], float], bool] | None = None
        """Passes the async stream of a sync view to the asyncio loop; None if there is no loop for it."""

    def handle(
        self, connection: Connection, row: int, started: float, running: int, *, must_close: bool
    ) -> bool | None:
        """Return whether the connection stays open; None if the asyncio loop has it now.

        Raise ClientGoneError if it is lost.
        """
        request = connection.request
        assert request is not None
        slot, worker, process = self._slot, self._worker, fork_guard.PROCESS
        environ: dict[str, Any] = {}
        answer = ConnectionResponse(connection, request, self._streams, slot, row, must_close=must_close)
        sampled = self.sampler.begin(running, started)
        queued = max(0.0, started - connection.arrived)
        try:
            if self.before:
                slot.request_started(row, started, request.method, request.path, "")
                self.before(request)
            environ = connection.environ(request, connection.body)
            environ[QUEUE] = queued + connection.waited
            self.environs[row] = environ
            name = self.identify(environ)
            slot.request_started(row, started, request.method, request.path, name)
            if self.tells:
                answer.request_id = name
                request_id.set(name)
            if self.times:
                answer.timing = functools.partial(timing_since, environ, started)
            if self.adopt is not None:
                adopt = self.adopt
                answer.adopt = lambda stream: adopt(answer, stream, environ, started)
            result = self._wsgi(environ, answer.start_response)
            if process.is_copy:
                end_copy(answer, None, worker)
            try:
                answer.respond(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None and not (process.is_copy or answer.is_adopted):
                    close()
            if answer.is_adopted:
                return None
            if answer.missing:
                self.tell_missing(answer)
            return not answer.should_close
        except ClientGoneError as error:
            if isinstance(error, FileShrankError):
                worker.log.error("%s", error)
            raise
        except BaseException as error:  # an exception of the application costs this request, not the thread
            if environ:
                environ[EXCEPTION] = name_of(type(error))
            return self.failed(connection, answer, error, environ)
        finally:
            if process.is_copy:
                end_copy(answer, sys.exc_info()[1], worker)
            now = time.monotonic()
            self.environs.pop(row, None)
            if sampled:
                self.sampler.end(row, sampled, now)
            if answer.is_adopted:
                slot.request_left(row, now)
            else:
                status = min(answer.status_code or 500, 599)
                slot.request_finished(row, now, status, started, queued, request.method)
                slot.routes.add(environ.get(ROUTE) or NO_ROUTE, now, now - started)
                if status >= 500:
                    self.record_error(request, status, environ)
                worker.access.note(answer, environ, now - started)
                if self.after:
                    self.after(environ, answer)
            request_id.set("")

    def late_requests(self) -> int:
        """Return how many running requests take much longer than their routes did in the last minutes."""
        now, slot = time.monotonic(), self._slot
        asked, self._asked = self._asked, now
        if now - asked >= USUAL_SECONDS:
            found = slot.routes.read(now)
            self._usual = {each.route: each.mean for each in found if each.requests >= USUAL_REQUESTS}
        running = [(slot.started_at(row), environ) for row, environ in [*self.environs.items()]]
        return sum(
            is_late(now - started, self._usual.get(environ.get(ROUTE) or NO_ROUTE))
            for started, environ in running
            if started
        )

    def running_paths(self) -> dict[int, str]:
        """Return the path of each request that runs, by its row."""
        return {row: environ["RAW_URI"].partition("?")[0] for row, environ in [*self.environs.items()]}

    def record_error(self, request: RequestHead, status: int, environ: dict[str, Any]) -> None:
        """Record the failed request on the scoreboard, for the live page and ``status``."""
        get = environ.get
        route, exception, name = get(ROUTE) or "", get(EXCEPTION, ""), get(ID, "")
        self._slot.record_error(
            RequestError(time.time(), status, request.method, request.path, route, exception, name)
        )

    def failed(
        self, connection: Connection, answer: Response, error: BaseException, environ: dict[str, Any]
    ) -> bool:
        """Answer a request that raised; return False, because its connection ends. Raise ClientGoneError if
        part of the response has been sent."""
        from .error_responses import error_response, reply

        if fork_guard.PROCESS.is_copy:
            end_copy(answer, error, self._worker)
        interrupted = isinstance(error, RequestTimeout)
        if interrupted:
            watchdog.clean_up()
        if answer.headers_sent and interrupted:
            raise ClientGoneError("the response took too long") from error
        if answer.headers_sent:
            self._worker.log.exception("Error handling request %s", answer.request.uri)
            if (answer.status_code or 0) < 500:
                self.record_error(answer.request, answer.status_code or 0, environ)
            raise ClientGoneError("the response was aborted") from error
        answer.status_code = 504 if interrupted else 500
        told = (
            reply("504 Gateway Timeout") if interrupted else error_response(self._worker, connection, error)
        )
        self._send_own(answer, told)
        return False

    def unavailable(self, answer: Response) -> None:
        """Answer 503 to a request that the worker cannot finish: the client may send it again."""
        from .error_responses import service_unavailable

        answer.status_code = 503
        self._send_own(answer, service_unavailable(keep=False))

    def _send_own(self, answer: Response, told: bytes) -> None:
        from .error_responses import with_request_id

        answer.sent = body_size(told)
        answer.send(with_request_id(told, answer.request_id), True)

    def tell_missing(self, answer: Response) -> None:
        """Log that a response is incomplete."""
        self._worker.log.error(
            "The response to %s %s is shorter than its Content-Length: %d of %d bytes are missing, "
            "the connection is closed.",
            answer.request.method,
            answer.request.path,
            answer.missing,
            answer.missing + answer.sent,
        )

    def _guarded(self, environ: dict[str, Any], answer: Response) -> None:
        with suppress(Exception):
            try:
                assert self._after is not None
                self._after(self._worker, answer.request, environ, answer)
            except Exception:
                self._worker.log.exception("Exception in post_request hook")


def end_copy(answer: Response, error: BaseException | None, worker: Any) -> NoReturn:
    """End a process that the request has forked and that returned here: it must not answer the client."""
    error = None if isinstance(error, ClientGoneError) else error  # a fork's copies of the sockets are closed
    fork_guard.end(f"Request {answer.request.method} {answer.request.path}", error, worker.log)


def timing_since(environ: dict[str, Any], started: float) -> str:
    """Return the entries of Server-Timing for a request that has run since ``started``."""
    return timing(environ, time.monotonic() - started)


def _hook(worker: Any, name: str) -> Any:
    """Return the user's hook, or None for Gunicorn's default, which does nothing useful."""
    setting = worker.cfg.settings[name]
    return None if setting.get() is type(setting).default else setting.get()
