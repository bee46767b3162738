"""What has happened is told by ``status --json`` and the management address, of workers that are gone too."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import django
import pytest

from .management import MANAGEMENT, ask
from .serving import Server, copy_site, run, serving, until


def start(server: Server, path: str) -> None:
    """Ask for something that may never be answered."""

    def go() -> None:
        with contextlib.suppress(OSError):  # its worker is killed
            server.get(path)

    threading.Thread(target=go, daemon=True).start()


def told(server: Server) -> dict[str, dict[str, Any]]:
    """Return the last event of each kind; a worker that is killed may have taken the question with it."""
    for _ in range(2):
        with contextlib.suppress(ConnectionError):
            return {event["kind"]: event for event in ask(server, "/status.json").json()["events"]}
    return {event["kind"]: event for event in ask(server, "/status.json").json()["events"]}


@pytest.mark.slow
def test_a_stuck_request_and_a_killed_worker_are_told_with_what_they_ran(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    secret = {"GUNICORN": {"raw_env": ["TOKEN=hush-hush"]}}
    flags = (*MANAGEMENT, "--workers", "2", "--threads", "2", "--slow-request", "1s", "--timeout", "2s")
    with serving(*flags, "--graceful-timeout", "3s", env=env(PRODSERVE=secret), cwd=site) as server:
        before = server.workers(2)
        start(server, "/deadlock/")
        until(lambda: "hung" in told(server), lambda: str(told(server)))
        until(lambda: "stacks" in told(server), lambda: str(told(server)))
        stuck = next(pid for pid in before if f"Worker {pid} " in told(server)["stacks"]["text"])
        until(lambda: stuck not in server.workers(2))
        events = told(server)
        assert "does not end, replacing its worker" in events["hung"]["text"]
        for kind in ("slow", "timeout"):
            assert ": GET /deadlock/ running for " in events[kind]["text"]
            assert "with STUCK:" in events[kind]["stack"]
        assert events["start"]["text"] == "Generation 1 serves with 2 workers"
        assert "GET /deadlock/" in events["stacks"]["stack"]
        assert "in deadlock" in events["stacks"]["stack"]

        start(server, "/slow/?seconds=9")
        busy: list[int] = []

        def runs() -> bool:
            workers = ask(server, "/live.json").json()["workers"]
            running = [worker for worker in workers if (worker["oldest"] or {}).get("path") == "/slow/"]
            busy[:] = [request["pid"] for request in running]
            return bool(busy)

        until(runs)
        os.kill(busy[0], signal.SIGKILL)
        until(lambda: "killed" in told(server), lambda: str(told(server)))
        killed = told(server)["killed"]
        assert killed["text"].startswith(f"Worker {busy[0]} was killed (SIGKILL)")
        assert "ended while it ran GET /slow/ [" in killed["stack"]

        shown = run("-m", "django_prodserve", "status", "--json", env=env(), cwd=site).stdout
        known = json.loads(shown)
        assert {*events, "killed"} == {event["kind"] for event in known["events"]}
        assert known["plan"]["decisions"]["workers"] == {
            "value": "2",
            "why": "set explicitly",
            "source": "--workers",
        }
        assert known["memory_limit"] > known["memory_used"] > 2**20
        assert {finding["level"] for finding in known["findings"]} >= {"bad"}
        assert "hush-hush" not in shown
        assert server.stop() == 0


def test_recycled_workers_are_told(env: Any) -> None:
    with serving(
        *MANAGEMENT, "--workers", "1", "--max-requests", "5", "--max-requests-jitter", "0", env=env()
    ) as server:
        (worker,) = server.workers(1)
        for _ in range(8):
            assert server.get("/").status == 200
        text = f"Worker {worker} is replaced: max-requests"
        until(lambda: told(server).get("max-requests", {}).get("text") == text)


def test_a_reload_that_failed_is_told_until_one_succeeds(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    good = settings.read_text()

    def failures(server: Server) -> list[str]:
        found = ask(server, "/live.json").json()["findings"]
        return [event["text"] for event in found if "reload failed" in event["text"]]

    with serving(*MANAGEMENT, "--workers", "1", env=env(), cwd=site) as server:
        assert failures(server) == []
        settings.write_text(good + "\nROOT_URLCONF = 'nowhere'\n")
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 1
        until(lambda: "reload failed" in told(server))
        (text,) = failures(server)
        when = r"\(\d\d:\d\d:\d\d UTC\)"
        assert re.match(rf"The last reload failed {when}, and the release before it keeps serving: ", text)
        failed = told(server)["reload failed"]
        assert failed["level"] == "bad"
        assert failed["text"].startswith("Generation 2 could not start, generation 1 keeps serving: ")
        assert "nowhere" in failed["text"]
        settings.write_text(good)
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 0
        assert failures(server) == []


BROKEN = """

def teapot(request: HttpRequest) -> HttpResponse:
    return HttpResponse("short and stout", status=503)


def breaks_off(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[str]:
        yield "begun"
        raise LookupError("the view broke")

    return StreamingHttpResponse(pieces())


urlpatterns += [path("teapot/", teapot, name="teapot"), path("breaks-off/", breaks_off)]
"""


def test_requests_that_failed_are_told_with_route_exception_and_id(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, BROKEN)

    def failed(server: Server) -> list[list[Any]]:
        keys = ("status", "method", "path", "route", "exception", "id")
        errors = ask(server, "/live.json").json()["recent_errors"]
        return [[error[key] for key in keys] for error in errors]

    with serving(*MANAGEMENT, "--workers", "1", env=env(), cwd=site) as server:
        for path in ("/", "/nowhere/"):
            server.get(path)
        boom = server.get("/boom/?token=hush-hush").headers["x-request-id"]
        until(lambda: len(failed(server)) == 1)  # recorded after the response: by then another may be served
        teapot = server.get("/teapot/").headers["x-request-id"]
        until(lambda: len(failed(server)) == 2)
        with contextlib.suppress(http.client.HTTPException):
            server.get("/breaks-off/")
        until(lambda: len(failed(server)) == 3, lambda: str(failed(server)))
        seen = failed(server)
        assert seen[:2] == [
            [500, "GET", "/boom/", "shop.urls.boom", "RuntimeError", boom],
            [503, "GET", "/teapot/", "teapot", "", teapot],
        ]
        assert seen[2][:5] == [200, "GET", "/breaks-off/", "shop.urls.breaks_off", "LookupError"]
        (worker,) = server.workers(1)
        os.kill(worker, signal.SIGKILL)
        until(lambda: server.workers(1) != [worker] and server.answers())
        until(lambda: failed(server) == seen)  # they outlive their worker...
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 0
        assert failed(server) == seen  # ...and their generation
        shown = run("-m", "django_prodserve", "status", "--json", env=env(), cwd=site).stdout
        assert [error["id"] for error in json.loads(shown)["recent_errors"]] == [row[5] for row in seen]
        assert "hush-hush" not in shown


def test_what_a_server_is_is_told(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(*MANAGEMENT, "--workers", "1", "--memory", "1g", env=env(), cwd=site) as server:
        known = ask(server, "/status.json").json()
        assert known["server"]["host"] == socket.gethostname()
        assert os.path.samefile(known["server"]["project"], site)
        assert known["server"]["bind"] == [f"127.0.0.1:{server.port}"]
        assert known["server"]["versions"]["django"] == django.get_version()
        assert known["server"]["memory_limited"] is True
        before = known["server_uptime"]
        assert 0 <= known["uptime"] <= before < 60
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 0
        known = ask(server, "/status.json").json()
        assert known["uptime"] < known["server_uptime"]
        assert known["server_uptime"] >= before
