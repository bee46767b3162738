"""The websockets of one worker: their applications are tasks on the asyncio loop.

Lives in a worker. ``submit`` runs in the thread that receives the handshake, ``retire`` in the main thread.
Everything else runs in the loop's thread. An open websocket occupies no thread, and no row of the scoreboard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from ..asgi.floating import floating_lease
from ..asgi.scope import websocket_scope_of
from ..http import websocket_handshake as handshake
from ..http.exceptions import ClientGoneError
from ..http.response import body_size, complete
from ..http.websocket_frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    MAX_MESSAGE_BYTES,
    NORMAL,
    SERVICE_RESTART,
)
from ..logs import request_id
from ..logs.environ_keys import CLOSE_CODE, EXCEPTION, QUEUE
from ..middleware.route_names import name_of
from ..scoreboard import stop_flags
from ..scoreboard.slot import Request, Slot
from ..utils import fork_guard
from . import error_responses
from .acceptor import descriptors_for
from .asyncio_loop import request_id_of
from .connection import Connection
from .websocket import CLOSED, CONNECTING, OPEN, WebSocket

if TYPE_CHECKING:
    from ..asgi.part import AsyncPart
    from .asyncio_loop import AsyncioLoop
    from .request_handler import RequestHandler

SHARE = 0.9
"""Share of a worker's connections that may be websockets: the others are for requests."""
CHECK_SECONDS = 1.0
"""Interval at which the loop checks the clients of websockets: 1,000 checks take 0.5 ms."""
HANDSHAKE_SECONDS = 60.0
"""Seconds in which an application must answer a handshake: browsers wait as long, or longer."""
ENDS_WITHIN = 30.0
"""Seconds in which an application must receive the end of its websocket; else its task is cancelled."""
LAST_CALL_SECONDS = 2.0
"""Seconds before a stopping worker ends in which the tasks that still run are cancelled."""
SWITCHING_PROTOCOLS, CLIENT_CLOSED_REQUEST = 101, 499
"""The status of a websocket in the log; as in nginx, another one if its client left before the answer."""
REASONS = {GOING_AWAY: "the server stops", SERVICE_RESTART: "the server restarts"}


class Connections(Protocol):
    """What websockets need from the reactor, which owns the connections."""

    worker: Any
    slot: Slot
    handler: RequestHandler

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        """Close a connection, ``politely`` once its client does, too."""

    def drop(self, connection: Connection) -> None:
        """Close a connection."""

    def report_failure(self) -> None:
        """Log an internal error of the server."""


