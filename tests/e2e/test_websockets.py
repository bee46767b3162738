"""Websockets of real workers: Channels and plain applications, real clients, through stops and reloads."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_sync

from ..socket_frames import BINARY, PING, TEXT, frame
from .management import MANAGEMENT, ask
from .serving import Server, run, serving, until

Env = Callable[..., dict[str, str]]


@pytest.fixture
def project(env: Env) -> dict[str, str]:
    """A project with Channels' router as its ASGI_APPLICATION."""
    return env(
        ROOT_URLCONF="shop.async_urls",
        WSGI_APPLICATION="shop.socket_routing.wsgi",
        ASGI_APPLICATION="shop.socket_routing.application",
    )


def play(scene: Any) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 60))


def address(server: Server, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def opened(server: Server, path: str, **options: Any) -> connect:
    return connect(address(server, path), proxy=None, **options)


async def until_closed(client: ClientConnection) -> None:
    while True:
        await client.recv()


async def ended(client: ClientConnection) -> tuple[int, str]:
    """Return the close code and the reason that a client gets."""
    with pytest.raises(ConnectionClosed) as closed:
        await until_closed(client)
    received = closed.value.rcvd
    assert received is not None, "no close frame"
    return received.code, received.reason


async def control(server: Server, command: str = "") -> dict[str, Any]:
    async with opened(server, "/ws/control/") as client:
        await client.send(json.dumps(command))
        found: dict[str, Any] = json.loads(await client.recv())
        return found


def raw(server: Server, path: str = "/ws/echo/", method: str = "GET", **headers: str) -> socket.socket:
    """Send a handshake by hand."""
    usual = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(bytes(16)).decode(),
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (usual | headers).items() if value]
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    client.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
    return client


