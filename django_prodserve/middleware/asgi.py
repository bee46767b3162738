"""The middleware around Django for other ASGI servers: probes, ids, proxy trust, files, limits and drain.

For the worker classes asgi and uvicorn, on their loop. Probes and files are answered by the WSGI middleware,
in a thread of the loop's executor. All else goes to the project's ASGI application.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

from ..asgi.environ import environ_of, sanitised
from ..asgi.leases import NoThreadFreeError
from ..http.websocket_frames import GOING_AWAY, SERVICE_RESTART
from ..logs import request_id
from ..logs.environ_keys import ROUTE, UNLOGGED
from ..scoreboard.routes import NO_ROUTE
from ..utils import fork_guard
from .request_id import timing

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

STREAMS_END_AFTER = 1.0
"""Seconds after which a stopping worker ends event streams, as our own worker does."""
UNAVAILABLE, TOO_SLOW, TOO_LARGE = "503 Service Unavailable", "504 Gateway Timeout", "413 Content Too Large"
ENDING = "the worker stops"


class Layers(Protocol):
    """The WSGI application of the project, behind its middleware."""

    @property
    def health(self) -> Any:
        """The probes."""

    @property
    def request_ids(self) -> Any:
        """The middleware for request ids."""

    @property
    def proxy(self) -> Any:
        """The middleware for proxy headers."""


class ASGIApplication:
    """The project's ASGI application behind what prodserve adds to it."""

    def __init__(
        self,
        application: Any,
        layers: Layers,
        files: Sequence[Callable[[str], bool]],
        *,
        timeout: float,
        limit: int,
        max_body: int | None,
    ) -> None:
        """``limit`` requests may run at a time, each ``timeout`` seconds until its response begins."""
        self.application, self._files = application, files
        self._health, self._ids, self._proxy = layers.health, layers.request_ids, layers.proxy
        self._timeout, self._limit, self._max_body = timeout, limit, max_body
        self._script = os.environ.get("SCRIPT_NAME", "")
        self._running: set[Exchange] = set()
        self._sockets: set[Socket] = set()
        self._log: Any = None
        self._slot: Any = None

    def serve_in(self, worker: Any) -> None:
        """Count and log the requests of this worker."""
        self._log, self._slot = worker.log, getattr(worker, "slot", None)
        self._health.readiness.start()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    async def end(self, *, for_good: bool) -> None:
        """End what has no end of its own: websockets immediately, event streams after a second."""
        for socket in [*self._sockets]:
            await socket.close(GOING_AWAY if for_good else SERVICE_RESTART)
        await asyncio.sleep(STREAMS_END_AFTER)
        for exchange in [*self._running]:
            if exchange.is_event_stream:
                exchange.leave(ENDING)

    # A request.

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        started = time.monotonic()
        environ = environ_of(scope, self._script)
        exchange = Exchange(send, environ, started)
        path = environ["PATH_INFO"]
        try:
            if path in self._health.paths.enabled:
                await exchange.by_wsgi(self._health)
                return
            exchange.name = self._ids.identity(environ)
            exchange.times = self._ids.timing
            request_id.set(exchange.name)
            self._proxy.sanitize(environ)
            if any(may_answer(path) for may_answer in self._files):
                await exchange.by_wsgi(self._proxy.application)
            elif len(self._running) >= self._limit:
                if self._slot is not None:
                    self._slot.count_refused()
                await exchange.refuse(UNAVAILABLE)
            elif self._max_body is not None and int(environ.get("CONTENT_LENGTH") or 0) > self._max_body:
                await exchange.refuse(TOO_LARGE)
            else:
                await self._run(exchange, sanitised(scope, environ), receive)
        finally:
            if fork_guard.PROCESS.is_copy:
                what = f"Request {environ['REQUEST_METHOD']} {path}"
                fork_guard.end(what, None, self._log)
            self._record(exchange)

    async def _run(self, exchange: Exchange, scope: dict[str, Any], receive: Receive) -> None:
        """Run the project's application for a request."""
        if self._max_body is not None:
            receive = partial(exchange.receive, receive, self._max_body)
        self._running.add(exchange)
        self._show()
        try:
            await exchange.run(self.application(scope, receive, exchange), self._timeout)
        finally:
            self._running.discard(exchange)
            self._show()
            exchange.environ.update((key, scope[key]) for key in (ROUTE, UNLOGGED) if key in scope)

    def _show(self) -> None:
        if self._slot is not None:
            self._slot.tasks = len(self._running)

    def _record(self, exchange: Exchange) -> None:
        """Count a request and log its line."""
        environ, now = exchange.environ, time.monotonic()
        status = min(exchange.status or 500, 599)
        if self._slot is not None and UNLOGGED not in environ:
            method = environ["REQUEST_METHOD"]
            answered = exchange.begun if exchange.is_event_stream else now
            self._slot.task_finished(0, answered, status, exchange.started, 0.0, method)
            if not exchange.is_event_stream:
                self._slot.routes.add(environ.get(ROUTE) or NO_ROUTE, now, now - exchange.started)
        if self._log is not None:
            headers = [
                (key[5:].replace("_", "-"), environ[key]) for key in environ if key.startswith("HTTP_")
            ]
            took = timedelta(seconds=now - exchange.started)
            self._log.access(exchange.response(), SimpleNamespace(headers=headers), environ, took)

    # A websocket.

    async def _connect(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        environ = environ_of(scope, self._script)
        request_id.set(self._ids.identity(environ))
        self._proxy.sanitize(environ)
        socket = Socket(send)
        self._sockets.add(socket)
        try:
            await self.application(sanitised(scope, environ), receive, socket)
        finally:
            self._sockets.discard(socket)


class Socket:
    """ASGI's ``send`` of a websocket that the server may close."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_closed = False

    async def __call__(self, message: Message) -> None:
        if self._is_closed:
            return
        self._is_closed = message["type"] == "websocket.close"
        await self._send(message)

    async def close(self, code: int) -> None:
        """Close it; the application learns that from the client's answer."""
        with suppress(Exception):  # whatever a server raises for a socket that is about to end
            await self({"type": "websocket.close", "code": code})


class Exchange:
    """One request and its response: ASGI's ``send``, which completes what the application sends."""

    def __init__(self, send: Send, environ: dict[str, Any], started: float) -> None:
        self._send, self.environ, self.started = send, environ, started
        self.name, self.times, self.begun = "", False, started
        self.status, self.sent, self.headers = 0, 0, list[tuple[bytes, bytes]]()
        self.is_event_stream = self._is_complete = False
        self._task: asyncio.Future[None] | None = None
        self._reason = ""
        self._received = 0

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            message = self._begin(message)
        elif kind == "http.response.body":
            self.sent += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
        await self._send(message)

    def _begin(self, message: Message) -> Message:
        headers = [*message.get("headers", ())]
        known = {name.lower(): value for name, value in headers}
        self.status, self.begun = message["status"], time.monotonic()
        self.is_event_stream = known.get(b"content-type", b"").startswith(b"text/event-stream")
        if self.name and b"x-request-id" not in known:
            headers.append((b"x-request-id", self.name.encode()))
        if self.times:
            text = timing(self.environ, time.monotonic() - self.started)
            headers.append((b"server-timing", text.encode()))
        self.headers = headers
        return {**message, "headers": headers}

    async def receive(self, receive: Receive, most: int) -> Message:
        """ASGI's ``receive`` with a limit on the body."""
        message = await receive()
        self._received += len(message.get("body", b""))
        if self._received > most:
            self.leave(TOO_LARGE)
            await asyncio.sleep(0)  # the cancellation arrives here
        return message

    async def run(self, call: Awaitable[None], timeout: float) -> None:
        """Await the application; cancel it if its response does not begin in time."""
        task = self._task = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait([task], timeout=timeout or None)
            if not done and not self.status:
                self.leave(TOO_SLOW)
            await asyncio.wait([task])
        except asyncio.CancelledError:  # the client has gone, or the server's own time is over
            task.cancel()
            await asyncio.wait([task])
            raise
        if task.cancelled() and self._reason:
            await self._conclude()
        elif not task.cancelled() and isinstance(task.exception(), NoThreadFreeError):
            await self.refuse(UNAVAILABLE)
        else:
            task.result()

    def leave(self, reason: str) -> None:
        """Cancel the application, whose ``finally`` blocks run."""
        if self._task is not None and not self._reason:
            self._reason = reason
            self._task.cancel()

    async def _conclude(self) -> None:
        """Send the end of the response of a cancelled application."""
        if self._reason != ENDING:
            await self.refuse(self._reason)
        elif not self._is_complete:
            await self({"type": "http.response.body", "body": b""})

    async def refuse(self, status: str) -> None:
        """Answer with a status, if no response has begun."""
        if self.status:
            return
        body = f"{status[4:]}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *([(b"retry-after", b"1")] if status == UNAVAILABLE else []),
        ]
        await self({"type": "http.response.start", "status": int(status[:3]), "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def by_wsgi(self, application: WSGI) -> None:
        """Answer by a WSGI application, each of its steps in a thread: it reads files."""
        begun: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            begun[:] = [(status, headers)]

        parts = await asyncio.to_thread(application, self.environ, start_response)
        try:
            pieces = iter(parts)
            while True:
                piece = await asyncio.to_thread(next, pieces, None)
                if begun and not self.status:
                    [(status, headers)] = begun
                    encoded = [
                        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
                    ]
                    await self({"type": "http.response.start", "status": int(status[:3]), "headers": encoded})
                more = piece is not None
                await self({"type": "http.response.body", "body": piece or b"", "more_body": more})
                if piece is None:
                    return
        finally:
            if (close := getattr(parts, "close", None)) is not None:
                await asyncio.to_thread(close)

    def response(self) -> Any:
        """Return the response as Gunicorn's loggers expect one."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]
        return SimpleNamespace(status=str(self.status or 500), sent=self.sent, headers=headers)
