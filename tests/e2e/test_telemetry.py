"""OpenTelemetry and Sentry, started by ``worker_started`` as docs/fork.md says, report from every worker.

New Relic starts with the first request of a process, which is a worker's.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import brotli
import pytest

from .needs import need_package
from .serving import PATIENCE, Server, copy_site, serving, until

pytestmark = pytest.mark.stock

APPS = """

from django.apps import AppConfig

class Telemetry(AppConfig):
    name = "shop"

    def ready(self):
        from django_prodserve.signals import worker_started

        worker_started.connect(start)


def start(worker, **kwargs):
    {start}
"""
TRACING = """from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter("{collector}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100))
    trace.set_tracer_provider(provider)"""
INSTRUMENTED = """import os
import sys

from opentelemetry.instrumentation.django import DjangoInstrumentor

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
DjangoInstrumentor().instrument()
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
SENTRY = """import sentry_sdk

    sentry_sdk.init(dsn="{dsn}", shutdown_timeout=1)"""
VIEWS = """

import asyncio

def traced(request):
    from opentelemetry import trace

    with trace.get_tracer("shop").start_as_current_span(f"view in {os.getpid()}"):
        return HttpResponse(str(os.getpid()))


def agents(request):
    import threading

    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("NR-")]
    return HttpResponse(f"{os.getpid()} {len(names)}")


def fails(request):
    raise RuntimeError(f"the view broke in {os.getpid()}")


async def waits(request, number):
    await asyncio.sleep(0.05)
    return HttpResponse(threading.current_thread().name)


async def fails_later(request):
    await asyncio.sleep(0)
    raise RuntimeError(f"the view broke on {threading.current_thread().name} in {os.getpid()}")


urlpatterns += [path("traced/", traced), path("fails/", fails), path("agents/", agents)]
urlpatterns += [path("later/", fails_later), path("waits/<int:number>/", waits)]
"""


class Collector(ThreadingHTTPServer):
    """Takes whatever is posted to it."""

    def __init__(self) -> None:
        self.posted: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Taking)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def said(self, words: str) -> bool:
        return any(words.encode() in body for body in self.posted)


class Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        unpack = {"gzip": gzip.decompress, "br": brotli.decompress}.get(
            self.headers.get("Content-Encoding", ""), bytes
        )
        self.server.posted.append(unpack(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(PATIENCE)


def a_site(tmp_path: Path, start: str) -> Path:
    site = copy_site(tmp_path, VIEWS)
    shop = site / "shop"
    (shop / "apps.py").write_text(APPS.format(start=start))
    settings = shop / "settings.py"
    settings.write_text(settings.read_text() + 'INSTALLED_APPS += ["shop.apps.Telemetry"]\n')
    return site


def through_every_change(server: Server, reaches: Any) -> None:
    """Let each worker report: the first ones, one that replaces another, those after a reload."""
    reaches(server.workers(2))
    os.kill(server.workers(2)[0], signal.SIGKILL)
    server.wait_for("SIGKILL")
    reaches(server.workers(2))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("Reloaded in ")
    reaches(server.workers(2))


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_spans_arrive_from_every_worker(env: Any, tmp_path: Path, collector: Collector, preload: str) -> None:
    need_package("opentelemetry")
    site = a_site(tmp_path, TRACING.format(collector=f"http://{collector.address}"))

    def reach(pids: list[int]) -> None:
        seen: set[str] = set()

        def everybody() -> bool:
            seen.add(server.get("/traced/").text)
            return len(seen) >= 2 and all(collector.said(f"view in {pid}") for pid in seen)

        until(everybody, lambda: f"{seen} {pids} {server.output}")

    with serving("--workers", "2", preload, env=env(), cwd=site) as server:
        assert "warning: workers" not in server.output
        through_every_change(server, reach)


@pytest.mark.parametrize("place", ["worker_started", "settings"])
def test_errors_arrive_from_every_worker(env: Any, tmp_path: Path, collector: Collector, place: str) -> None:
    need_package("sentry_sdk")
    init = SENTRY.format(dsn=f"http://key@{collector.address}/1")
    site = a_site(tmp_path, init if place == "worker_started" else "pass")
    if place == "settings":
        settings = site / "shop" / "settings.py"
        settings.write_text(settings.read_text() + init.replace("\n    ", "\n") + "\n")

    def reach(pids: list[int]) -> None:
        def everybody() -> bool:
            assert server.get("/fails/").status == 500
            assert server.get("/later/").status == 500
            return all(
                collector.said(f"the view broke {place} {pid}")
                for pid in server.workers(2)
                for place in ("in", "on prodserve-asyncio in")
            )

        until(everybody, lambda: server.output)

    with serving("--workers", "2", env=env(WSGI_APPLICATION=None), cwd=site) as server:
        through_every_change(server, reach)
    for words, path in (b"the view broke in", "/fails/"), (b"the view broke on", "/later/"):
        event = next(body for body in collector.posted if words in body)
        assert json.loads(event.splitlines()[2])["request"]["url"].endswith(path)


def test_requests_on_both_roads_have_spans_of_their_own(
    env: Any, tmp_path: Path, collector: Collector
) -> None:
    """The instrumentation for Django names the route; requests that run at the same time do not mix."""
    need_package("opentelemetry", "opentelemetry.instrumentation", "opentelemetry.instrumentation.django")
    site = a_site(tmp_path, TRACING.format(collector=f"http://{collector.address}"))
    (site / "manage.py").write_text(INSTRUMENTED)
    with serving("--workers", "1", env=env(WSGI_APPLICATION=None), cwd=site) as server:
        with ThreadPoolExecutor(8) as pool:
            texts = {answer.text for answer in pool.map(server.get, [f"/waits/{n}/" for n in range(8)])}
        assert texts == {"prodserve-asyncio"}
        assert server.get("/fails/").status == 500
        wanted = ["GET fails/", "GET waits/<int:number>/", *(f"/waits/{n}/" for n in range(8))]
        until(lambda: all(map(collector.said, wanted)), lambda: server.output)


def test_tracing_that_starts_before_the_fork_raises_no_alarm(
    env: Any, tmp_path: Path, collector: Collector
) -> None:
    """Its thread runs again in each worker: the library sees to that."""
    need_package("opentelemetry")
    site = a_site(tmp_path, TRACING.format(collector=f"http://{collector.address}"))
    apps = site / "shop" / "apps.py"
    apps.write_text(apps.read_text().replace("worker_started.connect(start)", "start(None)"))
    with serving("--workers", "1", env=env(), cwd=site) as server:
        assert "will not have the thread" not in server.output
        pid = server.get("/traced/").text
        until(lambda: collector.said(f"view in {pid}"), lambda: server.output)


def test_the_agent_of_new_relic_runs_in_the_workers(env: Any, tmp_path: Path) -> None:
    need_package("newrelic")
    site = copy_site(tmp_path, VIEWS)
    environ = env(
        {
            "NEW_RELIC_LICENSE_KEY": "0" * 40,
            "NEW_RELIC_APP_NAME": "shop",
            "NEW_RELIC_HOST": "127.0.0.1",
            "NEW_RELIC_PORT": "9",
            "NEW_RELIC_STARTUP_TIMEOUT": "0",
            "NEW_RELIC_LOG": "/dev/null",
        }
    )
    admin = str(Path(sys.executable).with_name("newrelic-admin"))
    command = (admin, "run-program", sys.executable, "manage.py", "prodserve")
    with serving("--workers", "2", env=environ, cwd=site, command=command) as server:
        assert "will not have the thread" not in server.output
        seen: dict[str, int] = {}

        def everybody() -> bool:
            pid, count = server.get("/agents/").text.split()
            seen[pid] = int(count)
            return len(seen) == 2 and all(seen.values())

        until(everybody, lambda: f"{seen} {server.output}")
