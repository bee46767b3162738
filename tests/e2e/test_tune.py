"""``prodserve tune``: the real command, its private server and its load client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from .serving import PATIENCE, SITE, complaints, copy_site, run, until

VIEWS = """
from django.contrib.auth.models import User
from django.shortcuts import redirect

urlpatterns = [
    path("wait/", lambda request: time.sleep(0.05) or HttpResponse("ok")),
    path("users/", lambda request: HttpResponse([*User.objects.all(), User.objects.count()])),
    path("moved/", lambda request: redirect("/wait/")),
    path("broken/", boom),
    path("item/<int:number>/", hello),
]
"""


def tune(*words: str, env: Any, cwd: Path = SITE, patience: float = PATIENCE) -> Any:
    return run("manage.py", "prodserve", "tune", *words, env=env, cwd=cwd, patience=patience)


def left_behind(cwd: Path) -> list[psutil.Process]:
    """Return the processes that serve this copy of the project."""
    found = []
    for process in psutil.process_iter():
        with_place = None
        try:
            with_place = process.cwd()
        except psutil.Error:
            continue
        if with_place == str(cwd):
            found.append(process)
    return found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["shop/"], "'shop/' is not a path: a path begins with / and has no spaces."),
        (["--watch"], "--watch works with status, not with tune."),
    ],
)
def test_what_is_written_wrongly_starts_nothing(env: Any, words: list[str], says: str) -> None:
    ended = tune(*words, env=env())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaints(ended)[0] == f"prodserve: error: {says}"


def test_a_database_on_another_host_is_not_loaded(env: Any) -> None:
    remote = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "192.0.2.1"}}
    ended = tune("/", env=env(DATABASES=remote))
    assert ended.returncode == 2
    assert "a database on another host: default is on 192.0.2.1" in ended.stderr
    assert "starts this project" not in ended.stderr


@pytest.mark.slow
def test_a_project_that_does_not_start_is_shown(env: Any) -> None:
    ended = tune("/", env=env(DEBUG=True))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "The project does not start; exit code 1." in ended.stderr
    assert "DEBUG is on" in ended.stderr


@pytest.mark.slow
def test_paths_that_cannot_be_measured_are_named_and_nothing_is_left(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, VIEWS)
    ended = tune("/moved/", "/broken/", "/nowhere/", env=env(SECURE_SSL_REDIRECT=True), cwd=site)
    assert ended.returncode == 1, ended.stderr
    for line in (
        "None of these paths answers 200.",
        "/moved/: 302 Found to /wait/",
        "/broken/: 500 Internal Server Error, RuntimeError",
        "/nowhere/: 404 Not Found",
    ):
        assert line in ended.stderr
    assert left_behind(site) == []


@pytest.mark.slow
def test_a_project_is_measured_and_a_page_is_written(env: Any, tmp_path: Path) -> None:
    site, page = copy_site(tmp_path, VIEWS), tmp_path / "tune.html"
    environ = env(SECURE_SSL_REDIRECT=True, ALLOWED_HOSTS=["shop.example"])
    run("manage.py", "migrate", env=environ, cwd=site)
    words = ("/wait/", "/users/", "/moved/", "--seconds", "30", "--json", "--html", str(page))
    ended = tune(*words, env=environ, cwd=site, patience=3 * PATIENCE)
    found = json.loads(ended.stdout)
    assert ended.returncode == (0 if found["conclusive"] else 1), ended.stderr
    assert found["seconds"] <= 32
    waits, users = found["paths"]
    assert (waits["path"], waits["kind"], waits["queries"]) == ("/wait/", "waits", 0)
    assert waits["wait"] == pytest.approx(0.05, rel=0.2)
    assert (users["path"], users["queries"], users["share"]) == ("/users/", 2, 0.5)
    assert 0 < users["query_seconds"] < users["seconds"]
    assert found["skipped"] == [{"path": "/moved/", "why": "302 Found to /wait/"}]
    assert len(found["runs"]) == 3
    assert all(measured["failed"] == 0 for measured in found["runs"])
    assert found["recommended"]["profile"] == "io"
    assert found["recommended"]["threads"] > 16
    assert found["measured"] > 0
    assert "starts this project on a private port of 127.0.0.1" in ended.stderr
    assert '"/users/"' in page.read_text()
    assert left_behind(site) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_the_private_server_too(env: Any, tmp_path: Path, number: int, code: int) -> None:
    site = copy_site(tmp_path, VIEWS)
    command = [sys.executable, "manage.py", "prodserve", "tune", "/wait/"]
    with subprocess.Popen(command, cwd=site, env=env(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "1 of 1" in line:
                break
        assert len(left_behind(site)) > 2
        os.kill(process.pid, number)
        assert process.wait(PATIENCE) == code
    until(lambda: left_behind(site) == [], lambda: str(left_behind(site)))
