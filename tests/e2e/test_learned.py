"""A server learns from a day of traffic, and the next one starts with that."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.monitoring.learning import SPAN_SECONDS
from django_prodserve.project.learned import TrafficSpan, to_text

from .serving import run, serving

SPANS = 90


def yesterday() -> list[TrafficSpan]:
    """Return a day until now in which workers had up to 24 threads in use."""
    now = time.time()
    return [
        TrafficSpan(
            end=now - SPAN_SECONDS * number,
            seconds=SPAN_SECONDS,
            requests=900,
            samples=300,
            cpu=3.0,
            wait=27.0,
            used=90.0,
            latency=900.0,
            threads={3: 900, 24: 900},
        )
        for number in reversed(range(SPANS))
    ]


@pytest.mark.slow
def test_the_next_server_starts_with_what_a_day_has_shown(env: Any, tmp_path: Path) -> None:
    """The day is written here. The server adds its own traffic, and decides."""
    cache = tmp_path / "cache"
    environ = env({"XDG_CACHE_HOME": str(cache)})
    flags = ("--workers", "2", "--apply-advice")
    with serving(*flags, env=environ) as server:
        assert "advice    nothing learned yet\n" in server.output
        assert re.search(r"workers   2 x 16 threads", server.output)
        assert [server.get("/").status for _ in range(5)] == [200] * 5
    (file,) = (cache / "django-prodserve" / "learned").iterdir()
    (span,) = json.loads(file.read_text())["spans"]
    assert (span["requests"], span["contradiction"]) == (5, "")
    shown = run("manage.py", "prodserve", "plan", "apply-advice", *flags, env=environ).stdout
    assert "nothing learned yet: 5 requests in " in shown
    file.write_text(to_text(None, yesterday()))
    with serving(*flags, env=environ) as server:
        assert "advice    nothing learned yet: 81,000 requests in 22 h\n" in server.output
        assert [server.get("/").status for _ in range(7)] == [200] * 7
    words = "learned from 81,007 requests on 20"
    assert "The next start begins with profile io and 24 threads in each worker: " + words in server.output
    with serving(*flags, env=environ) as server:
        assert f"advice    {words}" in server.output
        assert re.search(r"workers   2 x 24 threads: .*; up to \d+ threads", server.output)
        status = run("manage.py", "prodserve", "status", "--json", "--bind", str(server.port), env=environ)
        assert {worker["threads"] for worker in json.loads(status.stdout)["workers"]} == {24}
    without = run("manage.py", "prodserve", "plan", "threads", "--workers", "2", env=environ).stdout
    assert re.match(r"threads\s+16\b", without.replace(":", ""))
