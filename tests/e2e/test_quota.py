"""A real CPU quota that throttles: the log, the page's verdict, ``status`` and the metrics say so."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from .groups import HALF_A_CPU, inside
from .management import MANAGEMENT, ask
from .serving import Server, at_work, copy_site, run, serving, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux"),
]

COMPUTES = """
def compute(request):
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    return HttpResponse()
urlpatterns = [*urlpatterns, path("compute/", compute)]
"""


def verdict(server: Server) -> list[dict[str, Any]]:
    """Return what the page says about the quota."""
    findings: list[dict[str, Any]] = ask(server, "/live.json").json()["findings"]
    return [finding for finding in findings if finding["kind"] == "throttled"]


def throttled_periods(server: Server) -> float:
    """Return the metric; any worker reports it for the control group of all."""
    name = "prodserve_cpu_quota_throttled_periods_total"
    return float(re.findall(rf"^{name} (\S+)$", ask(server, "/metrics").text, re.MULTILINE)[0])


@pytest.mark.parametrize("below", [False, True], ids=["own quota", "quota of the parent"])
def test_a_quota_that_throttles_is_said_when_it_begins_and_when_it_is_over(
    env: Any, tmp_path: Path, make_group: Any, below: bool
) -> None:
    group = make_group("cpu", HALF_A_CPU)
    group = make_group("cpu", {}, parent=group) if below else group
    site = copy_site(tmp_path, COMPUTES)
    flags = (*MANAGEMENT, "--workers", "1", "--threads", "4")

    def hurry(over: threading.Event) -> None:
        while not over.is_set():
            server.get("/compute/")

    with serving(*flags, env=env(), cwd=site, command=(*inside(group), "manage.py", "prodserve")) as server:
        with at_work(hurry, 4):
            begun = server.wait_for("[WARNING] The CPU quota throttles this server in ")
            assert re.search(r"in \d+ % of its periods\.$", begun)
            until(lambda: len(verdict(server)) == 1)
            (found,) = verdict(server)
            assert found["level"] == "warn"
            assert re.search(r"in \d+ % of its periods since \d\d:\d\d:\d\d UTC$", found["text"])
            assert (found["action"], found["help"]) == (
                "Raise the CPU limit, or lower what a request computes.",
                "throttled",
            )
            before = throttled_periods(server)
            until(lambda: throttled_periods(server) > before)
            told = run("-m", "django_prodserve", "status", env=env(), cwd=site)
            assert told.returncode == 0, told.stderr
            assert f"!  {found['text']}\n   {found['action']} More: prodserve help throttled\n" in told.stdout
            assert re.search(r"^routes    shop.urls.compute: 100 % of the time, ", told.stdout, re.MULTILINE)
        server.wait_for("[WARNING] The CPU quota is enough again; it throttled for ")
        until(lambda: "is enough again" in verdict(server)[0]["text"])
        kinds = [event["kind"] for event in ask(server, "/status.json").json()["events"]]
        assert kinds[-2:] == ["throttled", "throttling over"]