class WebSockets:
    """The websockets of one worker."""

    def __init__(
        self, reactor: Connections, part: AsyncPart, loop: AsyncioLoop, rows: list[int], limit: int
    ) -> None:
        assert part.websocket is not None
        worker = reactor.worker
        self.reactor, self.worker, self.slot, self.handler = reactor, worker, reactor.slot, reactor.handler
        self.part, self.application = part, part.websocket
        self.loop, self.event_loop, self.rows = loop, loop.loop, rows
        self.limit = max(1, int(descriptors_for(limit) * SHARE))
        self.message_bytes = min(worker.config.max_body or MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES)
        proxy = worker.application.proxy
        self.sanitize = proxy.sanitize if proxy is not None else lambda environ: None
        self.running: set[WebSocketTask] = set()
        """Those whose task runs, or whose connection is open."""
        self._checks = False
        self.leaves: tuple[int, str] | None = None
        """The close code and the reason of a worker that stops."""

    def __len__(self) -> int:
        return len(self.running)

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name the websocket of a task; empty if it belongs to none."""
        name = request_id_of(task)
        for each in [*self.running]:
            if each.task is task or (name and each.name == name):
                return f"The websocket {each.request.path} (id {each.name})"
        return ""

    def shown(self) -> Iterator[tuple[Request, asyncio.Task[Any] | None]]:
        """Yield those that are open, and their tasks, for ``dump``."""
        for each in [*self.running]:
            times = (each.started, each.started)
            yield Request(0, 0, 0, *times, "WebSocket", each.request.path, each.name), each.task

    # In the thread that receives the handshake.

    def submit(self, connection: Connection) -> Callable[[], bytes] | None:
        """Start the application for a handshake; return what builds the response if it is refused."""
        assert connection.request is not None
        if len(self.running) >= self.limit:
            self.slot.count_refused()
            return partial(error_responses.service_unavailable, keep=False)
        try:
            handshake.check(connection.request)
        except handshake.HandshakeError as error:
            return partial(self._refusal, connection, error)
        task = WebSocketTask(self, connection)
        self.running.add(task)
        self.loop.run_soon(task.begin)
        return None

    def _refusal(self, connection: Connection, error: handshake.HandshakeError) -> bytes:
        peer = connection.peer[0] if isinstance(connection.peer, tuple) else ""
        self.worker.log.warning("Invalid websocket handshake from ip=%s: %s", peer, error)
        body = f"{error}\n".encode()
        lines = ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
        return complete(error.status, [*error.headers, *lines], body, keep=False)

    # In the main thread.

    def retire(self, deadline: float) -> None:
        """Close all websockets: the client of a worker that only restarts may connect again immediately."""
        code = GOING_AWAY if stop_flags.closing() else SERVICE_RESTART
        self.loop.run_soon(self._retire, code, deadline)

    # In the loop's thread.

    def _retire(self, code: int, deadline: float) -> None:
        self.leaves = code, REASONS[code]
        for each in [*self.running]:
            each.websocket.close(*self.leaves)
        last_call = max(0.0, deadline - LAST_CALL_SECONDS - time.monotonic())
        self.event_loop.call_later(last_call, self._cancel)

    def _cancel(self) -> None:
        for each in [*self.running]:
            each.cancel()

    def started(self) -> None:
        """Check the clients from time to time while there are websockets."""
        if not self._checks:
            self._checks = True
            self.event_loop.call_later(CHECK_SECONDS, self._check)

    def _check(self) -> None:
        now = self.event_loop.time()
        for each in [*self.running]:
            try:
                each.check(now)
            except Exception:  # an internal error costs one websocket, not the checks of all
                self.reactor.report_failure()
                each.websocket.gone()
        self._checks = bool(self.running)
        if self._checks:
            self.event_loop.call_later(CHECK_SECONDS, self._check)


class WebSocketTask:
    """One websocket, from its handshake to the end of its application."""

    __slots__ = (
        *("_is_counted", "_is_open", "_row", "_status", "connection", "environ", "name"),
        *("owner", "request", "started", "task", "websocket"),
    )

    def __init__(self, owner: WebSockets, connection: Connection) -> None:
        assert connection.request is not None
        self.owner, self.connection, self.request = owner, connection, connection.request
        self.websocket = WebSocket(self, owner.event_loop, connection, limit=owner.message_bytes)
        self.environ: dict[str, Any] = {}
        self.name, self.started, self._row, self._status = "", 0.0, 0, 0
        self.task: asyncio.Task[None] | None = None
        self._is_open, self._is_counted = True, False

    def begin(self) -> None:
        """Create the task, in a context of its own."""
        owner, websocket, connection = self.owner, self.websocket, self.connection
        self.started = time.monotonic()
        websocket.leaves = owner.leaves
        if connection.buffer:
            behind, connection.buffer = connection.buffer, b""
            websocket.arrived(behind)
        websocket.read_on()
        self.task = owner.event_loop.create_task(self._run())
        owner.started()

    async def _run(self) -> None:
        owner = self.owner
        if owner.rows and not self._is_counted:
            self._row = owner.rows.pop()
        try:
            await self._work()
            self._returned()
        except ClientGoneError:
            self.websocket.gone()
        except asyncio.CancelledError as error:
            if not self._was_cancelled():
                self._failed(error)
        except BaseException as error:  # an exception of the application costs this websocket, not the loop
            self._failed(error)
        finally:
            self.task = None
            self._forget()

    async def _work(self) -> None:
        """Run the application."""
        owner, connection, handler = self.owner, self.connection, self.owner.handler
        environ = self.environ = connection.environ(self.request, None)
        environ[QUEUE] = max(0.0, self.started - connection.arrived) + connection.waited
        self.name = handler.identify(environ)
        if self._row:
            request = self.request
            owner.slot.write_request(self._row, self.started, request.method, request.path, self.name)
        if handler.tells:
            request_id.set(self.name)
        owner.sanitize(environ)
        scope = websocket_scope_of(environ, self.request, handshake.subprotocols(self.request))
        scope["state"] = owner.part.state.copy()
        lease = floating_lease(owner.part.leases) if owner.part.floats else None
        with nullcontext() if lease is None else lease.entered():
            await owner.application(scope, self.websocket.receive, self.websocket.send)

    def _returned(self) -> None:
        """End the websocket after its application."""
        if fork_guard.PROCESS.is_copy:
            fork_guard.end(self._title, None, self.owner.worker.log)
        if self.websocket.state == CONNECTING:
            raise RuntimeError("the application returned without an answer to the handshake")
        if self.websocket.state == OPEN:
            self.websocket.close(NORMAL)

    def _failed(self, error: BaseException) -> None:
        """End the websocket after an exception of its application; the caller handles the exception."""
        owner, websocket, log = self.owner, self.websocket, self.owner.worker.log
        if fork_guard.PROCESS.is_copy:
            fork_guard.end(self._title, error, log)
        self.environ[EXCEPTION] = name_of(type(error))
        if websocket.state == CONNECTING and not websocket.is_answered:
            self._refuse(500, error_responses.error_response(owner.worker, self.connection, error))
        else:
            log.exception("Error in the websocket %s", self.request.uri)
            if websocket.state == OPEN:
                websocket.close(INTERNAL_ERROR)
            elif websocket.state == CONNECTING:
                websocket.gone()
            owner.handler.record_error(self.request, self._status, self.environ)

    def _refuse(self, status: int, response: bytes) -> None:
        """Answer the handshake with a response of the server."""
        self._answered(status)
        self.websocket.write(error_responses.with_request_id(response, self._told_id))
        self.websocket.bytes_sent = body_size(response)
        self.websocket.refused()

    @property
    def _told_id(self) -> str:
        return self.name if self.owner.handler.tells else ""

    @property
    def _title(self) -> str:
        return f"The websocket {self.request.path}"

    def _answered(self, status: int) -> None:
        """Count the handshake as a request."""
        if self._is_counted:
            return
        self._is_counted, self._status = True, status
        slot, connection = self.owner.slot, self.connection
        queued = max(0.0, self.started - connection.arrived)
        slot.task_finished(
            self._row, time.monotonic(), min(status, 599), self.started, queued, self.request.method
        )
        if self._row:
            self.owner.rows.append(self._row)
            self._row = 0
        if status == SWITCHING_PROTOCOLS:
            slot.websocket_opened()
        elif status >= 500:
            self.owner.handler.record_error(self.request, status, self.environ)

    def _forget(self) -> None:
        if self.task is None and not self._is_open:
            self.owner.running.discard(self)

    # For the websocket.

    def accepted(self, websocket: WebSocket, subprotocol: str | None, headers: list[Any]) -> bytes:
        """Return the response that opens it."""
        name = "" if _names_one(headers) else self._told_id
        response = handshake.accept(self.request, subprotocol, headers, name)
        self._answered(SWITCHING_PROTOCOLS)
        return response

    def denied(self, websocket: WebSocket, status: int, headers: list[Any]) -> bytes:
        """Return the response of an application that refuses it; without headers, the whole."""
        status = int(status)  # applications also send members of HTTPStatus
        if not headers:
            response = error_responses.reply(_status_line(status))
            websocket.bytes_sent = body_size(response)
        else:
            lines = handshake.header_lines(
                [pair for pair in headers if pair[0].lower() not in (b"connection", b"transfer-encoding")]
            )
            texts = lines.decode("latin-1").split("\r\n")[:-1]
            response = complete(_status_line(status), texts, b"", keep=False)
        self._answered(status)
        return response if _names_one(headers) else error_responses.with_request_id(response, self._told_id)

    def received(self) -> None:
        """Count a message of the client."""
        self.owner.slot.count_message_received()

    def sent(self) -> None:
        """Count a message of the application."""
        self.owner.slot.count_message_sent()

    def closed(self, websocket: WebSocket, *, politely: bool) -> None:
        """Return the connection to the reactor, and write the line of the log."""
        owner, now = self.owner, time.monotonic()
        self._answered(CLIENT_CLOSED_REQUEST)
        status = self._status
        if status == SWITCHING_PROTOCOLS:
            owner.slot.websocket_closed()
            self.environ[CLOSE_CODE] = websocket.code
        owner.slot.aborted += websocket.aborted
        owner.worker.access.note_websocket(
            self.request, self.environ, _status_line(status), websocket.bytes_sent, now - self.started
        )
        self._is_open = False
        self._forget()
        try:
            if politely:
                owner.reactor.close(self.connection, now, politely=True)
            else:
                owner.reactor.drop(self.connection)
        except Exception:
            owner.reactor.report_failure()

    # The end.

    def check(self, now: float) -> None:
        """Check the client, and an application that does not answer it."""
        websocket = self.websocket
        if self._is_open:
            websocket.check(now)
        if self.task is None:
            return
        is_late = websocket.state == CONNECTING and now - self.started > HANDSHAKE_SECONDS
        ended = websocket.state == CLOSED and not websocket.is_told
        if is_late or (ended and now - websocket.ended_at > ENDS_WITHIN):
            self.cancel()

    def cancel(self) -> None:
        """Cancel the application, whose ``finally`` blocks run."""
        websocket = self.websocket
        if websocket.state == CONNECTING and not websocket.is_answered:
            timed_out = self.owner.leaves is None
            response = (
                error_responses.reply("504 Gateway Timeout")
                if timed_out
                else error_responses.service_unavailable(keep=False)
            )
            self._refuse(504 if timed_out else 503, response)
        if self.task is not None:
            self.task.cancel()

    def _was_cancelled(self) -> bool:
        """Return whether the server has cancelled the application: never while the websocket is open."""
        return self.websocket.state not in (CONNECTING, OPEN)


def _names_one(headers: list[Any]) -> bool:
    """Return whether the application adds its own id to the response."""
    return any(name.lower() == b"x-request-id" for name, _ in headers)


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} {'Client Closed Request' if status == CLIENT_CLOSED_REQUEST else 'Unknown'}"
