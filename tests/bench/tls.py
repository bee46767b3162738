"""What TLS in the default worker costs, against Gunicorn's gthread workers in the same run, with bars.

    python -m tests.bench.tls                      # about a minute; the exit code is 1 if a bar is not met
    python -m tests.bench.tls --scale 0.05         # a look whether it works

CPU is that of the worker processes alone. The clients are Python's ssl module in this process.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.e2e.serving import Server, at_work, environment, run, serving, until

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
SIZE = ("--workers", "2", "--threads", "8")
THREADS, ROUNDS = 4, 5


PROJECT = """
from django.http import HttpResponse
from django.urls import path

SECRET_KEY, ALLOWED_HOSTS, USE_TZ = "only for the bench" * 5, ["*"], True
INSTALLED_APPS = ["django_prodserve"]
ROOT_URLCONF = __name__
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
"""
"""Without middleware and database: what is compared is the server."""


@dataclass(frozen=True)
class Bar:
    """A figure, and what it must be."""

    says: str
    found: float
    limit: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.found >= self.limit if self.is_least else self.found <= self.limit

    def __str__(self) -> str:
        sign, word = (">=" if self.is_least else "<="), "ok" if self.is_met else "MISSED"
        return f"{self.says:62} {self.found:10.3f}  {sign} {self.limit:<8g} {word}"


class Site:
    """A certificate for localhost, and clients that trust it."""

    def __init__(self, place: Path) -> None:
        self.certificate, self.key = place / "cert.pem", place / "key.pem"
        self.place = place
        (place / "benchsettings.py").write_text(PROJECT)
        kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = ["-keyout", str(self.key), "-out", str(self.certificate)]
        command = ["openssl", "req", "-x509", *kind, *names, *files]
        subprocess.run(command, check=True, capture_output=True)

    @contextlib.contextmanager
    def served(self, worker_class: str, *flags: str) -> Iterator[Server]:
        """Serve the tests' project with TLS."""
        folder = Path(tempfile.mkdtemp(dir=self.place))
        (folder / "site").mkdir()
        pair = ("--certfile", str(self.certificate), "--keyfile", str(self.key))
        chosen = ("--worker-class", worker_class)
        extra = {"DJANGO_SETTINGS_MODULE": "benchsettings", "PRODSERVE_STATIC": "off"}
        environ = environment(folder / "site", extra)
        environ["PYTHONPATH"] += os.pathsep + str(self.place)
        environ = {name: text for name, text in environ.items() if not name.startswith("COVERAGE_")}
        command = ("-m", "django_prodserve")
        with serving(*SIZE, *chosen, *pair, *flags, env=environ, cwd=self.place, command=command) as server:
            yield server

    def context(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certificate))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    def connect(
        self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        bare = socket.create_connection(("127.0.0.1", port), timeout=30)
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(bare, server_hostname="localhost", session=session)


def ask(client: ssl.SSLSocket) -> bool:
    """Send a request and read its response; return whether another may follow."""
    client.sendall(GET)
    answer = http.client.HTTPResponse(client)
    answer.begin()
    body = answer.read()
    assert (answer.status, body) == (200, b"hello"), (answer.status, body)
    return answer.getheader("Connection") != "close"


def cpu(server: Server) -> float:
    """Return the CPU seconds of the workers."""
    times = [psutil.Process(pid).cpu_times() for pid in server.workers(2)]
    return float(sum(each.user + each.system for each in times))


def costs(server: Server, work: Callable[[int], object], each: int) -> float:
    """Return the milliseconds of CPU that one of ``THREADS`` x ``each`` costs the workers.

    It is the least of some rounds: other processes on the machine only ever add to it.
    """
    each, found = max(1, each // ROUNDS), []
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, [each] * THREADS))  # warm
        for _ in range(ROUNDS):
            before = cpu(server)
            list(pool.map(work, [each] * THREADS))
            found.append(1000 * (cpu(server) - before) / (THREADS * each))
    return min(found)


def kept(site: Site, port: int, count: int) -> None:
    left = count
    while left:
        with site.connect(port, site.context()) as client:
            keeps = True
            while left and keeps:  # a server may close it, to balance its workers
                keeps = ask(client)
                left -= 1


def new(site: Site, port: int, count: int) -> None:
    context = site.context()
    for _ in range(count):
        with site.connect(port, context) as client:
            ask(client)


def half_a_hello(site: Site) -> bytes:
    """Return the first half of what a client sends."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = site.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    return hello[: len(hello) // 2]


def slowest_beside_stalled(site: Site, port: int, sent: bytes, count: int) -> float:
    """Return the seconds of the slowest of ten requests while so many handshakes stall."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            client.sendall(sent)
        seconds = []
        for _ in range(10):
            started = time.monotonic()
            new(site, port, 1)
            seconds.append(time.monotonic() - started)
    return max(seconds)


