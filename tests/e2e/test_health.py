"""Probes are answered whatever the project's settings, its threads, its database or the traffic do."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .management import MANAGEMENT, ask
from .postgres import cluster
from .serving import Response, Server, copy_site, run, serving, until

ONE = ("--workers", "1", "--threads", "2", "--graceful-timeout", "1s")
CLASSES = ["prodserve", "gthread", "sync"]
FOREIGN = {"Host": "10.1.2.3:8080"}


def probe(server: Server, path: str = "/readyz") -> Response:
    return server.get(path, headers=FOREIGN)


@pytest.mark.parametrize("kind", CLASSES)
def test_no_setting_of_the_project_comes_before_the_probes(env: Any, kind: str) -> None:
    strict = env(SECURE_SSL_REDIRECT=True, ALLOWED_HOSTS=["shop.example"])
    flags = ("-k", kind, "--workers", "1", "--access-log", "-")
    with serving(*flags, env=strict) as server:
        assert "health    /livez and /readyz, before Django" in server.output
        for path in ("/livez", "/readyz"):
            answer = probe(server, path)
            assert (answer.status, answer.text) == (200, "ok\n")
            assert answer.headers["cache-control"] == "no-store"
            head = server.get(path, "HEAD", headers=FOREIGN)
            assert (head.status, head.text, head.headers["content-length"]) == (200, "", "3")
            assert server.get(path, "POST", headers=FOREIGN, body=b"x").status == 405
        assert probe(server, "/").status == 400  # the site itself refuses this host
        until(lambda: '"GET / HTTP/1.1" 400' in server.output)
        assert "livez HTTP" not in server.output.replace('"POST /livez HTTP', "")


def test_the_paths_are_configurable_and_can_be_off(env: Any) -> None:
    with serving("--health-paths", "/alive,/able/", *MANAGEMENT, env=env()) as server:
        assert [probe(server, path).status for path in ("/alive", "/able/")] == [200, 200]
        assert server.get("/livez").status == 404
        assert ask(server, "/able/").text == "ok\n"
    with serving(*MANAGEMENT, env=env(PRODSERVE={"HEALTH_PATHS": False})) as server:
        assert server.get("/livez").status == 404
        assert "health " not in server.output
        assert ask(server, "/livez").text == ask(server, "/readyz").text == "ok\n"


def test_a_route_of_the_projects_own_wins(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    urls = site / "shop" / "urls.py"
    urls.write_text(
        urls.read_text().replace('    path("", hello),', '    path("", hello), path("livez", whoami),')
    )
    with serving(env=env(), cwd=site) as server:
        assert "health    /readyz, before Django; the project's own /livez" in server.output
        assert "meta" in server.get("/livez").json()
        assert probe(server, "/livez").status == 400
        assert probe(server, "/readyz").status == 200


@pytest.mark.slow
def test_probes_are_answered_when_every_thread_hangs(env: Any) -> None:
    with serving(*ONE, *MANAGEMENT, env=env()) as server, ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(server.get, "/slow/?seconds=3") for _ in range(6)]
        until(lambda: ask(server, "/status.json").json()["workers"][0]["busy"] == 2)
        seconds = []
        for path in ("/livez", "/readyz") * 5:
            started = time.monotonic()
            assert probe(server, path).status == 200
            seconds.append(time.monotonic() - started)
        assert statistics.median(seconds) < 0.1
        assert not all(future.done() for future in asked)


@pytest.mark.parametrize("kind", CLASSES)
def test_readiness_turns_red_while_the_server_drains_and_life_stays_green(env: Any, kind: str) -> None:
    with serving("-k", kind, "--workers", "1", "--drain-delay", "3s", env=env()) as server:
        assert probe(server).status == 200
        os.kill(server.process.pid, signal.SIGTERM)
        until(lambda: probe(server).status == 503)
        assert probe(server).text == "draining\n"
        assert probe(server, "/livez").status == 200
        assert server.get("/").status == 200
        assert server.process.wait(timeout=30) == 0


def test_a_worker_that_is_replaced_makes_nobody_unready(env: Any) -> None:
    with serving("--workers", "2", "--max-requests", "40", "--max-requests-jitter", "0", env=env()) as server:
        before = {*server.workers(2)}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        statuses = set()
        while before & {*server.workers(2)}:
            assert server.get("/").status == 200
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            statuses.add((answer.status, answer.read()))
        assert statuses == {(200, b"ok\n")}
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_the_database_is_asked_where_the_project_says_so(env: Any, tmp_path: Path, kind: str) -> None:
    environ = env(PRODSERVE={"READINESS_CHECKS": ["database"]})
    database = Path(environ["SITE_DATABASE"])
    assert run("manage.py", "migrate", "-v0", env=environ).returncode == 0
    with serving("-k", kind, *ONE, env=environ) as server:
        assert probe(server).status == 200
        away = database.rename(tmp_path / "away.sqlite3")
        until(lambda: probe(server).status == 503)
        assert probe(server).text == "database\n"
        assert probe(server, "/livez").status == 200
        away.rename(database)
        until(lambda: probe(server).status == 200)
        server.wait_for("The check database raised FileNotFoundError")
        server.wait_for("The check database passes again.")


@pytest.mark.slow
def test_a_database_server_that_is_away_is_told_and_comes_back(env: Any) -> None:
    with cluster() as postgres, contextlib.ExitStack() as runs:
        runs.enter_context(postgres.running())
        databases = {"default": postgres.settings("postgres", OPTIONS={"pool": True})}
        environ = env(DATABASES=databases, PRODSERVE={"READINESS_CHECKS": ["database"]})
        with serving(*ONE, "--skip-checks", env=environ) as server:
            assert probe(server).status == 200
            runs.close()
            until(lambda: probe(server).text == "database\n")
            assert probe(server, "/livez").status == 200
            with postgres.running():
                until(lambda: probe(server).status == 200)


def test_checks_of_the_project(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "ready.py").write_text(
        "import time\n\n\ndef queue():\n    return False\n\n\ndef search():\n    time.sleep(60)\n"
    )
    with serving(
        *ONE, "--readiness-checks", "shop.ready.queue,shop.ready.search", env=env(), cwd=site
    ) as server:
        assert probe(server, "/livez").status == 200  # the worker has waited for the first look until now
        started = time.monotonic()
        answer = probe(server)
        assert (answer.status, answer.text) == (503, "queue\nsearch\n")
        assert time.monotonic() - started < 1
    ended = run(
        "manage.py",
        "prodserve",
        "--bind",
        "127.0.0.1:0",
        "--readiness-checks",
        "shop.nope",
        env=env(),
        cwd=site,
    )
    assert ended.returncode == 2
    assert "--readiness-checks holds 'shop.nope', but the module shop has no nope." in ended.stderr
    assert ended.stdout == ""  # it is found before the banner
    assert "Traceback" not in ended.stderr
    ended = run("manage.py", "prodserve", "--readiness-checks", "databse", env=env(), cwd=site)
    assert "--readiness-checks is 'databse', but must be a list of database and dotted paths" in ended.stderr


class Flood:
    """Clients that ask for a slow view again and again, ten times what the threads can answer."""

    def __init__(self, server: Server, clients: int) -> None:
        self.server, self.over = server, threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        while not self.over.wait(0.01):
            try:
                connection.request("GET", "/slow/?seconds=0.1")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
        connection.close()

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *ending: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
def test_a_standing_overload_is_told_quickly_and_is_over_with_the_load(env: Any) -> None:
    with serving(*ONE, *MANAGEMENT, "--queue-timeout", "200ms", env=env()) as server:
        seconds: list[float] = []

        def is_saturated() -> bool:
            started = time.monotonic()
            answer = probe(server)
            seconds.append(time.monotonic() - started)
            return answer.text == "saturated\n"

        started = time.monotonic()
        with Flood(server, 40):
            until(is_saturated)
            assert time.monotonic() - started >= 10
            assert probe(server, "/livez").status == 200
        until(lambda: probe(server).status == 200)
        assert statistics.median(seconds) < 0.1
