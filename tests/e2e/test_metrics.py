"""A scrape agrees with those who sent the requests, whichever worker answers it and whoever was replaced."""

from __future__ import annotations

import http.client
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .management import MANAGEMENT, ask
from .serving import PATIENCE, Server, serving, until

STATIC = "/static/admin/css/base.css"
REQUESTS = [
    ("GET", "/"),
    ("HEAD", "/"),
    ("POST", "/echo/"),
    ("GET", "/nowhere/"),
    ("BREW", "/"),
    ("GET", STATIC),
]
RISING = ("_total", "_count", "_sum", "_bucket")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(server: Server) -> Samples:
    answer = ask(server, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(
        value for (sample, has), value in samples.items() if sample == name and labels.items() <= {*has}
    )


class Load:
    """One client that keeps its connection where it may, and counts what it was answered."""

    def __init__(self, port: int) -> None:
        self.port, self.counted = port, Counter[tuple[str, str]]()

    def __call__(self, rounds: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        for number in range(rounds):
            method, path = REQUESTS[number % len(REQUESTS)]
            connection.request(method, path, body=b"x" if method == "POST" else None)
            answer = connection.getresponse()
            answer.read()
            kind = "static" if path == STATIC else method if method != "BREW" else "other"
            self.counted[kind, f"{answer.status // 100}xx"] += 1
        connection.close()


def test_the_sums_are_what_the_clients_counted_across_replacements(env: Any) -> None:
    flags = ("--workers", "2", "--max-requests", "150", "--max-requests-jitter", "0")
    with serving(*MANAGEMENT, *flags, env=env()) as server:
        server.workers(2)
        loads = [Load(server.port) for _ in range(4)]
        before, seen = scrape(server), 0
        with ThreadPoolExecutor(4) as clients:
            running = [clients.submit(load, 240) for load in loads]
            while not all(future.done() for future in running):
                samples = scrape(server)
                for key, value in samples.items():
                    if key[0].endswith(RISING) and "worker" not in dict(key[1]):
                        assert value >= before.get(key, 0), key
                before, seen = samples, seen + 1
            for future in running:
                future.result()
        counted = sum((load.counted for load in loads), Counter())
        assert seen > 3
        until(lambda: total(scrape(server), "prodserve_workers_ended_total", reason="max-requests") >= 1)
        samples = scrape(server)
        for (kind, code), count in counted.items():
            if kind != "static":
                assert total(samples, "prodserve_requests_total", method=kind, code=code) == count
        assert total(samples, "prodserve_static_files_total") == counted["static", "2xx"] > 0
        dynamic = sum(counted.values()) - counted["static", "2xx"]
        assert total(samples, "prodserve_requests_total") == dynamic
        assert total(samples, "prodserve_request_duration_seconds_count") == dynamic
        assert total(samples, "prodserve_request_queue_seconds_bucket", le="+Inf") == dynamic


def test_a_killed_worker_keeps_its_counts_and_is_counted_itself(env: Any) -> None:
    with serving(*MANAGEMENT, "--workers", "2", env=env()) as server:
        workers = server.workers(2)
        for _ in range(20):
            assert server.get("/").status == 200
        # A worker counts a request right after it has sent the response.
        until(lambda: total(scrape(server), "prodserve_requests_total", method="GET", code="2xx") == 20)
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: total(scrape(server), "prodserve_workers_ended_total", reason="killed") == 1)
        until(lambda: total(scrape(server), "prodserve_workers", state="serving") == 2)
        samples = scrape(server)
        assert total(samples, "prodserve_requests_total", method="GET", code="2xx") == 20
        assert total(samples, "prodserve_ready") == total(samples, "prodserve_generation") == 1
        assert total(samples, "prodserve_threads") == 32
        assert total(samples, "prodserve_accept_queue_limit_connections") > 0
        memories = [value for (name, _), value in samples.items() if name == "prodserve_worker_memory_bytes"]
        assert len(memories) == 2
        assert min(memories) > 2**20
        ((_, versions),) = [key for key in samples if key[0] == "prodserve_build_info"]
        assert {name for name, _ in versions} == {"version", "django", "gunicorn", "python"}


@pytest.mark.slow
def test_what_waits_and_runs_is_told_while_it_does(env: Any) -> None:
    with (
        serving(*MANAGEMENT, "--workers", "1", "--threads", "2", env=env()) as server,
        ThreadPoolExecutor(5) as pool,
    ):
        asked = [pool.submit(server.get, "/slow/?seconds=2.5") for _ in range(5)]
        until(lambda: total(scrape(server), "prodserve_requests_in_flight") == 5)
        samples = scrape(server)
        assert total(samples, "prodserve_threads_busy") == 2
        assert total(samples, "prodserve_requests_queued") == 3
        assert {future.result().status for future in asked} == {200}
        until(lambda: total(scrape(server), "prodserve_requests_in_flight") == 0)
        assert total(scrape(server), "prodserve_request_queue_seconds_sum") > 2


def test_metrics_are_not_public(env: Any) -> None:
    with serving(*MANAGEMENT, env=env()) as server:
        assert server.get("/metrics").status == 404