def resumed(site: Site, port: int, version: ssl.TLSVersion) -> int:
    """Return how many of 19 connections resume the session of the one before."""
    context, session, count = site.context(version), None, 0
    for _ in range(20):
        with site.connect(port, context, session) as client:
            count += bool(client.session_reused)
            ask(client)
            session = client.session
    return count


def through_reloads(site: Site, server: Server, requests: int, reloads: int) -> tuple[int, int]:
    """Return requests and failures while the server reloads: on connections of 20 requests each."""
    done: list[int] = []
    failures: list[str] = []

    def clients(over: threading.Event) -> None:
        context = site.context()
        while not over.is_set():
            with site.connect(server.port, context) as client:
                for number in range(20):
                    try:
                        client.sendall(GET)
                        answer = http.client.HTTPResponse(client)
                        answer.begin()
                        answer.read()
                    except (OSError, http.client.HTTPException) as error:
                        failures.append(f"{number}: {error!r}")
                        break
                    done.append(1)
                    if answer.getheader("Connection") == "close":
                        break

    with at_work(clients, THREADS):
        for number in range(reloads):
            goal = (number + 1) * requests // (reloads + 1)
            until(lambda goal=goal: len(done) >= goal)  # type: ignore[misc]
            told = run("-m", "django_prodserve", "reload", env=server_environment(server), cwd=site.place)
            assert told.returncode == 0, told.stderr
        until(lambda: len(done) >= requests)
    for failure in failures[:5]:
        print("   ", failure)
    return len(done), len(failures)


def server_environment(server: Server) -> dict[str, str]:
    return psutil.Process(server.process.pid).environ()


def memory_of_idle(site: Site, server: Server, count: int) -> float:
    """Return the KiB of the workers for each of so many connections that have had one request."""

    def pss() -> int:
        return sum(psutil.Process(pid).memory_full_info().uss for pid in server.workers(2))

    context = site.context()
    new(site, server.port, 50)
    before = pss()
    with contextlib.ExitStack() as stack:
        for number in range(count):
            client = connect_from(server.port, context, number)
            stack.enter_context(client)
            ask(client)
        return (pss() - before) / count / 1024


def connect_from(port: int, context: ssl.SSLContext, number: int) -> ssl.SSLSocket:
    """Connect from an address of its own: ports alone are too few."""
    bare = socket.create_connection(
        ("127.0.0.1", port), timeout=30, source_address=(f"127.0.1.{number // 1000 + 1}", 0)
    )
    return context.wrap_socket(bare, server_hostname="localhost")


def measured(site: Site, scale: float) -> Iterator[Bar]:
    def scaled(count: int) -> int:
        return max(2, int(count * scale))

    figures: dict[str, dict[str, float]] = {}
    for name in ("gthread", "prodserve"):
        with site.served(name) as server:
            figures[name] = {
                "kept": costs(server, partial(kept, site, server.port), scaled(2000)),
                "new": costs(server, partial(new, site, server.port), scaled(200)),
            }
    ours, theirs = figures["prodserve"], figures["gthread"]
    for kind, limit in (("kept", 0.55), ("new", 0.4)):
        what = "request on a kept connection" if kind == "kept" else "new connection with one request"
        says = f"CPU of a {what}: {ours[kind]:.2f} of {theirs[kind]:.2f} ms"
        yield Bar(says, ours[kind] / theirs[kind], limit)
    with site.served("prodserve") as server:
        half = half_a_hello(site)
        for what, sent in (("silent", b""), ("one byte", b"\x16"), ("half a hello", half)):
            found = slowest_beside_stalled(site, server.port, sent, scaled(300))
            yield Bar(f"slowest of 10 beside {scaled(300)} stalled handshakes, {what}: s", found, 0.1)
        for version, wanted in VERSIONS.items():
            yield Bar(f"resumed of 19, TLS {version}", resumed(site, server.port, wanted), 17, is_least=True)
    with site.served("prodserve") as server:
        count, failed = through_reloads(site, server, scaled(10_000), 5)
        yield Bar(f"failed of {count} requests through 5 reloads", failed, 0)
    with site.served("prodserve") as server:
        found = memory_of_idle(site, server, scaled(5000))
        yield Bar(f"KiB for each of {scaled(5000)} idle connections", found, 25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of requests and connections")
    scale = parser.parse_args().scale
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missed = 0
    with tempfile.TemporaryDirectory() as place:
        for bar in measured(Site(Path(place)), scale):
            print(bar, flush=True)
            missed += not bar.is_met
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
