"""TLS of real workers: real certificates, real ssl clients, and those that only pretend to be clients."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect as open_websocket

from .management import MANAGEMENT, ask
from .needs import need_program
from .serving import PATIENCE, Server, copy_site, environment, run, serving, until

Env = Callable[..., dict[str, str]]
V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return "--certfile", str(self.certificate), "--keyfile", str(self.key)

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.certificate.read_text())


def make(folder: Path, name: str, names: str, kind: tuple[str, ...] = EC) -> Pair:
    """Make a certificate for these names, such as ``DNS:localhost,DNS:*.shop.example``."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"]
    command = [need_program("openssl"), "req", "-x509", *kind, "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    folder = tmp_path_factory.mktemp("tls")
    return (
        make(folder, "first", "DNS:localhost,DNS:shop.example"),
        make(folder, "second", "DNS:other.example,DNS:*.other.example", RSA),
    )


@pytest.fixture(scope="module")
def server(pairs: tuple[Pair, Pair], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers, two certificates, views of both kinds and websockets."""
    environ = environment(
        tmp_path_factory.mktemp("site"),
        ROOT_URLCONF="shop.async_urls",
        WSGI_APPLICATION="shop.socket_routing.wsgi",
        ASGI_APPLICATION="shop.socket_routing.application",
    )
    flags = [flag for pair in pairs for flag in pair.flags]
    with serving("--workers", "2", "--access-log", "-", *MANAGEMENT, *flags, env=environ) as running:
        running.workers(2)
        yield running


def trusting(pair: Pair, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def opened(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None, name: str | None = "localhost"
) -> ssl.SSLSocket:
    bare = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return context.wrap_socket(bare, server_hostname=name, session=session, suppress_ragged_eofs=False)


def asked(client: ssl.SSLSocket, path: str = "/", method: str = "GET", body: bytes = b"") -> bytes:
    """Send a request, and return the body of its response, which is 200."""
    return whole(client, path, method, body)[0]


def whole(
    client: ssl.SSLSocket, path: str = "/", method: str = "GET", body: bytes = b""
) -> tuple[bytes, bool]:
    """Send a request; return the body of its response, which is 200, and whether another may follow."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    client.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode() + body)
    answer = http.client.HTTPResponse(client, method=method)
    answer.begin()
    found = answer.read()
    assert answer.status == 200, found
    return found, answer.getheader("Connection") != "close"


def read_all(client: socket.socket) -> bytes:
    """Read until the end; under TLS, one that the server has not announced raises."""
    found = b""
    while data := client.recv(65536):
        found += data
    return found


def handshakes(server: Server) -> dict[str, float]:
    """Return the counters of handshakes, each by its label."""
    lines = re.findall(
        r'^prodserve_tls_handshakes\w*_total\{\w+="(\S+)"\} (\S+)$',
        ask(server, "/metrics").text,
        re.MULTILINE,
    )
    return {name: float(value) for name, value in lines}


@pytest.mark.parametrize("version", [V2, V3])
def test_sessions_resume_in_all_workers(
    server: Server, pairs: tuple[Pair, Pair], version: ssl.TLSVersion
) -> None:
    context, session, resumed, pids = trusting(pairs[0], version), None, 0, set()
    before = handshakes(server)
    for _ in range(20):
        with opened(server.port, context, session) as client:
            resumed += bool(client.session_reused)
            seen = json.loads(asked(client, "/whoami/"))
            assert seen["secure"]
            assert seen["meta"]["wsgi.url_scheme"] == "https"
            pids.add(seen["pid"])
            session = client.session
    assert resumed >= 17
    assert len(pids) == 2
    after = handshakes(server)
    assert after["yes"] - before["yes"] == resumed
    assert after["no"] - before["no"] == 20 - resumed


def test_only_tls_1_2_and_1_3_and_http_1_1(server: Server, pairs: tuple[Pair, Pair]) -> None:
    context = trusting(pairs[0])
    context.set_alpn_protocols(["h2", "http/1.1"])
    with opened(server.port, context) as client:
        assert client.selected_alpn_protocol() == "http/1.1"
    before = handshakes(server)
    openssl = need_program("openssl")
    for version in ("-tls1", "-tls1_1"):
        command = [openssl, "s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect"]
        ended = subprocess.run(
            [*command, f"127.0.0.1:{server.port}"], input="", capture_output=True, text=True, timeout=PATIENCE
        )
        assert "protocol version" in ended.stderr
    assert handshakes(server)["version"] == before["version"] + 2


def test_the_certificate_is_that_of_the_host(server: Server, pairs: tuple[Pair, Pair]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    first, second = (pair.der for pair in pairs)
    hosts = {
        "other.example": second,
        "OTHER.example": second,
        "a.other.example": second,
        "a.b.other.example": first,
        "shop.example": first,
        "unknown.example": first,
        None: first,
    }
    for host, expected in hosts.items():
        with opened(server.port, context, name=host) as client:
            assert client.getpeercert(True) == expected, host


def test_what_is_not_tls_is_answered_in_words_or_not_at_all(server: Server) -> None:
    before = handshakes(server)
    for sent in (b"GET /plain?a=1 HTTP/1.1\r\nHost: x\r\n\r\n", b"PATCH /p HTTP/1.1\r\n\r\n", b"GE"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(sent)
            answer = read_all(client)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"This port speaks HTTPS" in answer
    for sent in (b"\x00\x01\x02", b"\x80\x2e\x01"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                assert read_all(client) == b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(b"\x16\x03\x01\x00\x04abcd")  # a record that is no hello
        with contextlib.suppress(ConnectionResetError):
            assert read_all(client)[:1] in (b"", b"\x15")  # an alert
    after = handshakes(server)
    assert after["http"] - before["http"] == 3
    assert after["not-tls"] - before["not-tls"] == 2
    until(lambda: '"GET /plain?a=1 HTTP/1.1" 400' in server.output)


def test_what_the_worker_promises_holds(server: Server, pairs: tuple[Pair, Pair]) -> None:
    context = trusting(pairs[0])
    with opened(server.port, context) as client:
        for size in (10, 70_000, 3_000_000):  # in memory, and spooled
            body = os.urandom(size)
            seen = json.loads(asked(client, "/echo/", "POST", body))
            assert (seen["sha"], seen["scheme"]) == (hashlib.sha256(body).hexdigest(), "https")
        assert asked(client, "/echo/?size=16000000") == bytes(16_000_000)
        # 100-continue, pipelining, and a stream piece by piece.
        client.sendall(
            b"POST /echo/ HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"ab")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert json.loads(answer.read())["length"] == 2
        client.sendall(HELLO * 50)
        found = b""
        while found.count(b"hello") < 50:
            found += client.recv(65536)
        client.sendall(b"GET /events/?count=3&pause=0.3 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        pieces = []
        while not pieces or not pieces[-1].endswith(b"0\r\n\r\n"):
            pieces.append(client.recv(65536))
        assert len(pieces) >= 3
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_all(client).endswith(b"hello")  # the server says goodbye
    with opened(server.port, context) as client:  # without a length, only the goodbye shows that it is whole
        client.sendall(b"GET /stream/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert read_all(client).endswith(b"\n999\n")


def test_a_slow_client_gets_all_of_it(server: Server, pairs: tuple[Pair, Pair]) -> None:
    bare = socket.socket()
    bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    bare.settimeout(PATIENCE)
    bare.connect(("127.0.0.1", server.port))
    with trusting(pairs[0]).wrap_socket(
        bare, server_hostname="localhost", suppress_ragged_eofs=False
    ) as client:
        for path in ("/echo/?size=2000000", "/stream/", "/events/?count=100&size=20000"):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = read_all(client)
    assert found.count(b"HTTP/1.1 200 OK") == 4
    assert len(found) > 4_000_000
    assert found.endswith(b"hello")


def test_a_client_that_is_gone_ends_its_stream(server: Server, pairs: tuple[Pair, Pair]) -> None:
    """The end of a client is encrypted, too: both roads must read it while they send."""
    context = trusting(pairs[0])
    for path in ("/ticking/?seconds=10", "/async/steps/"):
        with opened(server.port, context) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            with contextlib.suppress(ssl.SSLError, OSError):
                client.unwrap()  # waits for the server's goodbye, which comes when it has noticed
    until(lambda: "prodserve_requests_in_flight 0.0" in ask(server, "/metrics").text)


def test_websockets(server: Server, pairs: tuple[Pair, Pair]) -> None:
    address = f"wss://localhost:{server.port}/ws/echo/"
    with open_websocket(address, ssl=trusting(pairs[0]), proxy=None, max_size=None) as client:
        for size in (1, 20_000, 900_000):
            client.send("x" * size)
            assert client.recv() == "x" * size


HALF = 100
"""Bytes of a hello that has about 500."""


def a_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def stalled(port: int, sent: bytes, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            for _ in range(count)
        ]
        for client in clients:
            client.sendall(sent)
        yield clients


def test_handshakes_that_stall_delay_nobody_and_end_first(pairs: tuple[Pair, Pair], env: Env) -> None:
    """With room for 40 connections, 100 that stall get none of it while others come."""
    flags = ("--workers", "1", "--worker-connections", "40", "--drain-delay", "0", *MANAGEMENT)
    context = trusting(pairs[0])
    with serving(*flags, *pairs[0].flags, env=env()) as server:
        with opened(server.port, context) as kept:
            assert asked(kept) == b"hello"
            for sent in (b"", b"\x16", a_hello()[:HALF]):
                with stalled(server.port, sent, 100):
                    with opened(server.port, context) as client:
                        assert asked(client) == b"hello"
                    assert asked(kept) == b"hello"  # an idle connection is closed after them
            assert handshakes(server)["no-room"] > 0
        with stalled(server.port, b"\x16", 5):  # a stop does not wait for them
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 10
    assert "Traceback" not in server.output


# The deadline of handshakes, short.
SHORT = """
import runpy, sys
from django_prodserve.http import limits
limits.HANDSHAKE_SECONDS = 1.0
sys.argv[0] = "manage.py"
runpy.run_path("manage.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_handshake_has_a_deadline(pairs: tuple[Pair, Pair], env: Env) -> None:
    flags = ("prodserve", "--bind", "127.0.0.1:0", "--workers", "1", *MANAGEMENT, *pairs[0].flags)
    with serving(*flags, env=env(), command=("-c", SHORT), bind=()) as server:
        with stalled(server.port, a_hello()[:HALF], 3) as clients:
            for client in clients:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
        until(lambda: handshakes(server)["timeout"] == 3)


VIEWS = """

def certificate(request):
    peer = request.environ["gunicorn.socket"]
    facts = {"certificate": peer.getpeercert(), "version": peer.version(), "cipher": peer.cipher()}
    return JsonResponse({**facts, "client": request.META["REMOTE_ADDR"]})


urlpatterns.append(path("certificate/", certificate))
"""
HOOK = """

def ssl_context(config, default):
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
"""


@pytest.mark.slow
def test_client_certificates_gunicorns_hook_and_the_proxy_protocol(
    pairs: tuple[Pair, Pair], env: Env, tmp_path: Path
) -> None:
    site = copy_site(tmp_path, VIEWS)
    mine = make(tmp_path, "alice", "DNS:alice.example")
    (site / "gunicorn.conf.py").write_text(
        f"import ssl\n\nca_certs = {str(mine.certificate)!r}\ncert_reqs = ssl.CERT_REQUIRED\n"
        f"ciphers = 'ECDHE+AESGCM'\nproxy_protocol = 'auto'\nproxy_allow_ips = '127.0.0.1'\n{HOOK}"
    )
    flags = ("--workers", "1", "--config", "gunicorn.conf.py", *MANAGEMENT, *pairs[0].flags)
    with serving(*flags, env=env(), cwd=site) as server:
        context = trusting(pairs[0])
        context.load_cert_chain(mine.certificate, mine.key)
        line = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n"
        with opened(server.port, context) as client:
            seen = json.loads(asked(client, "/certificate/"))
            assert seen["certificate"]["subject"] == [[["commonName", "alice"]]]
            assert (seen["version"], seen["client"]) == ("TLSv1.3", "127.0.0.1")
        with opened(server.port, context) as client:  # inside TLS, where Gunicorn's own workers read it
            client.sendall(line)
            assert json.loads(asked(client, "/certificate/"))["client"] == "203.0.113.9"
        # Before TLS, as load balancers send it, and in two parts.
        bare = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        bare.sendall(line[:20])
        time.sleep(0.05)
        bare.sendall(line[20:])
        with context.wrap_socket(bare, server_hostname="localhost") as client:
            for _ in range(2):
                assert json.loads(asked(client, "/certificate/"))["client"] == "203.0.113.9"
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(b"PROXY TCP4 nonsense\r\n")
            assert read_all(client).startswith(b"HTTP/1.1 400")
        before = handshakes(server)
        with pytest.raises(ssl.SSLError), opened(server.port, trusting(pairs[0])) as client:
            asked(client)  # without a certificate
        with pytest.raises(ssl.SSLError), opened(server.port, trusting(pairs[0], V2)):
            pass
        after = handshakes(server)
        assert after["client-certificate"] == before["client-certificate"] + 1
        assert after["version"] == before["version"] + 1
    assert "Traceback" not in server.output


@pytest.mark.slow
def test_plain_gunicorn_with_our_worker_speaks_tls(pairs: tuple[Pair, Pair], env: Env) -> None:
    command = ("-m", "gunicorn", "django_prodserve.wsgi:application")
    flags = ("-k", "django_prodserve.worker.ProdserveWorker", "--workers", "2", *pairs[0].flags)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        extra = {
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PRODSERVE_CERTFILE": ",".join(str(pair.certificate) for pair in pairs),
            "PRODSERVE_KEYFILE": ",".join(str(pair.key) for pair in pairs),
        }  # as a file of plan --gunicorn-conf sets them
        bind = ("--bind", f"fd://{listener.fileno()}")
        with serving(
            *flags,
            env=env(extra),
            command=command,
            bind=bind,
            pass_fds=[listener.fileno()],
            address=f"https://127.0.0.1:{port}",
        ) as server:
            context, session, resumed = trusting(pairs[0]), None, 0
            for _ in range(10):
                with opened(server.port, context, session) as client:
                    resumed += bool(client.session_reused)
                    assert json.loads(asked(client, "/whoami/"))["secure"]
                    session = client.session
            assert resumed >= 8
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with opened(server.port, context, name="other.example") as client:
                assert client.getpeercert(True) == pairs[1].der


@pytest.mark.slow
def test_requests_through_reloads(pairs: tuple[Pair, Pair], env: Env) -> None:
    """A reload makes new keys for tickets: clients notice nothing but a whole handshake."""
    from .serving import at_work

    done: list[int] = []
    failures: list[str] = []
    environ = env()
    with serving("--workers", "2", *pairs[0].flags, env=environ) as server:

        def work(over: Any) -> None:
            context, session = trusting(pairs[0]), None
            while not over.is_set():
                try:
                    with opened(server.port, context, session) as client:
                        keeps, left = True, 10
                        while keeps and left:
                            _, keeps = whole(client)
                            left -= 1
                            done.append(1)
                        session = client.session
                except (OSError, AssertionError, http.client.HTTPException) as error:
                    failures.append(repr(error))

        with at_work(work, 2):
            for number in range(2, 4):
                ended = run("manage.py", "prodserve", "reload", "--bind", str(server.port), env=environ)
                assert ended.returncode == 0, ended.stderr
                server.wait_for(f"generation {number} serves")
                seen = len(done)
                until(lambda seen=seen: len(done) > seen + 20)  # type: ignore[misc]
    assert failures == []
