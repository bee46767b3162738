"""A real nginx in front, with the lines that everybody copies: what Django learns of the client through it.

A client's address is chosen by the PROXY protocol, which this nginx is told to believe: on one machine every
address would be a loopback one, and those are trusted.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from .needs import need_program
from .serving import PATIENCE, Response, Server, serving

CLIENT = "203.0.113.9"
FORGED = "198.51.100.66"
FORGERIES = {
    "X-Forwarded-For": FORGED,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": FORGED,
    "Forwarded": f"for={FORGED};proto=https;host=evil.example",
    "X_Forwarded_For": FORGED,
    "X-Forwarded-Ssl": "on",
}

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    set_real_ip_from 127.0.0.1;
    real_ip_header proxy_protocol;
    upstream shop {{
        server {upstream};
        keepalive 4;
    }}
    server {{
        listen 127.0.0.1:{plain} proxy_protocol;
        listen 127.0.0.1:{tls} ssl proxy_protocol;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


class Nginx:
    """A running nginx: two ports, and the certificate of the second."""

    def __init__(self, plain: int, tls: int, certificate: Path) -> None:
        self.plain, self.tls, self.certificate = plain, tls, certificate

    @contextlib.contextmanager
    def connection(self, *, tls: bool = False, client: str = CLIENT) -> Iterator[http.client.HTTPConnection]:
        """Connect as the client with this address."""
        port = self.tls if tls else self.plain
        raw = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        raw.sendall(f"PROXY TCP4 {client} 127.0.0.1 40000 {port}\r\n".encode())
        if tls:
            raw = ssl.create_default_context(cafile=self.certificate).wrap_socket(
                raw, server_hostname="localhost"
            )
        connection = http.client.HTTPConnection("localhost")
        connection.sock = raw
        with contextlib.closing(connection):
            yield connection

    def get(self, path: str, *, tls: bool = False, headers: Mapping[str, str] | None = None) -> Response:
        """Send one request over a connection of its own."""
        with self.connection(tls=tls) as connection:
            return get(connection, path, headers)


def get(
    connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None = None
) -> Response:
    connection.request("GET", path, headers={"Host": "shop.example"} | dict(headers or {}))
    answer = connection.getresponse()
    return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in sockets]


@contextlib.contextmanager
def nginx(folder: Path, certificate: Path, upstream: str) -> Iterator[Nginx]:
    """Run nginx in front of an upstream until the block ends."""
    program = need_program("nginx")
    plain, tls = free_ports(2)
    for name in ("cert.pem", "key.pem"):
        (folder / name).symlink_to(certificate / name)
    # As root it would work as another user, who may not enter this folder.
    user = "user root;" if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(folder=folder, user=user, upstream=upstream, plain=plain, tls=tls)
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_port(process, plain)
        yield Nginx(plain, tls, certificate / "cert.pem")
        assert process.poll() is None
    finally:
        process.terminate()
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, complaints
    assert (folder / "error.log").read_text() == ""


def wait_for_port(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        assert time.monotonic() < deadline, "nginx does not listen"
        time.sleep(0.02)


@pytest.fixture(params=["tcp", "unix"])
def front(
    request: pytest.FixtureRequest, env: Any, tmp_path: Path, certificate: Path
) -> Callable[..., contextlib.AbstractContextManager[tuple[Nginx, Server]]]:
    """Give a context manager: our server, reached over TCP or a unix socket, behind nginx."""

    @contextlib.contextmanager
    def start(**site: Any) -> Iterator[tuple[Nginx, Server]]:
        path = tmp_path / "shop.sock"
        bind = ("--bind", f"unix:{path}" if request.param == "unix" else "127.0.0.1:0")
        with serving(env=env(**site), bind=bind) as server:
            upstream = f"unix:{path}" if request.param == "unix" else f"127.0.0.1:{server.port}"
            with nginx(tmp_path, certificate, upstream) as proxy:
                yield proxy, server

    return start


def test_the_clients_address_and_scheme_arrive_and_no_forgery_does(front: Any) -> None:
    with front() as (proxy, _):
        for tls in (False, True):
            for headers in ({}, FORGERIES):
                seen = proxy.get("/whoami/", tls=tls, headers=headers).json()
                assert seen["secure"] is tls
                assert seen["meta"]["REMOTE_ADDR"] == CLIENT
                assert seen["meta"]["HTTP_X_FORWARDED_FOR"] == CLIENT
                assert seen["meta"]["HTTP_HOST"] == "shop.example"
                assert seen["meta"]["SERVER_PORT"] == ("443" if tls else "80")
                assert FORGED not in str(seen["meta"])
                # nginx hands on what it is not told to set; Django reads it only with USE_X_FORWARDED_HOST.
                evil = [name for name, value in seen["meta"].items() if "evil" in value]
                assert evil in ([], ["HTTP_X_FORWARDED_HOST"])


def test_the_redirect_to_https_ends_there(front: Any) -> None:
    with front(SECURE_SSL_REDIRECT=True, SECURE_HSTS_SECONDS=60) as (proxy, _):
        for path in ("/", "/static/admin/css/base.css"):
            moved = proxy.get(path)
            assert (moved.status, moved.headers["location"]) == (301, f"https://shop.example{path}")
            arrived = proxy.get(path, tls=True)
            assert arrived.status == 200
            assert arrived.headers["strict-transport-security"] == "max-age=60"
            forged = proxy.get(path, headers=FORGERIES)
            assert (forged.status, forged.headers["location"]) == (301, f"https://shop.example{path}")


def test_static_files_come_through(front: Any) -> None:
    with front() as (proxy, _):
        page = proxy.get("/admin/login/", tls=True).text
        url = page.partition('<link rel="stylesheet" href="')[2].partition('"')[0]
        found = proxy.get(url, tls=True, headers={"Accept-Encoding": "gzip, br"})
        assert found.status == 200
        assert found.headers["content-encoding"] == "br"
        assert "immutable" in found.headers["cache-control"]
        again = proxy.get(url, tls=True, headers={"If-None-Match": found.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        part = proxy.get(url, headers={"Range": "bytes=0-9"})
        assert (part.status, len(part.body)) == (206, 10)


def test_connections_to_us_are_kept(front: Any) -> None:
    with front() as (proxy, server):
        seen = []
        for _ in range(3):
            with proxy.connection() as connection:
                seen += [get(connection, "/whoami/").json() for _ in range(5)]
        # One connection stays with one worker, and nginx used one after the other.
        assert len({answer["pid"] for answer in seen}) == 1
        if server.address.startswith("http:"):
            assert established(server) == 1


def established(server: Server) -> int:
    """Return how many TCP connections the server holds open."""
    processes = [psutil.Process(pid) for pid in (*server.arbiters(), *server.workers())]
    found = [net_connection for process in processes for net_connection in process.net_connections("tcp")]
    return len([connection for connection in found if connection.status == psutil.CONN_ESTABLISHED])


def test_stopping_us_is_a_502_and_starting_again_heals_it(
    env: Any, tmp_path: Path, certificate: Path
) -> None:
    path = tmp_path / "shop.sock"
    bind = ("--bind", f"unix:{path}")
    with contextlib.ExitStack() as stack:
        with serving(env=env(), bind=bind):
            proxy = stack.enter_context(nginx(tmp_path, certificate, f"unix:{path}"))
            assert proxy.get("/").text == "hello"
        assert proxy.get("/").status == 502
        with serving(env=env(), bind=bind):
            assert proxy.get("/").text == "hello"
        (tmp_path / "error.log").write_text("")  # it complained, rightly