def answer(client: socket.socket) -> tuple[int, str]:
    """Return the status and the head of a response."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(1)
        assert more, head
        head += more
    return int(head.split()[1]), head.decode("latin-1")


def rest(client: socket.socket) -> bytes:
    """Return all that comes until the end."""
    found = b""
    while more := client.recv(2**16):
        found += more
    client.close()
    return found


def test_messages_pass_and_each_end_has_its_code_and_its_line(project: dict[str, str]) -> None:
    with serving("--workers", "1", "--access-log", "-", *MANAGEMENT, env=project) as server:

        async def scene() -> None:
            async with opened(server, "/ws/echo/?a=1", subprotocols=["chat", "other"]) as client:
                assert client.subprotocol == "chat"
                for message in ("grün", b"\0\1", "x" * 70_000, bytes(2**20), ""):
                    await client.send(message)
                    assert await client.recv() == message
                await client.send(["one ", "message ", "in fragments"])
                assert await client.recv() == "one message in fragments"
                await (await client.ping())
                live = ask(server, "/status.json").json()
                assert live["workers"][0]["websockets"] == 1
                assert live["workers"][0]["connections"] == 2  # with the one that asks
                here = ("--bind", server.address.removeprefix("http://"))
                assert ", 1 websocket, " in run("manage.py", "prodserve", "status", *here, env=project).stdout
                await client.close(3001, "bye")
            server.wait_for(
                re.compile(r'"GET /ws/echo/\?a=1 HTTP/1\.1" 101 1118\d{3} .*ms close=3001$').search
            )

            proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
            async with opened(server, "/ws/about/", additional_headers=proxied) as client:
                about = json.loads(await client.recv())
                response = client.response
                assert response is not None
                assert response.headers["X-Own"] == "yes"
                assert len(response.headers["X-Request-ID"]) == 20
            assert about["scheme"] == "'wss'"  # a proxy on this machine is trusted
            assert "192.0.2.7" in about["client"]
            assert about["path"] == "'/ws/about/'"

            for path, status, body in (
                ("/ws/refused/", 403, b"Forbidden"),
                ("/ws/plain/?denial", 401, b'{"why": "no token"}'),
                ("/ws/plain/?silent", 500, b"Internal Server Error"),
                ("/ws/broken/?early", 500, b"Internal Server Error"),
            ):
                with pytest.raises(InvalidStatus) as refused:
                    async with opened(server, path):
                        pass
                assert refused.value.response.status_code == status
                assert body in (refused.value.response.body or b"")
                assert len(refused.value.response.headers.get_all("X-Request-ID")) == 1
            server.wait_for("RuntimeError: the view broke early")

            async with opened(server, "/ws/broken/") as client:
                await client.send("x")
                assert await ended(client) == (1011, "")
            server.wait_for("Error in the websocket /ws/broken/")
            server.wait_for(re.compile(r'"GET /ws/broken/ HTTP/1\.1" 101 0 .* close=1011$').search)
            async with opened(server, "/ws/plain/?returns") as client:
                assert await ended(client) == (1000, "")
            async with opened(server, "/ws/closer/") as client:
                await client.send("4001 why")
                assert await ended(client) == (4001, "why")
            assert (await control(server))["ended"] == ["echo 3001"]

        play(scene())
        metrics = ask(server, "/metrics").text
        assert 'prodserve_websockets{worker="0"} 0.0' in metrics
        assert "prodserve_websockets_opened_total 6.0" in metrics
        assert 'prodserve_websocket_messages_total{direction="received"} 9.0' in metrics
        assert 'prodserve_requests_total{method="GET",code="1xx"} 6.0' in metrics
        errors = ask(server, "/status.json").json()["recent_errors"]
        assert {each["path"] for each in errors} >= {"/ws/plain/", "/ws/broken/"}
        assert server.get("/").text == "hello"


def test_what_is_no_handshake_is_answered(project: dict[str, str]) -> None:
    with serving("--workers", "1", env=project) as server:
        for status, headers in (
            (400, {"Connection": "keep-alive"}),
            (426, {"Sec_WebSocket_Version": "8"}),
            (400, {"Sec_WebSocket_Key": "short"}),
        ):
            client = raw(server, **headers)
            found, head = answer(client)
            assert found == status
            assert ("Sec-WebSocket-Version: 13" in head) == (status == 426)
            rest(client)
        server.wait_for("Invalid websocket handshake from ip=127.0.0.1: Sec-WebSocket-Key is not 16 bytes")
        for client in (
            *(raw(server, path="/", method="POST"), raw(server, path="/", Upgrade="h2c")),
            raw(server, path="/livez"),
        ):
            with client:
                assert answer(client)[0] in (200, 403)  # Django's, or the probe's
        with raw(server, Connection="Keep-Alive, Upgrade") as client:
            client.sendall(frame(TEXT, b"with the head"))  # perhaps in the same read
            assert answer(client)[0] == 101
            assert client.recv(100) == b"\x81\x0dwith the head"


@pytest.mark.slow
def test_a_hostile_client_ends_alone(project: dict[str, str]) -> None:
    with serving("--workers", "1", env=project) as server:
        with connect_sync(address(server, "/ws/echo/"), proxy=None) as other:
            for code, sent in (
                (1002, frame(TEXT, b"x", masked=False)),
                (1002, frame(11, b"x")),
                (1007, frame(TEXT, b"\xff")),
                (1009, b"\x82\xff" + (2**24 + 1).to_bytes(8, "big") + bytes(2**20)),
            ):
                if code == 1009:
                    sent = sent[:1] + b"\xff" + sent[2:]
                client = raw(server)
                assert answer(client)[0] == 101
                client.sendall(sent)
                found = rest(client)
                assert found[:1] == b"\x88"
                assert int.from_bytes(found[2:4], "big") == code
            with raw(server) as flood, ThreadPoolExecutor() as reader:
                assert answer(flood)[0] == 101
                flood.sendall(frame(PING, b"?") * 20_000 + frame(TEXT, b"done"))
                found = b""
                while not found.endswith(b"\x81\x04done"):
                    found += flood.recv(2**16)
                other.send("beside")
                assert other.recv() == "beside"
                # A message of the largest size, both ways.
                sending = reader.submit(flood.sendall, frame(BINARY, bytes(2**24), key=bytes(4)))
                size = 2**24 + 10
                while size:
                    size -= len(flood.recv(min(size, 2**20)))
                sending.result()
            for number in range(50):  # clients that leave in every state
                leaving = raw(server, path="/ws/sleepy/" if number % 2 else "/ws/echo/")
                if number % 3:
                    answer(leaving)
                    leaving.sendall(frame(TEXT, b"1") * 5 + b"\x81")
                leaving.close()
            other.send("still here")
            assert other.recv() == "still here"
        until(lambda: play(control(server))["ended"].count("echo 1006") >= 20)


@pytest.mark.slow
def test_a_client_waits_while_the_application_is_busy_and_the_other_way_round(
    project: dict[str, str],
) -> None:
    with serving("--workers", "1", *MANAGEMENT, env=project) as server:

        async def scene() -> None:
            async with opened(server, "/ws/plain/?late") as client:
                count = 4_000
                messages = [str(number).rjust(2000, "0") for number in range(count)]
                sending = asyncio.ensure_future(asyncio.gather(*map(client.send, messages)))
                done, _ = await asyncio.wait([sending], timeout=1)
                assert not done  # the worker holds 32 messages, the kernel what it can
                await control(server, "go")
                await sending
                while (found := await control(server))["seen"] < count:
                    await asyncio.sleep(0.05)
                assert found["in order"]

            flooded = raw(server, path="/ws/plain/?flood")
            answer(flooded)
            flooded.recv(1000)
            assert (await control(server))["ended"] != []  # the loop is free
            flooded.close()
            while "flood" not in (await control(server))["ended"]:
                await asyncio.sleep(0.05)

        play(scene())


def test_an_application_that_blocks_or_forks_is_named(project: dict[str, str]) -> None:
    with serving("--workers", "1", env=project) as server:

        async def scene() -> None:
            async with opened(server, "/ws/plain/?blocks"):
                line = server.wait_for("blocks the asyncio loop")
            assert re.search(
                r"The websocket /ws/plain/ \(id \w+\) blocks .*socket_routing\.py, line \d+", line
            )
            async with (
                opened(server, "/ws/echo/") as other,
                opened(server, "/ws/plain/?forks") as forked,
            ):
                server.wait_for("The websocket /ws/plain/ forked a process that came back")
                await forked.send("x")
                await (await forked.ping())
                await other.send("x")
                assert await other.recv() == "x"
            ended = (await control(server))["ended"]
            assert {"echo 1000", "plain 1000 "} <= {*ended}

        play(scene())


def test_a_stop_tells_clients_and_applications(project: dict[str, str]) -> None:
    with serving("--workers", "2", "--access-log", "-", env=project) as server:

        async def scene() -> None:
            async with AsyncExitStack() as stack:
                paths = ["/ws/echo/"] * 10 + ["/ws/plain/?lingers"]
                clients = [await stack.enter_async_context(opened(server, path)) for path in paths]
                server.process.send_signal(signal.SIGTERM)
                codes = await asyncio.gather(*map(ended, clients))
                assert {*codes} == {(1001, "the server stops")}

        play(scene())
        assert server.process.wait(timeout=30) == 0
        assert "Stopping: no requests and 11 websockets running, at most" in server.output
        assert "the application has ended" in server.output
        assert server.output.count(" close=1001") == 11


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_client_that_never_answers(project: dict[str, str]) -> None:
    with serving("--workers", "1", env=project) as server, raw(server) as mute:
        assert answer(mute)[0] == 101
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert mute.recv(2) == b"\x88\x12"
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - began < 15  # the graceful timeout is 25 s


def test_a_reload_moves_websockets_to_the_new_generation(project: dict[str, str]) -> None:
    with serving("--workers", "2", env=project) as server:

        async def scene() -> None:
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(opened(server, "/ws/about/")) for _ in range(60)]
                before = {json.loads(await client.recv())["pid"] for client in clients}
                assert len(before) == 2

                async def move(client: ClientConnection) -> int:
                    """Connect again, as often as the server says so; return the worker's pid."""
                    assert await ended(client) == (1012, "the server restarts")
                    client = await stack.enter_async_context(opened(server, "/ws/about/"))
                    pid: int = json.loads(await client.recv())["pid"]
                    return pid if pid not in before else await move(client)

                server.process.send_signal(signal.SIGHUP)
                after = await asyncio.gather(*map(move, clients))
                assert len(after) == 60
                assert not before & {*after}

        play(scene())


