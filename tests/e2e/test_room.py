"""The room that a real server reports, in each place that shows it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from typing import Any

import pytest

from .management import MANAGEMENT, ask
from .serving import Server, at_work, run, serving, until

VIEW_SECONDS, THREADS = 0.5, 16


@pytest.mark.slow
def test_a_server_whose_threads_are_short_says_how_many_requests_they_serve(env: Any) -> None:
    """Four clients keep half of the threads of two workers busy: twice as many requests fit."""
    environ = env()

    def work(over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                server.get(f"/slow/?seconds={VIEW_SECONDS}")

    def status(*words: str) -> str:
        words = ("status", *words, "--bind", str(server.port))
        return run("manage.py", "prodserve", *words, env=environ).stdout

    def room(server: Server) -> dict[str, Any]:
        found: dict[str, Any] = ask(server, "/live.json").json()["room"]
        return found

    flags = ("--workers", "2", "--threads", str(THREADS // 2))
    with serving(*MANAGEMENT, *flags, env=environ) as server:
        until(lambda: room(server) is not None)
        assert (room(server)["certain"], room(server)["room"]) == (False, None)
        assert "room      not known yet: workers have just started" in status()
        with at_work(work, THREADS // 2):
            until(lambda: room(server)["certain"], lambda: str(room(server)), patience=60)
            found = room(server)
            assert found["short"] == "threads"
            assert found["room"] == pytest.approx(THREADS / VIEW_SECONDS, rel=0.2)
            assert found["rate"] < 0.75 * found["room"]
            known = json.loads(status("--json"))
            assert known["room"]["limits"]["threads"] == pytest.approx(found["room"], rel=0.2)
            assert all(worker["cpu_share"] > 0 for worker in known["workers"])
            assert re.search(
                r"^room      serves \d+/s, room for about \d+/s \(threads\); ", status(), re.MULTILINE
            )
            metrics = ask(server, "/metrics").text
        (shown,) = re.findall(
            r'^prodserve_room_requests_per_second{resource="threads"} (\S+)$', metrics, re.MULTILINE
        )
        assert float(shown) == pytest.approx(found["room"], rel=0.2)
