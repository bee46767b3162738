"""One websocket over a real socket: what it holds, when it waits, how it ends. No server, no framework."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from django_prodserve.http.exceptions import ClientGoneError
from django_prodserve.http.limits import MIN_RATE, STALL_SECONDS
from django_prodserve.worker.websocket import (
    CLOSE_SECONDS,
    CLOSED,
    OPEN,
    PING_SECONDS,
    QUEUED_MESSAGES,
    SENDS_DROPPED_SECONDS,
    WebSocket,
)

from .socket_frames import BINARY, CLOSE, PING, PONG, TEXT, close, frame

ANSWER = b"HTTP/1.1 101 \r\n\r\n"


class Endpoint:
    """A connection as the reactor has them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.fd = sock, sock.fileno()


class Host:
    """Notes what a websocket tells the worker, and closes its socket as the worker does."""

    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.messages = 0

    def accepted(self, websocket: Any, subprotocol: str | None, headers: list[Any]) -> bytes:
        return ANSWER

    def denied(self, websocket: Any, status: int, headers: list[Any]) -> bytes:
        return f"HTTP/1.1 {status} \r\n\r\n".encode()

    def received(self) -> None:
        self.messages += 1

    def sent(self) -> None:
        self.messages += 1

    def closed(self, websocket: Any, *, politely: bool) -> None:
        self.ends.append(politely)
        websocket.connection.sock.close()


class Client:
    """The other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, *data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, b"".join(data))

    async def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = await self.loop.sock_recv(self.sock, size - len(found))
            if not more:
                break
            found += more
        return found

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame: its opcode and its payload."""
        first, size = await self.read(2)
        if size > 125:
            size = int.from_bytes(await self.read(2 if size == 126 else 8), "big")
        return first & 15, await self.read(size)


class Scene:
    def __init__(self, websocket: WebSocket, host: Host, client: Client) -> None:
        self.websocket, self.host, self.client = websocket, host, client

    async def open(self) -> None:
        """Accept the handshake."""
        assert (await self.websocket.receive())["type"] == "websocket.connect"
        await self.websocket.send({"type": "websocket.accept"})
        assert await self.client.read(len(ANSWER)) == ANSWER
        assert self.websocket.state == OPEN


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def play(scene: Callable[[Scene], Awaitable[None]], **limits: int) -> None:
    async def run() -> None:
        server, client = socket.socketpair()
        client.setblocking(False)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        host = Host()
        websocket = WebSocket(host, asyncio.get_running_loop(), Endpoint(server), **limits)
        websocket.read_on()
        with server, client:
            await asyncio.wait_for(scene(Scene(websocket, host, Client(client))), 20)
            websocket.gone()
        assert len(host.ends) == 1

    asyncio.run(run())


def now() -> float:
    return asyncio.get_running_loop().time()


async def received(websocket: WebSocket) -> Any:
    message = await websocket.receive()
    return message.get("text", message.get("bytes", message.get("code")))


def test_messages_pass_both_ways() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        await client.send(frame(TEXT, b"one"), frame(BINARY, b"two"), frame(PING, b"?"))
        assert [await received(websocket), await received(websocket)] == ["one", b"two"]
        await websocket.send({"type": "websocket.send", "text": "grün"})
        await websocket.send({"type": "websocket.send", "bytes": bytearray(b"three"), "text": None})
        frames = [await client.frame() for _ in range(3)]
        assert frames == [(PONG, b"?"), (TEXT, "grün".encode()), (BINARY, b"three")]
        assert scene.host.messages == 4

    play(scene)


def test_bytes_before_the_answer_wait_for_it() -> None:
    async def scene(scene: Scene) -> None:
        await scene.client.send(frame(TEXT, b"early"))
        await until(lambda: scene.websocket.is_full)
        await scene.client.send(frame(TEXT, b"second"))
        await scene.open()
        assert [await received(scene.websocket), await received(scene.websocket)] == ["early", "second"]

    play(scene)


def test_a_client_waits_while_the_application_does_not_receive() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        count = 5000
        messages = [frame(TEXT, str(number).encode().rjust(100)) for number in range(count)]
        sending = asyncio.ensure_future(client.send(*messages))
        await until(lambda: not websocket.is_reading)
        assert scene.host.messages <= QUEUED_MESSAGES
        assert not sending.done()
        found = [int(await received(websocket)) for _ in range(count)]
        assert found == [*range(count)]
        await sending
        await client.send(frame(PING, b"still"))
        assert await client.frame() == (PONG, b"still")

    play(scene)


