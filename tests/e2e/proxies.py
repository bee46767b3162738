"""Run nginx, Caddy and HAProxy with an exported configuration.

Only what this machine cannot have is changed: the ports and the account.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .needs import need_program
from .serving import PATIENCE, Response
from .test_nginx import get, wait_for_port

CHOICE = random.SystemRandom()  # the seed of pytest-randomly is the same in every process of a run


def quiet_ports(count: int) -> list[int]:
    """Return ports that nobody has, and that the kernel gives to no client a moment later."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            with contextlib.suppress(OSError):
                listener = socket.create_server(("", CHOICE.randrange(20_000, 30_000)))
                found.append(stack.enter_context(listener).getsockname()[1])
        return found


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
    text = re.sub(r"/etc/haproxy/certs/\S+\.pem", str(folder / "both.pem"), text)
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


class Client(http.client.HTTPConnection):
    """A browser's connection: TLS to the proxy, opened again after each end."""

    def __init__(self, port: int, trust: ssl.SSLContext, patience: float = PATIENCE) -> None:
        super().__init__("shop.example", port, timeout=patience)
        self._trust = trust

    def connect(self) -> None:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._trust.wrap_socket(raw, server_hostname="shop.example")


class Front:
    """A running proxy."""

    def __init__(self, plain: int, tls: int, authority: Path) -> None:
        self.plain, self.tls = plain, tls
        self.trust = ssl.create_default_context(cafile=authority)

    def client(self, patience: float = PATIENCE) -> Client:
        return Client(self.tls, self.trust, patience)

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(self.client()) as connection:
            connection.connect()
            yield connection

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        with self.connection() as connection:
            return get(connection, path, headers)

    def post(self, path: str, body: Any) -> Response:
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
    plain, tls = quiet_ports(2)
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
            try:
                wait_for_port(process, tls)
            except AssertionError as error:
                raise AssertionError((folder / "proxy.log").read_text()) from error
            yield Front(plain, tls, certificate / "cert.pem")
            assert process.poll() is None, (folder / "proxy.log").read_text()
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)
