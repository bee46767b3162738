"""What prodserve adds to a project's application under another ASGI server, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from django_prodserve.asgi.leases import NoThreadFreeError
from django_prodserve.config.trust import parse_trust
from django_prodserve.middleware.application import Application
from django_prodserve.middleware.asgi import STREAMS_END_AFTER, ASGIApplication
from django_prodserve.middleware.health import HealthMiddleware, Paths
from django_prodserve.middleware.proxy_headers import ProxyHeadersMiddleware
from django_prodserve.middleware.request_id import RequestIDMiddleware, RequestIDs

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
FILE = b"x" * 200_000


def files(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", str(len(FILE)))])
    return iter([FILE[:65_536], FILE[65_536:]])


def wrapped(application: Any, **limits: Any) -> ASGIApplication:
    proxy = ProxyHeadersMiddleware(files, parse_trust(("loopback",)))
    ids = RequestIDMiddleware(proxy, RequestIDs(proxy.believes), timing=True)
    layers = Application(
        health=HealthMiddleware(ids, Paths(("/livez", "/readyz"))), request_ids=ids, proxy=proxy
    )
    return ASGIApplication(
        application,
        layers,
        [lambda path: path == "/film.mp4"],
        **{"timeout": 0.0, "limit": 10, "max_body": None} | limits,
    )


@dataclass
class Client:
    """One request to an application."""

    application: ASGIApplication
    path: str = "/"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=lambda: [b""])
    kind: str = "http"
    sent: list[dict[str, Any]] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.begun.set()

    async def receive(self) -> dict[str, Any]:
        if self.pieces:
            return {
                "type": f"{self.kind}.request",
                "body": self.pieces.pop(0),
                "more_body": bool(self.pieces),
            }
        await asyncio.Event().wait()
        raise AssertionError

    async def ask(self) -> Client:
        scope = {
            "type": self.kind,
            "method": "GET",
            "scheme": "http" if self.kind == "http" else "ws",
            "path": self.path,
            "headers": [(b"host", b"localhost"), *self.headers],
            "client": ("127.0.0.1", 5000),
            "server": ("127.0.0.1", 8000),
        }
        await self.application(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def answered(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        assert not self.sent[-1].get("more_body", False)
        return b"".join(message["body"] for message in self.sent[1:])


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": scope["client"][0].encode()})


async def never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def ask(application: Any, *arguments: Any, **limits: Any) -> Client:
    return asyncio.run(Client(wrapped(application, **limits), *arguments).ask())


def test_a_request_gets_its_id_its_client_and_its_time() -> None:
    told = [(b"x-request-id", b"abc"), (b"x-forwarded-for", b"203.0.113.9")]
    answer = ask(hello, "/", told)
    assert (answer.status, answer.body) == (200, b"203.0.113.9")
    assert answer.answered[b"x-request-id"] == b"abc"
    assert answer.answered[b"server-timing"].startswith(b"app;dur=")
    assert len(ask(hello).answered[b"x-request-id"]) == 20


@pytest.mark.parametrize(("path", "body"), [("/livez", b"ok\n"), ("/readyz", b"ok\n"), ("/film.mp4", FILE)])
def test_probes_and_files_do_not_reach_the_application(path: str, body: bytes) -> None:
    answer = ask(never, path)
    assert (answer.status, answer.body, answer.answered[b"content-length"]) == (200, body, b"%d" % len(body))


async def reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await hello(scope, receive, send)


async def finds_no_thread(scope: Any, receive: Any, send: Any) -> None:
    raise NoThreadFreeError("all are in use")


@pytest.mark.parametrize(
    ("application", "status", "request_", "limits"),
    [
        (hello, 503, {}, {"limit": 0}),
        (finds_no_thread, 503, {}, {}),
        (never, 504, {}, {"timeout": 0.01}),
        (hello, 413, {"headers": [(b"content-length", b"11")]}, {"max_body": 10}),
        (reads, 413, {"pieces": [b"x" * 6, b"x" * 6, b""]}, {"max_body": 10}),
        (reads, 200, {"pieces": [b"x" * 6, b"x" * 4, b""]}, {"max_body": 10}),
        (hello, 200, {}, {"timeout": 30}),
    ],
)
def test_limits(application: Any, status: int, request_: dict[str, Any], limits: dict[str, Any]) -> None:
    answer = asyncio.run(Client(wrapped(application, **limits), **request_).ask())
    assert answer.status == status
    assert answer.body
    assert b"x-request-id" in answer.answered


def test_an_error_of_the_application_is_the_servers() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        ask(broken)


def during(client: Client, act: Callable[[asyncio.Task[Client]], Awaitable[None]]) -> None:
    """Act while a request runs, after the first message of its response."""

    async def main() -> None:
        task = asyncio.create_task(client.ask())
        await client.begun.wait()
        await act(task)

    asyncio.run(main())


ENDED: list[str] = []


def stream(kind: str) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-type", kind.encode())]})
        try:
            await asyncio.Event().wait()
        finally:
            ENDED.append(kind)

    return application


def test_a_stop_ends_event_streams_and_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert STREAMS_END_AFTER == 1.0
    monkeypatch.setattr("django_prodserve.middleware.asgi.STREAMS_END_AFTER", 0.0)
    ENDED.clear()
    client = Client(wrapped(stream("text/event-stream; charset=utf-8")))

    async def stop(task: asyncio.Task[Client]) -> None:
        await client.application.end(for_good=True)
        assert (await task).body == b""

    during(client, stop)
    assert ENDED == ["text/event-stream; charset=utf-8"]
    other = Client(wrapped(stream("video/mp4")))

    async def stop_other(task: asyncio.Task[Client]) -> None:
        await other.application.end(for_good=True)
        assert not task.done()
        task.cancel()  # as a server does whose time is over
        with pytest.raises(asyncio.CancelledError):
            await task

    during(other, stop_other)
    assert ENDED[-1] == "video/mp4"
    assert len(other.sent) == 1


@pytest.mark.parametrize(("for_good", "code"), [(True, 1001), (False, 1012)])
def test_a_stop_closes_websockets(for_good: bool, code: int) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    client = Client(wrapped(application), kind="websocket")

    async def stop(task: asyncio.Task[Client]) -> None:
        ending = asyncio.create_task(client.application.end(for_good=for_good))
        while len(client.sent) < 2:
            await asyncio.sleep(0)
        ending.cancel()
        task.cancel()
        await asyncio.wait([task])

    during(client, stop)
    assert client.sent[1:] == [{"type": "websocket.close", "code": code}]
