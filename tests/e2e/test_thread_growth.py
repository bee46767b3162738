"""Threads follow requests that wait, and end with all that they have opened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, SITE, Server, run, serving, until


def status(server: Server, environ: dict[str, str], *words: str) -> Any:
    return run("manage.py", "prodserve", "status", *words, "--bind", str(server.port), env=environ)


def workers(server: Server, environ: dict[str, str]) -> list[dict[str, Any]]:
    ended = status(server, environ, "--json")
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)["workers"]
    return found


def total(server: Server, environ: dict[str, str], name: str) -> int:
    return sum(int(worker[name]) for worker in workers(server, environ))


class Gate:
    """A pipe: requests of ``/held/`` wait for its other end without computing."""

    def __init__(self, path: Path) -> None:
        self.path, self.end = path, -1
        os.mkfifo(path)

    def wait(self, server: Server) -> int:
        return server.get(f"/held/?pipe={self.path}").status

    def open(self) -> None:
        if self.end < 0:
            self.end = os.open(self.path, os.O_RDWR)

    def __del__(self) -> None:
        if self.end >= 0:
            os.close(self.end)


def test_more_requests_wait_at_a_time_than_there_were_threads(env: Any, tmp_path: Path) -> None:
    environ, gate = env(), Gate(tmp_path / "gate")
    with serving("--workers", "2", env=environ) as server, ThreadPoolExecutor(90) as clients:
        assert re.search(r"workers   2 x 16 threads: .*; up to \d+ threads", server.output)
        sent = [clients.submit(gate.wait, server) for _ in range(90)]
        until(lambda: total(server, environ, "busy") == 90, lambda: str(workers(server, environ)))
        assert total(server, environ, "threads") >= 90
        assert {worker["growth_hold"] for worker in workers(server, environ)} == {""}
        gate.open()
        assert {each.result() for each in sent} == {200}


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "most"), [(("--threads", "4"), 4), (("--threads", "4..6"), 6)])
def test_a_number_is_fixed_and_a_range_is_kept(
    env: Any, tmp_path: Path, flags: tuple[str, ...], most: int
) -> None:
    environ, gate = env(), Gate(tmp_path / "gate")
    limits = ("--workers", "1", "--queue-timeout", "0", *flags)
    with serving(*limits, env=environ) as server, ThreadPoolExecutor(12) as clients:
        sent = [clients.submit(gate.wait, server) for _ in range(12)]
        until(lambda: total(server, environ, "busy") == most, lambda: str(workers(server, environ)))
        until(lambda: total(server, environ, "queue") == 12 - most, lambda: str(workers(server, environ)))
        (worker,) = workers(server, environ)
        assert (worker["threads"], worker["max_threads"]) == (most, most)
        if most == 6:
            until(
                lambda: workers(server, environ)[0]["growth_hold"] == "maximum",
                lambda: str(workers(server, environ)),
            )
            shown = status(server, environ).stdout
            assert "busy 6/6 of 6, the maximum" in shown
        gate.open()
        assert {each.result() for each in sent} == {200}


@pytest.mark.slow
def test_one_route_that_waits_leaves_threads_to_the_others(env: Any, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / f"gate{number}") for number in range(8)]
    limits = ("--workers", "1", "--threads", "4", "--queue-timeout", "0")
    environ = env()
    with serving(*limits, env=environ) as server, ThreadPoolExecutor(10) as clients:
        sent = [clients.submit(gate.wait, server) for gate in gates[:4]]
        until(lambda: total(server, environ, "busy") == 4)
        sent += [clients.submit(gate.wait, server) for gate in gates[4:]]
        until(lambda: total(server, environ, "queue") == 4)
        other = clients.submit(server.get, "/")
        server.wait_for("is limited to 2 of 4 threads: requests of other routes waited for it")
        gates[0].open()
        assert sent[0].result() == 200
        assert other.result().status == 200
        assert [each.done() for each in sent] == [True] + 7 * [False]
        gates[1].open()
        assert sent[1].result() == 200
        assert [server.get("/").status for _ in range(5)] == 5 * [200]
        assert (total(server, environ, "busy"), total(server, environ, "queue")) == (2, 4)
        for gate in gates:
            gate.open()
        assert {each.result() for each in sent} == {200}


@pytest.mark.slow
def test_threads_that_end_leave_no_descriptor_and_no_memory_behind() -> None:
    words = ("-m", "tests.bench.cycles", "--cycles", "100", "--threads", "8")
    ended = subprocess.run(
        [sys.executable, *words], cwd=SITE.parent.parent, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
