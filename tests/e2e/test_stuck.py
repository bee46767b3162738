"""Requests that do not end: named with their stack, interrupted, or their worker is replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .serving import Response, Server, copy_site, run, serving, until

pytestmark = pytest.mark.slow

QUICK = (
    "--workers",
    "2",
    "--threads",
    "2",
    "--timeout",
    "2s",
    "--slow-request",
    "1s",
    "--graceful-timeout",
    "3s",
)
GONE = (OSError, http.client.HTTPException)


@contextlib.contextmanager
def asking(server: Server, path: str, count: int) -> Iterator[list[Future[Response]]]:
    """Ask ``count`` times at once; at the end wait for answers, or for connections to be cut."""
    with ThreadPoolExecutor(count) as clients:
        asked = [clients.submit(server.get, path) for _ in range(count)]
        yield asked
        for future in asked:
            with contextlib.suppress(*GONE):
                future.result()


def test_a_request_that_computes_for_ever_is_answered_504_and_its_worker_stays(env: Any) -> None:
    # Two looks at least lie between slow and too late, also on a machine that is busy.
    with serving(*QUICK, "--timeout", "5s", env=env()) as server:
        before = server.workers(2)
        started = time.monotonic()
        assert server.get("/spin/").status == 504
        assert time.monotonic() - started >= 5
        assert server.get("/").status == 200
        server.wait_for("Slow request: GET /spin/ running for ")
        server.wait_for("in spin")
        server.wait_for("Request timed out after 5 s, interrupting it: GET /spin/ running for ")
        assert server.workers(2) == before


def test_a_view_may_have_a_time_of_its_own(env: Any) -> None:
    with serving(*QUICK, env=env()) as server:
        assert server.get("/patient/").text == "worth waiting for"
        assert "Slow request" in server.output
        assert "timed out" not in server.output


def test_a_deadlock_costs_its_worker_and_the_neighbours_finish(env: Any) -> None:
    with serving("--workers", "1", *QUICK[2:], env=env()) as server:
        (stuck,) = server.workers(1)
        with asking(server, "/deadlock/", 1), ThreadPoolExecutor(1) as neighbour:
            server.wait_for("does not end, replacing its worker")
            server.wait_for("in deadlock")
            late = neighbour.submit(server.get, "/slow/?seconds=1")
            until(lambda: stuck not in server.workers())
            assert late.result().status == 200
        assert server.get("/").status == 200


@pytest.mark.parametrize("path", ["/deadlock/", "/hold-gil/"])
def test_all_threads_of_all_workers_stuck(env: Any, path: str) -> None:
    """With the defaults it takes 20 to 35 s; the stack is in the log all the same."""
    settings = env(PRODSERVE={"GUNICORN": {"timeout": 3}})
    with serving(*QUICK, env=settings) as server:
        before = {*server.workers(2)}
        with asking(server, path, 12):
            until(lambda: not before & {*server.workers(2)})
            until(server.answers)
        assert f"in {path.strip('/').replace('-', '_')}" in server.output


def test_a_worker_that_finishes_nothing_while_others_wait_is_replaced_sooner(env: Any) -> None:
    settings = env(PRODSERVE={"GUNICORN": {"on_starting": "shop.hooks.impatient"}})
    flags = ("--workers", "1", "--threads", "2", "--graceful-timeout", "2s")
    with serving(*flags, env=settings) as server:
        with asking(server, "/deadlock/", 4):
            server.wait_for("hung: all threads busy, no request finished")
            until(server.answers)
        server.wait_for("in deadlock")


def test_a_body_that_still_arrives_and_a_stream_that_moves_are_not_stuck(env: Any) -> None:
    with serving(*QUICK, env=env()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST /whoami/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
            for _ in range(5):
                time.sleep(0.7)
                client.sendall(b"ab")
            assert client.recv(1000).split()[1] in {b"200", b"403"}
        assert server.get("/ticking/?seconds=4").text.count("tick") == 8
        assert "Slow request" not in server.output
        assert "timed out" not in server.output


@pytest.mark.parametrize("path", ["/deadlock/", "/hold-gil/"])
def test_dump_shows_every_stack_and_stops_nothing(env: Any, tmp_path: Path, path: str) -> None:
    site = copy_site(tmp_path)
    flags = ("--workers", "1", "--threads", "2", "--graceful-timeout", "1s", "--timeout", "0")
    with serving(*flags, env=env(), cwd=site) as server:
        pids = server.workers(1)
        with asking(server, path, 2):
            told: list[Any] = []

            def runs() -> bool:
                out = run("-m", "django_prodserve", "status", "--json", env=env(), cwd=site).stdout
                told.append(json.loads(out)["workers"][0]["oldest"])
                return told[-1] is not None

            until(runs)
            assert (told[-1]["method"], told[-1]["path"]) == ("GET", path)
            dumped = run("-m", "django_prodserve", "dump", env=env(), cwd=site)
            assert f"worker {pids[0]} (serving)" in dumped.stdout, dumped.stderr
            assert re.search(rf"GET {path} \[\w+\] for ", dumped.stdout), dumped.stdout
            assert f"in {path.strip('/').replace('-', '_')}" in dumped.stdout
            assert server.workers(1) == pids
            server.process.terminate()
        assert server.process.wait(timeout=15) == 0
