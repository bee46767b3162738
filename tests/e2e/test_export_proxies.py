"""The exported configuration of nginx, Caddy and HAProxy, in the real programs, in front of a real server.

Only what this machine cannot have is changed: the ports and the account.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .needs import need_program
from .serving import PATIENCE, Response, Server, copy_site, run, serving, until
from .test_nginx import FORGED, FORGERIES, established, free_ports, get, wait_for_port

MIB = 2**20


def of_nginx(text: str, folder: Path, plain: int, tls: int) -> list[str]:
    text = re.sub(r" +listen \[::\].*\n", "", text)
    text = text.replace("listen 80;", f"listen 127.0.0.1:{plain};")
    (folder / "site.conf").write_text(text.replace("listen 443 ", f"listen 127.0.0.1:{tls} "))
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; {user}\n"
        f"events {{}}\nhttp {{ access_log off; {places} include site.conf; }}\n"
    )
    return ["-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]


def of_caddy(text: str, folder: Path, plain: int, tls: int) -> list[str]:
    ports = f"{{\n\thttp_port {plain}\n\thttps_port {tls}\n\tadmin off\n}}\n"
    (folder / "Caddyfile").write_text(ports + text)
    return ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def of_haproxy(text: str, folder: Path, plain: int, tls: int) -> list[str]:
    text = re.sub(r" +(user|group|chroot) .*\n", "", text)
    text = text.replace("bind :80\n", f"bind 127.0.0.1:{plain}\n").replace(
        "bind :443", f"bind 127.0.0.1:{tls}"
    )
    text = text.replace("/etc/haproxy/certs/shop.pem", str(folder / "both.pem"))
    (folder / "haproxy.cfg").write_text(text)
    return ["-db", "-f", str(folder / "haproxy.cfg")]


PROXIES: dict[str, Callable[[str, Path, int, int], list[str]]] = {
    "nginx": of_nginx,
    "caddy": of_caddy,
    "haproxy": of_haproxy,
}
CHECKS: dict[str, list[str]] = {
    "nginx": ["-t"],
    "caddy": ["validate"],
    "haproxy": ["-c", "-dW"],
}


class Front:
    """A running proxy."""

    def __init__(self, plain: int, tls: int, authority: Path) -> None:
        self.plain, self.tls = plain, tls
        self.trust = ssl.create_default_context(cafile=authority)

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        raw = socket.create_connection(("127.0.0.1", self.tls), timeout=PATIENCE)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.trust.wrap_socket(raw, server_hostname="shop.example")
        with contextlib.closing(connection):
            yield connection

    def get(self, path: str, headers: Any = None) -> Response:
        with self.connection() as connection:
            return get(connection, path, headers)

    def post(self, path: str, body: bytes) -> Response:
        with self.connection() as connection:
            connection.request("POST", path, body=body, headers={"Host": "shop.example"})
            answer = connection.getresponse()
            return Response(answer.status, dict(answer.getheaders()), answer.read())


@contextlib.contextmanager
def proxy(name: str, text: str, folder: Path, certificate: Path) -> Iterator[Front]:
    """Check the configuration with the program's own check, then run it until the block ends."""
    program = need_program(name)
    pair = [(certificate / file).read_text() for file in ("cert.pem", "key.pem")]
    (folder / "both.pem").write_text("".join(pair))
    plain, tls = free_ports(2)
    words = PROXIES[name](text, folder, plain, tls)
    environ = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    check = [*CHECKS[name], *(words[1:] if name == "caddy" else words)]
    checked = subprocess.run([program, *check], capture_output=True, text=True, env=environ, timeout=PATIENCE)
    assert checked.returncode == 0, checked.stderr
    with (folder / "proxy.log").open("w+") as log:
        process = subprocess.Popen(
            [program, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )
        try:
            wait_for_port(process, tls)
            yield Front(plain, tls, certificate / "cert.pem")
            assert process.poll() is None, (folder / "proxy.log").read_text()
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


@pytest.fixture
def front(env: Any, tmp_path: Path, certificate: Path) -> Any:
    """Give a context manager: a server behind a proxy, both with what one plan says."""

    @contextlib.contextmanager
    def start(name: str, bind: str, *flags: str) -> Iterator[tuple[Front, Server]]:
        site, environ = copy_site(tmp_path), env()
        environ = {key: text for key, text in environ.items() if key != "PRODSERVE_LOG_FORMAT"}
        folder = tmp_path / "proxy"
        folder.mkdir()
        words = ["manage.py", "prodserve", "export", name, "--bind", bind, *flags]
        pair = [f"--certfile={certificate}/cert.pem", f"--keyfile={certificate}/key.pem"]
        ended = run(*words, *pair, env=environ, cwd=site)
        assert (ended.returncode, ended.stderr) == (0, "")
        environ["PRODSERVE_LOG_FORMAT"] = "text"
        with (
            serving(*flags, env=environ, cwd=site, bind=("--bind", bind)) as server,
            proxy(name, ended.stdout, folder, certificate) as running,
        ):
            yield running, server

    return start


@pytest.mark.slow
@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize("name", PROXIES)
def test_the_exported_proxy_does_what_the_plan_expects(
    front: Any, tmp_path: Path, name: str, way: str
) -> None:
    need_program(name)
    bind = f"unix:{tmp_path}/shop.sock" if way == "unix" else f"127.0.0.1:{free_ports(1)[0]}"
    # A client on this machine is a trusted peer, so only the entry that the proxy adds may count.
    with front(name, bind, "--max-body", "3m", "--trusted-hops", "1") as (proxy, server):
        _redirects(proxy)
        _passes_the_client_on(proxy)
        _bounds_bodies(proxy)
        _streams(proxy)
        if way == "tcp":
            _keeps_connections(proxy, server)


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
    assert proxy.post("/echo/", b"x" * 2 * MIB).status == 200
    try:
        status = proxy.post("/echo/", b"x" * 4 * MIB).status
    except OSError:  # who refuses a body may close while it is sent
        status = 413
    assert status == 413


def _streams(proxy: Front) -> None:
    """The second piece is sent a second after the first, so a proxy that holds pieces shows no gap."""
    with proxy.connection() as connection:
        connection.request("GET", "/events/?count=2&pause=1", headers={"Host": "shop.example"})
        answer = connection.getresponse()
        assert answer.readline() == b"0\n"
        first = time.monotonic()
        assert answer.readline() == b"1\n"
        assert time.monotonic() - first > 0.5


def _keeps_connections(proxy: Front, server: Server) -> None:
    assert all(proxy.get("/").text == "hello" for _ in range(10))
    until(lambda: established(server) <= 2, lambda: f"{established(server)} connections")
    assert established(server) >= 1
