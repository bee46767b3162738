"""The ASGI servers of other projects in our workers: what holds there too."""

from __future__ import annotations

import http.client
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_prodserve.errors import UsageError
from django_prodserve.startup.files import check_files

from ..facts import plan
from .serving import serving, until

Env = Callable[..., dict[str, str]]
CLASSES = pytest.mark.parametrize("kind", ["asgi", pytest.param("uvicorn", marks=pytest.mark.stock)])


@pytest.fixture
def project(env: Env) -> dict[str, str]:
    return env(ROOT_URLCONF="shop.async_urls", WSGI_APPLICATION=None)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn_worker", None)
    with pytest.raises(UsageError, match=r"needs .*uvicorn-worker.* lacks.\n.*django-prodserve\[uvicorn\]"):
        check_files(plan(worker_class="uvicorn"))


@CLASSES
def test_another_asgi_server_has_our_middleware(project: dict[str, str], kind: str) -> None:
    flags = ("--workers", "1", "--worker-class", kind, "--access-log", "-", "--trusted-proxies", "loopback")
    with serving(*flags, env=project) as server:
        assert "prodserve help worker-class" in server.output
        assert server.get("/async/where/").json()["thread"] == "MainThread"
        own, called = server.get("/sync/where/").json()
        assert (own.startswith("prodserve-lease-"), called) == (True, "MainThread")
        assert server.get("/livez").text == "ok\n"
        assert server.get("/readyz", "POST").status == 405
        file = server.get("/static/admin/css/base.css", headers={"Accept-Encoding": "gzip"})
        assert (file.status, file.headers["content-encoding"]) == (200, "gzip")
        known = {"If-None-Match": file.headers["etag"]}
        assert server.get("/static/admin/css/base.css", headers=known).status == 304
        part = server.get("/static/admin/css/base.css", headers={"Range": "bytes=0-3"})
        assert (part.status, len(part.body)) == (206, 4)
        named = server.get("/", headers={"X-Request-ID": "abc", "X-Forwarded-For": "203.0.113.9"})
        assert named.headers["x-request-id"] == "abc"
        line = server.wait_for('"GET / HTTP/1.1" 200')
        assert line.startswith("203.0.113.9 - - ")
        assert " abc shop.urls.hello " in line
        assert "GET /livez" not in server.output
        uploads(server.port)


@pytest.mark.slow
@CLASSES
def test_another_asgi_server_stops_in_an_orderly_way(project: dict[str, str], kind: str) -> None:
    flags = ("--workers", "2", "--worker-class", kind, "--graceful-timeout", "20s")
    with serving(*flags, env=project) as server:
        before = server.workers(2)
        left = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        left.request("GET", "/async/hello/")
        left.getresponse().read()  # and stays open
        stream = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        stream.request("GET", "/async/steps/")
        events = stream.getresponse()
        assert events.readline() == b"data: 0\n"
        server.process.send_signal(signal.SIGHUP)
        until(lambda: not set(before) & set(server.workers(2)))
        assert events.read() == b"\n"  # the end of a complete response
        assert server.get("/async/hello/").text == "hello"
        stream.close()
        left.close()
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
        assert "Stopped after" in server.output


def uploads(port: int) -> None:
    """Send bodies of 64 KiB over one connection: with Gunicorn's other parser it is lost between them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    used = connection.sock
    for _ in range(20):
        connection.request("POST", "/async/size/", body=b"x" * 65_536)
        assert connection.getresponse().read() == b"65536"
        assert connection.sock is used
    connection.close()


@pytest.mark.slow
@CLASSES
def test_another_asgi_server_has_our_limits(project: dict[str, str], kind: str) -> None:
    flags = ("--workers", "1", "--worker-class", kind, "--worker-connections", "2", "--timeout", "3s")
    with serving(*flags, "--max-body", "1m", env=project) as server:
        assert server.get("/async/size/", "POST", body=b"x" * (2**20 + 1)).status == 413
        assert server.get("/async/size/", "POST", body=b"x" * 2**20).text == str(2**20)
        assert chunked(server.port, 2**20 + 1) == 413
        with ThreadPoolExecutor() as pool:
            naps = [pool.submit(server.get, f"/async/nap/?seconds=20&name={n}") for n in "abc"]
            assert sorted(nap.result().status for nap in naps) == [503, 504, 504]
        assert len(server.get("/async/ended/").json()) == 2


def chunked(port: int, size: int) -> int:
    """Send a body without a length; return the status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/async/size/", body=iter([b"x" * size]), encode_chunked=True)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.slow
@CLASSES
def test_websockets_of_another_asgi_server_are_told_of_a_stop(env: Env, kind: str) -> None:
    settings = env(ASGI_APPLICATION="shop.asgi_sockets.application")
    flags = ("--workers", "1", "--worker-class", kind, "--trusted-proxies", "loopback")
    with serving(*flags, env=settings) as server, Socket(server.port) as opened:
        assert server.get("/").text == "hello"
        assert opened.receive() == (1, b"203.0.113.9")
        server.process.send_signal(signal.SIGHUP)
        assert opened.receive() == (8, b"\x03\xf4")  # 1012
        with Socket(server.port) as again:
            assert again.receive() == (1, b"203.0.113.9")
            server.process.send_signal(signal.SIGTERM)
            assert again.receive() == (8, {"asgi": b"\x03\xe9", "uvicorn": b"\x03\xf4"}[kind])
            again.close()
            assert server.process.wait(timeout=10) == 0


class Socket:
    """A websocket of a client behind a trusted proxy."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.sendall(
            b"GET /echo/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"X-Forwarded-For: 203.0.113.9\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self._file = self._socket.makefile("rb")
        assert b" 101 " in self._file.readline()
        while self._file.readline() != b"\r\n":
            pass

    def receive(self) -> tuple[int, bytes]:
        """Return kind and payload of the next short frame; answer a close, whose payload is its code."""
        first, length = self._file.read(2)
        payload = self._file.read(length)
        if first & 15 != 8:
            return first & 15, payload
        self._socket.sendall(b"\x88\x82\0\0\0\0" + payload[:2])
        return 8, payload[:2]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
