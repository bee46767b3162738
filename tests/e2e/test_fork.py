"""What a fork must not share, and what it does not take along: connections, pools, threads."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .postgres import Postgres, cluster
from .serving import Server, copy_site, run, serving, until

APP = """
import os, socket, threading

from django.apps import AppConfig
from django.core.signals import request_started
from django.db import connection

from django_prodserve.signals import worker_started


def poll(stop):
    stop.wait()


class ClerkConfig(AppConfig):
    name = "clerk"

    def ready(self):
        if "CLERK_QUERIES" in os.environ:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        if "CLERK_THREAD" in os.environ:
            threading.Thread(target=poll, args=(threading.Event(),), name="poller", daemon=True).start()
        if "CLERK_RETURNS" in os.environ:
            start_exporter()
            os.register_at_fork(after_in_child=start_exporter)
        if "CLERK_SOCKET" in os.environ:
            self.socket = socket.create_connection(("127.0.0.1", int(os.environ["CLERK_SOCKET"])))
        if "CLERK_NOTES" in os.environ:
            worker_started.connect(begin)
            worker_started.connect(fail)


def start_exporter():
    threading.Thread(target=poll, args=(threading.Event(),), name="exporter", daemon=True).start()


def begin(worker, **kwargs):
    with open(os.environ["CLERK_NOTES"], "a") as notes:
        notes.write(f"{os.getpid()} {worker.pid}\\n")


def fail(**kwargs):
    raise RuntimeError("no exporter today")
"""

VIEW = '''

def ask(request):
    """Answer with the token of this request, as the database repeats it, and who asked whom."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT %s, pg_backend_pid(), pg_sleep(0.02)", [request.GET["token"]])
        token, backend, _ = cursor.fetchone()
    return JsonResponse({"token": token, "backend": backend, "worker": os.getpid()})


