"""The limit that a worker puts on requests that compute: seen while it is in force, absent when it is off."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .management import MANAGEMENT, ask
from .serving import PATIENCE, Server, at_work, copy_site, run, serving, until

pytestmark = pytest.mark.slow

THREADS = 8
ONE = ("--workers", "1", "--threads", str(THREADS))
STATUS = ("-m", "django_prodserve", "status")
VIEWS = """
import sys

def compute(request):
    until = time.thread_time() + 0.005
    while time.thread_time() < until:
        pass
    return HttpResponse()

def interval(request):
    time.sleep(0.02)
    return HttpResponse(str(sys.getswitchinterval()))

urlpatterns += [path("compute/", compute), path("interval/", interval)]
"""


class Load:
    """Clients that keep as many requests that compute in the worker as it has threads."""

    def __init__(self, server: Server) -> None:
        self.port, self.answers = server.port, 0
        self._lock = threading.Lock()

    def __call__(self, over: threading.Event) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            while not over.is_set():
                connection.request("GET", "/compute/")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise AssertionError(answer.status)
                with self._lock:
                    self.answers += 1


@contextmanager
def computing(server: Server) -> Iterator[Load]:
    load = Load(server)
    with at_work(load, THREADS):
        yield load


def measured(server: Server, name: str) -> int:
    """Return what /metrics says of the one worker."""
    families = text_string_to_metric_families(ask(server, "/metrics").text)
    found = [one for family in families for one in family.samples if one.name == f"prodserve_{name}"]
    (sample,) = found
    assert sample.labels == {"worker": "0"}
    return int(sample.value)


def on_the_page(server: Server) -> int:
    """Return what the live page is told each second."""
    (worker,) = ask(server, "/live.json").json()["workers"]
    return int(worker["concurrency_limit"])


def in_status_json(env: Any, site: Path) -> int:
    (worker,) = json.loads(run(*STATUS, "--json", env=env(), cwd=site).stdout)["workers"]
    return int(worker["concurrency_limit"])


def in_status(env: Any, site: Path) -> int:
    (limit,) = re.findall(
        r"^worker .* busy \d+/8, limit (\d+), ", run(*STATUS, env=env(), cwd=site).stdout, re.M
    )
    return int(limit)


def test_requests_that_compute_are_limited_and_the_limit_is_seen(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, VIEWS)
    with serving(*MANAGEMENT, *ONE, env=env(), cwd=site) as server:
        assert measured(server, "concurrency_limit") == on_the_page(server) == THREADS
        assert in_status_json(env, site) == in_status(env, site) == THREADS
        with computing(server):
            until(lambda: measured(server, "concurrency_limit") < THREADS)
            until(lambda: on_the_page(server) < THREADS)
            until(lambda: in_status_json(env, site) < THREADS)
            until(lambda: in_status(env, site) < THREADS)
        until(lambda: measured(server, "concurrency_limit") == THREADS)  # forgotten after 10 s without load


def test_switched_off_all_threads_run_requests(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, VIEWS)
    off = ("--concurrency-limit", "off")
    with serving(*MANAGEMENT, *ONE, *off, env=env(), cwd=site) as server:
        decided = ask(server, "/status.json").json()["plan"]["decisions"]["concurrency_limit"]
        assert (decided["value"], decided["source"]) == ("off", "--concurrency-limit")
        seen = set()
        with computing(server) as load:
            until(lambda: load.answers > 50)
            until(lambda: measured(server, "threads_busy") > THREADS / 2)  # a limit would be 2 or 3
            answers = load.answers
            while load.answers < answers + 600:  # 3 s on a quiet machine; with a limit it is there in 1 s
                seen |= {measured(server, "concurrency_limit"), on_the_page(server)}
            seen |= {in_status_json(env, site), in_status(env, site)}
        assert seen == {THREADS}


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", {"0.001", "0.005"}), ("import sys; sys.setswitchinterval(0.002)\n", {"0.002"})],
    ids=["CPython's own", "the project's"],
)
def test_the_switch_interval_of_the_project_is_kept_in_an_overload(
    env: Any, tmp_path: Path, line: str, expected: set[str]
) -> None:
    site = copy_site(tmp_path, VIEWS)
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + line)
    flags = ("--workers", "1", "--threads", "1", "--queue-timeout", "50ms")
    with serving(*flags, env=env(), cwd=site) as server, ThreadPoolExecutor(40) as clients:
        seen = {server.get("/interval/").text}
        statuses: set[int] = set()
        while 503 not in statuses:
            answers = [*clients.map(server.get, ["/interval/"] * 80)]
            statuses |= {answer.status for answer in answers}
            seen |= {answer.text for answer in answers if answer.status == 200}
        until(lambda: server.get("/interval/").text in {"0.005", "0.002"})  # as before the overload
        assert seen == expected