def test_large_messages_are_held_one_at_a_time() -> None:
    async def scene(scene: Scene) -> None:
        await scene.open()
        sending = asyncio.ensure_future(scene.client.send(*[frame(BINARY, bytes(10**5))] * 5))
        await until(lambda: not scene.websocket.is_reading)
        assert scene.host.messages == 1
        assert [len(await received(scene.websocket)) for _ in range(5)] == [10**5] * 5
        await sending

    play(scene)


def test_a_send_waits_for_a_client_that_is_behind() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        sizes = [10, 10**5, 30_000, 10**6, 5]

        async def send_all() -> None:
            for size in sizes:
                await websocket.send({"type": "websocket.send", "bytes": bytes(size)})

        sending = asyncio.ensure_future(send_all())
        await until(lambda: websocket.is_ahead)
        assert not sending.done()
        assert [len((await client.frame())[1]) for _ in sizes] == sizes
        await sending
        assert websocket.bytes_sent == sum(sizes)

    play(scene)


def test_the_last_of_many_pings_is_answered() -> None:
    async def scene(scene: Scene) -> None:
        await scene.open()
        await scene.client.send(*(frame(PING, str(number).encode()) for number in range(500)))
        answers = [await scene.client.frame()]
        while answers[-1] != (PONG, b"499"):
            answers.append(await scene.client.frame())
        assert len(answers) < 500

    play(scene)


def test_an_application_closes() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        await websocket.send({"type": "websocket.close", "code": 4001, "reason": "why"})
        assert await client.frame() == (CLOSE, b"\x0f\xa1why")
        await client.send(frame(TEXT, b"too late"), close(4001))
        assert await client.read(1) == b""
        assert scene.host.ends == [False]
        ended = {"type": "websocket.disconnect", "code": 4001, "reason": "why"}
        assert [await websocket.receive(), await websocket.receive()] == [ended, ended]

    play(scene)


def test_a_client_closes_behind_its_messages() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        await client.send(frame(TEXT, b"last"), close(3000, "bye"))
        assert await client.frame() == (CLOSE, b"\x0b\xb8")
        assert await client.read(1) == b""
        assert await received(websocket) == "last"
        assert await websocket.receive() == {"type": "websocket.disconnect", "code": 3000, "reason": "bye"}

    play(scene)


@pytest.mark.parametrize(
    ("code", "sent"),
    [(1002, frame(3, b"x")), (1007, frame(TEXT, b"\xff")), (1009, frame(BINARY, bytes(1001)))],
)
def test_a_client_that_violates_the_protocol_gets_the_code(code: int, sent: bytes) -> None:
    async def scene(scene: Scene) -> None:
        await scene.open()
        await scene.client.send(frame(TEXT, b"fine"), sent)
        opcode, payload = await scene.client.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        assert [await received(scene.websocket), await received(scene.websocket)] == ["fine", code]
        assert scene.host.ends == [True]  # what it still sends must not reset the connection

    play(scene, limit=1000)


def test_a_client_that_leaves_ends_what_waits() -> None:
    async def scene(scene: Scene) -> None:
        websocket = scene.websocket
        await scene.open()
        waiting = asyncio.ensure_future(websocket.receive())
        sending = asyncio.ensure_future(websocket.send({"type": "websocket.send", "bytes": bytes(10**6)}))
        await until(lambda: websocket.is_ahead)
        scene.client.sock.close()
        assert (await waiting)["code"] == 1006
        await sending
        with pytest.raises(ClientGoneError):  # the application knows that it has ended
            await websocket.send({"type": "websocket.send", "text": "x"})

    play(scene)


def test_what_is_sent_before_the_application_learns_of_the_end_is_dropped() -> None:
    async def scene(scene: Scene) -> None:
        websocket = scene.websocket
        await scene.open()
        websocket.close(1012, "the server restarts")
        await websocket.send({"type": "websocket.send", "text": "x"})
        websocket.ended_at -= SENDS_DROPPED_SECONDS + 1
        with pytest.raises(ClientGoneError):  # it never receives
            await websocket.send({"type": "websocket.send", "text": "x"})
        await websocket.send({"type": "websocket.close"})
        assert await scene.client.frame() == (CLOSE, b"\x03\xf4the server restarts")

    play(scene)


def test_a_client_that_never_answers_the_close_is_cut() -> None:
    async def scene(scene: Scene) -> None:
        await scene.open()
        scene.websocket.close(1001)
        scene.websocket.check(now() + CLOSE_SECONDS - 1)
        assert scene.host.ends == []
        scene.websocket.check(now() + CLOSE_SECONDS)
        assert scene.host.ends == [False]

    play(scene)


