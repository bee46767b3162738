"""The exported configuration of nginx, Caddy and HAProxy, in the real programs, in front of a real server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .load import FULL, Load
from .needs import need_program
from .proxies import PROXIES, Client, Front, proxy, quiet_ports
from .relay import cable
from .serving import PATIENCE, Server, copy_site, run, serving, until
from .test_nginx import FORGED, FORGERIES, established, get

pytestmark = pytest.mark.slow

MIB = 2**20
LARGE = 100 * MIB
REQUESTS, RELOADS = (20_000, 5) if FULL else (300, 1)
CLIENTS = 6
PROJECT = {
    "ROOT_URLCONF": "shop.async_urls",
    "WSGI_APPLICATION": "shop.socket_routing.wsgi",
    "ASGI_APPLICATION": "shop.socket_routing.application",
}
DELAY = 0.02  # seconds of cable, each way
KEPT = 2  # seconds: the server's keep-alive
# Pauses around the moment at which the server closes.
PAUSES = (1.9, 1.94, 1.96, 1.97, 1.98, 1.99, 2.0, 2.01, 2.02, 2.04) if FULL else (1.98, 2.0)
AT_ONCE = 24


class Behind:
    """A server behind a proxy, both with what one plan says; the server can be stopped and started again."""

    def __init__(self, site: Path, environ: dict[str, str], flags: tuple[str, ...], bind: str) -> None:
        self.site, self.environ, self.flags, self.bind = site, environ, flags, bind
        self._stack = ExitStack()
        self.server: Server = self.start()

    def start(self) -> Server:
        environ = {**self.environ, "PRODSERVE_LOG_FORMAT": "text"}
        started = serving(*self.flags, env=environ, cwd=self.site, bind=("--bind", self.bind))
        self.server = self._stack.enter_context(started)
        return self.server

    def stop(self) -> None:
        self._stack.close()

    def workers_peak(self) -> int:
        """Return the bytes that the workers have used at most, all together."""
        lines = [
            line
            for pid in self.server.workers()
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        ]
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def front(env: Any, tmp_path: Path, certificate: Path) -> Any:
    """Give a context manager: a server behind a proxy that has the exported configuration."""

    @contextlib.contextmanager
    def start(name: str, bind: str, *flags: str, serves: str = "") -> Iterator[tuple[Front, Behind]]:
        site, environ = copy_site(tmp_path), env(**PROJECT)
        environ = {key: text for key, text in environ.items() if key != "PRODSERVE_LOG_FORMAT"}
        folder = tmp_path / "proxy"
        folder.mkdir()
        words = ["manage.py", "prodserve", "export", name, "--bind", bind, *flags]
        pair = [f"--certfile={certificate}/cert.pem", f"--keyfile={certificate}/key.pem"]
        ended = run(*words, *pair, env=environ, cwd=site)
        assert (ended.returncode, ended.stderr) == (0, "")
        behind = Behind(site, environ, flags, serves or bind)
        with contextlib.closing(behind._stack), proxy(name, ended.stdout, folder, certificate) as running:
            yield running, behind

    return start


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize("name", PROXIES)
def test_the_exported_proxy_does_what_the_plan_expects(
    front: Any, tmp_path: Path, name: str, way: str
) -> None:
    need_program(name)
    bind = f"unix:{tmp_path}/shop.sock" if way == "unix" else f"127.0.0.1:{quiet_ports(1)[0]}"
    # One worker: all streams and their steps meet there. A client on this machine is a trusted peer, so only
    # the entry that the proxy adds may count.
    flags = ("--workers", "1", "--max-body", "128m", "--trusted-hops", "1")
    with front(name, bind, *flags) as (proxy, behind):
        _redirects(proxy)
        _passes_the_client_on(proxy)
        _bounds_bodies(proxy)
        _streams(proxy)
        _talks(proxy)
        if way == "tcp":
            _keeps_connections(proxy, behind.server)
        if way == "tcp" or FULL:
            _reloads(proxy, behind.server)
        if way == "unix" or FULL:
            _passes_large_bodies(proxy, behind)
            _stops(proxy, behind)


def _redirects(proxy: Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.plain, timeout=PATIENCE)
    with contextlib.closing(connection):
        moved = get(connection, "/whoami/?a=1")
    assert (moved.status, moved.headers["location"]) == (308, "https://shop.example/whoami/?a=1")


def _passes_the_client_on(proxy: Front) -> None:
    for headers in ({}, FORGERIES):
        seen = proxy.get("/whoami/", headers).json()
        assert seen["secure"] is True
        assert seen["meta"]["REMOTE_ADDR"] == "127.0.0.1"
        assert seen["meta"]["HTTP_HOST"] == "shop.example"
        assert FORGED not in str(seen["meta"])
        assert "evil.example" not in str(seen["meta"])


def _bounds_bodies(proxy: Front) -> None:
    with proxy.connection() as connection:
        connection.putrequest("POST", "/echo/", skip_host=True)
        connection.putheader("Host", "shop.example")
        connection.putheader("Content-Length", str(129 * MIB))
        connection.endheaders()
        status = 413
        with contextlib.suppress(OSError):  # who refuses a body may close while it is sent
            for _ in range(129):
                connection.send(bytes(MIB))
        with contextlib.suppress(OSError, http.client.BadStatusLine):
            status = connection.getresponse().status
        assert status == 413


def _passes_large_bodies(proxy: Front, behind: Behind) -> None:
    """Send 100 MiB each way: the worker keeps nothing of them in memory."""
    assert proxy.post("/echo/", bytes(MIB)).status == 200
    assert len(proxy.get(f"/events/?count=1&size={MIB}").body) == MIB
    before = behind.workers_peak()
    pieces = LARGE // MIB
    answer = proxy.post("/echo/", _Zeros(LARGE))
    assert (answer.status, answer.json()["length"]) == (200, LARGE)
    with proxy.connection() as connection:
        connection.request("GET", f"/events/?count={pieces}&size={MIB}", headers={"Host": "shop.example"})
        response = connection.getresponse()
        assert sum(map(len, iter(lambda: response.read(MIB), b""))) == LARGE
    grown = behind.workers_peak() - before
    print(f"100 MiB up and down: +{grown / MIB:.1f} MiB")
    assert grown < 16 * MIB


class _Zeros:
    """A file of zeros: ``http.client`` reads it piece by piece."""

    def __init__(self, size: int) -> None:
        self.left = size

    def __len__(self) -> int:
        return self.left

    def read(self, most: int) -> bytes:
        data = bytes(min(most, self.left))
        self.left -= len(data)
        return data


def _streams(proxy: Front) -> None:
    """The next event is sent when this client asks for it, so a proxy that holds pieces hangs here."""
    for path in ("/async/steps/", "/async/sync-steps/"):
        with proxy.connection() as connection:
            connection.request("GET", path, headers={"Host": "shop.example"})
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "text/event-stream"
            for number in range(4):
                assert response.readline() == b"data: %d\n" % number
                assert response.readline() == b"\n"
                assert proxy.get("/async/step/").status == 200


def _opened(proxy: Front, path: str, **options: Any) -> connect:
    address = f"wss://shop.example:{proxy.tls}{path}"
    return connect(address, host="127.0.0.1", ssl=proxy.trust, proxy=None, **options)


def _talks(proxy: Front) -> None:
    """Websockets: messages, the close codes of both ends, scheme and client."""

    async def scene() -> None:
        async with _opened(proxy, "/ws/echo/", subprotocols=["chat"]) as client:
            assert client.subprotocol == "chat"
            for message in ("grün", bytes(MIB), ""):
                await client.send(message)
                assert await client.recv() == message
            await client.close(3001, "bye")
        async with _opened(proxy, "/ws/closer/") as client:
            await client.send("4007 so it is")
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4007, "so it is")
        async with _opened(proxy, "/ws/about/", additional_headers=FORGERIES) as client:
            about = json.loads(await client.recv())
        assert about["scheme"] == "'wss'"
        assert "127.0.0.1" in about["client"]
        assert FORGED not in str(about)

    asyncio.run(asyncio.wait_for(scene(), 60))
    until(lambda: "echo 3001" in proxy.get("/async/ended/").json())


def _keeps_connections(proxy: Front, server: Server) -> None:
    before = established(server)
    with proxy.connection() as connection:
        assert all(get(connection, "/").text == "hello" for _ in range(10))
        assert established(server) <= before + 1


def _reloads(proxy: Front, server: Server) -> None:
    """Reload while clients send requests: none of them fails."""
    load = Load(proxy.client, "/echo/", 0 if FULL else 0.005)
    with load.running(CLIENTS):
        for number in range(1, RELOADS + 1):
            load.until_sent(number * REQUESTS // (RELOADS + 1))
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(f"generation {number + 1} serves")
        load.until_sent(max(REQUESTS, len(load.sent) + 5 * CLIENTS))
    print(f"{len(load.sent)} requests, {RELOADS} reloads, {len(load.failed)} failed")
    assert load.failed == []


def _stops(proxy: Front, behind: Behind) -> None:
    """A stopped server is a 502 or 503 soon; a started one answers."""
    behind.stop()
    began = time.monotonic()
    assert proxy.get("/").status in (502, 503)
    assert time.monotonic() - began < 10  # HAProxy tries three times; proxy timeouts are 130 s
    behind.start()
    until(lambda: proxy.get("/").status == 200)


@pytest.mark.parametrize("name", PROXIES)
def test_no_request_meets_a_connection_that_the_server_closes(front: Any, name: str) -> None:
    """Requests after a pause that is as long as the server's keep-alive, over a long cable."""
    need_program(name)
    far, near = quiet_ports(2)
    flags = ("--workers", "2", "--keep-alive", str(KEPT))
    with (
        cable(near, far, DELAY),
        front(name, f"127.0.0.1:{near}", *flags, serves=f"127.0.0.1:{far}") as (proxy, _),
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        clients = [proxy.client() for _ in range(AT_ONCE)]
        found = [*pool.map(_post, clients)]
        for pause in PAUSES:
            time.sleep(pause)
            found += pool.map(_post, clients)
        for client in clients:
            client.close()
    assert [each for each in found if each != "200"] == []


def _post(client: Client) -> str:
    try:
        client.request("POST", "/echo/", body=b"x" * 100, headers={"Host": "shop.example"})
        answer = client.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        client.close()
        return type(error).__name__
    return str(answer.status)