@pytest.mark.slow
def test_websockets_are_spread_over_the_workers(project: dict[str, str]) -> None:
    with serving("--workers", "2", env=project) as server:

        async def scene() -> None:
            for _ in range(10):
                async with AsyncExitStack() as stack:
                    clients = await asyncio.gather(
                        *(stack.enter_async_context(opened(server, "/ws/about/")) for _ in range(32))
                    )
                    pids = [json.loads(await client.recv())["pid"] for client in clients]
                    assert all(12 <= pids.count(pid) <= 20 for pid in {*pids}), pids

        play(scene())


def test_sync_consumers_run_beside_each_other_each_in_order(project: dict[str, str]) -> None:
    with serving("--workers", "1", "--threads", "8", env=project) as server:

        async def scene() -> None:
            async def talk() -> set[str]:
                async with opened(server, "/ws/sleepy/") as client:
                    for number in range(10):
                        await client.send(str(number))
                    found = [json.loads(await client.recv()) for _ in range(10)]
                    assert [each["number"] for each in found] == [*range(10)]
                    return {each["thread"] for each in found}

            threads = set().union(*await asyncio.gather(*(talk() for _ in range(16))))
            assert len(threads) == 8
            assert all(name.startswith("prodserve-lease-") for name in threads)

        play(scene())