def test_a_ping_without_an_answer_ends_it() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        websocket.check(now() + PING_SECONDS - 1)
        websocket.check(now() + PING_SECONDS + 1)
        assert await client.frame() == (PING, b"")
        await client.send(frame(PONG))
        await until(lambda: websocket.has_heard)
        websocket.check(now() + 2 * PING_SECONDS + 2)
        assert await client.frame() == (PING, b"")
        websocket.check(now() + 3 * PING_SECONDS + 3)
        assert await received(websocket) == 1006
        assert await client.read(1) == b""

    play(scene)


def test_a_slow_client_is_not_taken_for_dead_while_it_reads() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        await websocket.send({"type": "websocket.send", "bytes": bytes(60_000)})
        websocket.check(now() + PING_SECONDS + 1)  # the ping is behind the message
        before = websocket.arrived_bytes
        await client.read(30_000)
        await until(lambda: websocket.arrived_bytes > before)
        websocket.check(now() + 2 * PING_SECONDS + 2)
        assert websocket.state == OPEN
        websocket.check(now() + 3 * PING_SECONDS + 3)
        assert websocket.state == CLOSED

    play(scene)


def test_a_client_whose_messages_wait_is_not_taken_for_dead() -> None:
    async def scene(scene: Scene) -> None:
        websocket, client = scene.websocket, scene.client
        await scene.open()
        await client.send(*[frame(TEXT, b"x")] * 1000)
        await until(lambda: websocket.is_full)
        await client.send(*[frame(TEXT, b"x")] * 1000)
        await until(lambda: not websocket.is_reading)
        for times in range(1, 4):
            websocket.check(now() + times * (PING_SECONDS + 1))
        assert websocket.state == OPEN
        for _ in range(2000):
            await websocket.receive()
        websocket.check(now() + 4 * (PING_SECONDS + 1))  # before its answer has been read
        assert websocket.state == OPEN

    play(scene)


def test_a_client_that_does_not_read_is_cut() -> None:
    async def scene(scene: Scene) -> None:
        websocket = scene.websocket
        await scene.open()
        sending = asyncio.ensure_future(websocket.send({"type": "websocket.send", "bytes": bytes(10**6)}))
        await until(lambda: websocket.is_ahead)
        moved = await scene.client.read(int(STALL_SECONDS * MIN_RATE) + 10**5)
        await until(lambda: websocket.moved > len(moved) // 2)
        websocket.check(websocket.checked + STALL_SECONDS)
        assert websocket.state == OPEN
        assert not sending.done()
        websocket.check(websocket.checked + STALL_SECONDS)
        assert websocket.state == CLOSED
        assert websocket.aborted
        await sending

    play(scene)


def test_a_refusal_is_a_response() -> None:
    async def refused(scene: Scene) -> None:
        await scene.websocket.receive()
        await scene.websocket.send({"type": "websocket.close"})
        assert (await scene.client.read(100)).startswith(b"HTTP/1.1 403 ")

    async def own(scene: Scene) -> None:
        await scene.websocket.receive()
        headers = [(b"x", b"y")]
        await scene.websocket.send(
            {"type": "websocket.http.response.start", "status": 401, "headers": headers}
        )
        for number, more in enumerate((True, False)):
            await scene.websocket.send(
                {"type": "websocket.http.response.body", "body": b"%d" % number, "more_body": more}
            )
        assert await scene.client.read(100) == b"HTTP/1.1 401 \r\n\r\n01"

    play(refused)
    play(own)


def test_what_an_application_sends_at_the_wrong_time_is_its_error() -> None:
    async def scene(scene: Scene) -> None:
        with pytest.raises(RuntimeError, match="before it has accepted"):
            await scene.websocket.send({"type": "websocket.send", "text": "x"})
        await scene.open()
        for message in ({"type": "websocket.accept"}, {"type": "websocket.send"}):
            with pytest.raises(RuntimeError, match="the application sent"):
                await scene.websocket.send(message)
        with pytest.raises(ValueError, match="1005"):
            await scene.websocket.send({"type": "websocket.close", "code": 1005})

    play(scene)


def test_a_worker_that_stops_closes_a_websocket_when_it_opens() -> None:
    async def scene(scene: Scene) -> None:
        scene.websocket.close(1012, "the server restarts")
        await scene.websocket.receive()
        await scene.websocket.send({"type": "websocket.accept"})
        assert await scene.client.read(len(ANSWER)) == ANSWER
        assert await scene.client.frame() == (CLOSE, b"\x03\xf4the server restarts")

    play(scene)