urlpatterns.append(path("ask/", ask))
'''


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with cluster() as made, made.running():
        yield made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a project with an app that does in ``ready()`` what its variables say."""
    copied = copy_site(tmp_path)
    (copied / "clerk").mkdir()
    (copied / "clerk" / "__init__.py").write_text("")
    (copied / "clerk" / "apps.py").write_text(APP)
    settings = copied / "shop" / "settings.py"
    settings.write_text(settings.read_text() + 'INSTALLED_APPS.append("clerk")\n')
    urls = copied / "shop" / "urls.py"
    urls.write_text(urls.read_text() + VIEW)
    return copied


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"OPTIONS": {"pool": {"min_size": 1, "max_size": 3}}}, id="psycopg pool"),
        pytest.param({"CONN_MAX_AGE": None}, id="persistent connections"),
    ],
)
def test_no_answer_belongs_to_another_request(
    env: Any, site: Path, postgres: Postgres, preload: str, entry: dict[str, Any]
) -> None:
    """Without closing before the fork 12 of 30 answers were another's, or 7 with the pool left open."""
    database = postgres.settings("postgres", **entry)
    environ = env({"CLERK_QUERIES": "1", "PYTHONWARNINGS": "ignore"}, DATABASES={"default": database})
    with serving("--workers", "2", "--threads", "3", preload, env=environ, cwd=site) as server:

        def ask(number: int) -> dict[str, Any]:
            return {"asked": f"token {number}", **server.get(f"/ask/?token=token%20{number}").json()}

        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(ask, range(120)))
        assert [answer for answer in answers if answer["token"] != answer["asked"]] == []
        users: dict[int, set[int]] = {}
        for answer in answers:
            users.setdefault(answer["backend"], set()).add(answer["worker"])
        assert all(len(workers) == 1 for workers in users.values()), users
        assert {answer["worker"] for answer in answers} == set(server.workers(2))
        assert "workers would share" not in server.output


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_a_thread_that_workers_will_miss_is_named_with_its_line(env: Any, site: Path, preload: str) -> None:
    with serving(preload, env=env({"CLERK_THREAD": "1"}), cwd=site) as server:
        warning = next(line for line in server.output.splitlines() if "'poller'" in line)
        line = line_of('threading.Thread(target=poll, args=(threading.Event(),), name="poller"')
        assert warning.startswith("warning: workers will not have the thread 'poller' ")
        assert f"(started in clerk/apps.py, line {line}, to run poll): " in warning
        assert "django_prodserve.signals.worker_started" in warning
        assert "--no-preload" not in warning  # ready() runs in the command's process all the same


@pytest.mark.parametrize("flags", [(), ("--no-preload",), ("--warmup", "off")])
def test_a_thread_that_runs_again_in_a_fork_raises_no_alarm(
    env: Any, site: Path, flags: tuple[str, ...]
) -> None:
    """OpenTelemetry and ddtrace start theirs in each child; beside it one that does not is named."""
    environ = env({"CLERK_RETURNS": "1", "CLERK_THREAD": "1"})
    with serving(*flags, env=environ, cwd=site) as server:
        warnings = [line for line in server.output.splitlines() if "will not have the thread" in line]
        assert len(warnings) == 1, server.output
        assert "'poller'" in warnings[0]


def line_of(text: str) -> int:
    """Return the number of the line of APP that holds ``text``."""
    return next(number for number, line in enumerate(APP.splitlines(), 1) if text in line)


def test_without_manage_py_the_settings_are_watched_too(env: Any, site: Path) -> None:
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + SETTINGS_TIMER)
    line = next(n for n, text in enumerate(settings.read_text().splitlines(), 1) if "timer.start()" in text)
    with serving(env=env(), cwd=site, command=("-m", "django_prodserve")) as server:
        assert f"(started in shop/settings.py, line {line}, to run tick): " in server.output
    with serving(env=env(), cwd=site) as server:  # manage.py loads them before any app
        assert "(tick in shop/settings.py, line " in server.output


def test_a_thread_of_the_urlconf_may_start_in_each_worker_instead(env: Any, site: Path) -> None:
    urls = site / "shop" / "urls.py"
    urls.write_text(f"{urls.read_text()}{TIMER}")
    with serving("--preload", env=env(), cwd=site) as server:
        warning = next(line for line in server.output.splitlines() if "will not have the thread" in line)
        line = urls.read_text().splitlines().index("timer.start()") + 1
        assert f"(started in shop/urls.py, line {line}, to run tick): " in warning
        assert warning.endswith("or serve with --no-preload")
    with serving("--no-preload", env=env(), cwd=site) as server:
        assert "will not have the thread" not in server.output


TIMER = """

def tick():
    pass


timer = threading.Timer(3600, tick)
timer.daemon = True
timer.start()
"""


SETTINGS_TIMER = f"import threading{TIMER}"


def test_an_open_connection_is_named_with_its_peer(env: Any, site: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with serving(env=env({"CLERK_SOCKET": str(port)}), cwd=site) as server:
            peer, line = f"127.0.0.1:{port}", line_of("create_connection")
            assert (
                f"warning: workers would share the open connection to {peer} (opened in clerk/apps.py, line "
                f"{line}): open it in a receiver of "
            ) in server.output


def test_a_sound_project_hears_nothing(env: Any) -> None:
    with serving(env=env()) as server:
        assert "workers will not" not in server.output
        assert "workers would share" not in server.output


IMPORTS = """

def note_modules(arbiter, worker):
    global inherited
    inherited = set(sys.modules)


def imported(request):
    from django.contrib.auth.models import User

    names = [user.username for user in User.objects.order_by("pk")[:1]]
    return JsonResponse({"names": names, "imported": sorted(set(sys.modules) - inherited)})


urlpatterns.append(path("imported/", imported))
"""


@pytest.mark.parametrize("pooled", [False, True])
def test_a_worker_imports_nothing_that_it_could_have_inherited(
    env: Any, site: Path, postgres: Postgres, pooled: bool
) -> None:
    """The ORM's compiler, the pool and what seeding needs cost each of four workers 0.9 MiB and more."""
    urls = site / "shop" / "urls.py"
    urls.write_text(f"import sys\n{urls.read_text()}{IMPORTS}")
    changed: dict[str, Any] = {"PRODSERVE": {"GUNICORN": {"post_fork": "shop.urls.note_modules"}}}
    if pooled:
        changed["DATABASES"] = {"default": postgres.settings("postgres", OPTIONS={"pool": True})}
    environ = env({"PYTHONWARNINGS": "ignore"}, **changed)
    assert run("manage.py", "migrate", "-v0", env=environ, cwd=site).returncode == 0
    with serving(env=environ, cwd=site) as server:
        assert server.get("/imported/").json() == {"names": [], "imported": []}


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_worker_started_is_sent_once_in_each_worker(
    env: Any, site: Path, tmp_path: Path, preload: str
) -> None:
    notes = tmp_path / "notes"
    with serving("--workers", "2", preload, env=env({"CLERK_NOTES": str(notes)}), cwd=site) as server:
        first = server.workers(2)
        until(lambda: len(told(notes)) == 2)
        assert sorted(told(notes)) == sorted(first)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(told(notes)) == 3)
        assert told(notes)[2] not in first
        assert server.get("/").status == 200
        # Each worker writes its note before the receiver that raises is called.
        until(lambda: said_by(server).count("RuntimeError: no exporter today") == 3)
        assert any("fail" in line for line in said_by(server))
        server.stop()
        expect_traceback(server)


def told(notes: Path) -> list[int]:
    """Return the pids that the receiver wrote down; Gunicorn's worker has the same."""
    pairs = [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []
    assert all(own == worker for own, worker in pairs)
    return [int(own) for own, _ in pairs]


def said_by(server: Server) -> list[str]:
    return server.output.splitlines()


def expect_traceback(server: Server) -> None:
    """The traceback was meant: ``serving`` looks for others."""
    server.lines = [line.replace("Traceback", "traceback") for line in server.lines]
