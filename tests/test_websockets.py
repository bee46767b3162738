"""The websockets of one worker: applications that never answer, receive or end, and what is noted of each."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config

from django_prodserve.http.environ import EnvironBuilder
from django_prodserve.http.parser import ParserSettings, RequestHead
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.worker.connection import Connection
from django_prodserve.worker.websockets import ENDS_WITHIN, HANDSHAKE_SECONDS, WebSockets, WebSocketTask

from .socket_frames import TEXT, close, frame

CONFIG = Config()
HANDSHAKE = (
    b"GET /ws/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Application = Callable[[Any, Any, Any], Awaitable[None]]


class Worker:
    """What websockets need from a worker: it notes what they do with it."""

    def __init__(self, application: Application, *, limit: int = 10) -> None:
        self.slot = Scoreboard.create(None, slots=1, rows=2, now=0.0).claim()
        self.lines: list[tuple[str, int | None]] = []
        self.closed: list[bool] = []
        self.errors: list[int] = []
        self.loop = asyncio.get_running_loop()
        self.application = SimpleNamespace(proxy=None)
        self.config, self.log = SimpleNamespace(max_body=None), logging.getLogger("websockets")
        self.access, self.worker = self, self
        self.handler = SimpleNamespace(
            identify=lambda environ: "7", tells=True, record_error=self.record_error
        )
        part: Any = SimpleNamespace(websocket=application, floats=False, leases=None, state={})
        self.rows = [*self.slot.task_rows]
        loop: Any = SimpleNamespace(loop=self.loop, run_soon=self.loop.call_soon)
        self.websockets = WebSockets(self, part, loop, self.rows, limit)  # type: ignore[arg-type]

    def note_websocket(self, head: Any, environ: Any, status: str, sent: int, seconds: float) -> None:
        self.lines.append((status, environ.get("prodserve.close_code")))

    def record_error(self, request: Any, status: int, environ: Any) -> None:
        self.errors.append(status)

    def handle_error(self, request: Any, sheet: Any, peer: Any, error: BaseException) -> None:
        sheet.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        self.closed.append(politely)
        connection.sock.close()

    def drop(self, connection: Connection) -> None:
        self.closed.append(False)
        connection.sock.close()

    def report_failure(self) -> None:
        raise AssertionError

    async def connect(self) -> tuple[socket.socket, WebSocketTask]:
        """Return a client that has sent its handshake, and its task."""
        server, client = socket.socketpair()
        server.setblocking(False)
        client.setblocking(False)
        connection = Connection(server, ("192.0.2.7", 4711), EnvironBuilder(CONFIG, ("127.0.0.1", 80)))
        connection.request = RequestHead(ParserSettings(CONFIG), HANDSHAKE, connection.peer, 1)
        known = {*self.websockets.running}
        assert self.websockets.submit(connection) is None
        (task,) = {*self.websockets.running} - known
        await until(lambda: task.started > 0)
        return client, task

    async def read(self, client: socket.socket) -> bytes:
        return await self.loop.sock_recv(client, 4096)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 20))


ENDED: list[str] = []


async def waits(scope: Any, receive: Any, send: Any) -> None:
    """Never answer the handshake."""
    try:
        await asyncio.Future()
    finally:
        ENDED.append("waits")


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Accept, and receive nothing more."""
    await receive()
    await send({"type": "websocket.accept"})
    try:
        await asyncio.Future()
    finally:
        ENDED.append("deaf")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    ENDED.append(f"echo {message['code']}")


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await deaf_to_errors(receive, send)
    raise RuntimeError


async def deaf_to_errors(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})


@pytest.fixture(autouse=True)
def forget() -> None:
    ENDED.clear()


def test_a_handshake_without_an_answer_ends_with_504() -> None:
    async def scene() -> None:
        worker = Worker(waits)
        client, task = await worker.connect()
        with client:
            task.check(task.started + HANDSHAKE_SECONDS - 1)
            assert worker.closed == []
            task.check(task.started + HANDSHAKE_SECONDS + 1)
            assert (await worker.read(client)).startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            await until(lambda: not worker.websockets.running)
        assert ENDED == ["waits"]
        assert worker.errors == [504]
        assert worker.lines == [("504 Gateway Timeout", None)]
        assert worker.slot.counters().classes == (0, 0, 0, 0, 1)
        assert len(worker.rows) == len(worker.slot.task_rows)

    play(scene)


def test_an_application_that_never_learns_of_the_end_is_cancelled() -> None:
    async def scene() -> None:
        worker = Worker(deaf)
        client, task = await worker.connect()
        await worker.read(client)
        assert worker.slot.websockets == 1
        client.close()
        await until(lambda: bool(worker.closed))
        assert worker.slot.websockets == 0
        ended = task.websocket.ended_at
        task.check(ended + ENDS_WITHIN - 1)
        await asyncio.sleep(0)
        assert ENDED == []
        task.check(ended + ENDS_WITHIN + 1)
        await until(lambda: not worker.websockets.running)
        assert ENDED == ["deaf"]
        assert worker.lines == [("101 Switching Protocols", 1006)]
        assert worker.errors == []

    play(scene)


def test_a_client_that_leaves_before_the_answer_has_its_own_status() -> None:
    async def scene() -> None:
        worker = Worker(waits)
        client, task = await worker.connect()
        client.close()
        await until(lambda: bool(worker.closed))
        assert worker.lines == [("499 Client Closed Request", None)]
        task.check(task.websocket.ended_at + ENDS_WITHIN + 1)
        await until(lambda: not worker.websockets.running)
        assert ENDED == ["waits"]

    play(scene)


@pytest.mark.parametrize(("application", "ended"), [(echo, "echo 1012"), (deaf, "deaf")])
def test_a_worker_that_stops_closes_all_and_cancels_what_is_left(
    application: Application, ended: str
) -> None:
    async def scene() -> None:
        worker = Worker(application)
        client, _ = await worker.connect()
        with client:
            await worker.read(client)
            worker.websockets.retire(0.0)
            assert await worker.read(client) == b"\x88\x15\x03\xf4the server restarts"
            await worker.loop.sock_sendall(client, close(1012))
            assert await worker.read(client) == b""
            await until(lambda: not worker.websockets.running)
        assert worker.lines == [("101 Switching Protocols", 1012)]
        assert [ended] == ENDED

    play(scene)


def test_a_handshake_that_waits_while_the_worker_stops_is_told_so() -> None:
    async def scene() -> None:
        worker = Worker(waits)
        client, _ = await worker.connect()
        with client:
            worker.websockets.retire(0.0)
            assert (await worker.read(client)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            await until(lambda: not worker.websockets.running)

    play(scene)


def test_an_error_ends_a_websocket_with_its_code() -> None:
    async def scene() -> None:
        worker = Worker(breaks)
        client, _ = await worker.connect()
        with client:
            head, _, rest = (await worker.read(client)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"X-Request-ID: 7" in head
            assert (rest or await worker.read(client)) == b"\x88\x02\x03\xf3"
            await worker.loop.sock_sendall(client, close(1011))
            await until(lambda: not worker.websockets.running)
        assert worker.errors == [101]
        assert worker.lines == [("101 Switching Protocols", 1011)]

    play(scene)


def test_more_than_the_limit_are_refused() -> None:
    async def scene() -> None:
        worker = Worker(echo, limit=3)
        clients = [(await worker.connect())[0] for _ in range(2)]
        server, client = socket.socketpair()
        with server, client:
            connection = Connection(server, ("", 0), EnvironBuilder(CONFIG, ("127.0.0.1", 80)))
            connection.request = RequestHead(ParserSettings(CONFIG), HANDSHAKE, connection.peer, 1)
            refusal = worker.websockets.submit(connection)
            assert refusal is not None
            assert refusal().startswith(b"HTTP/1.1 503 ")
            assert worker.slot.refused == 1
        for each in clients:
            await worker.read(each)
            await worker.loop.sock_sendall(each, frame(TEXT, b"x"))
            assert await worker.read(each) == b"\x81\x01x"
            each.close()
        await until(lambda: not worker.websockets.running)
        counters = worker.slot.counters()
        assert (counters.websockets, counters.messages_received, counters.messages_sent) == (2, 2, 2)

    play(scene)
