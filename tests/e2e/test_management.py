"""The management address: reached by who looks after the server, by nobody else, and always."""

from __future__ import annotations

import http.client
import os
import re
import signal
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .management import MANAGEMENT, address, ask
from .serving import Server, copy_site, run, serving, until

STUCK = ("--workers", "1", "--threads", "2", "--graceful-timeout", "1s")


def states(server: Server) -> list[str]:
    return [worker["state"] for worker in ask(server, "/status.json").json()["workers"]]


def test_the_management_address_tells_and_the_public_one_does_not(env: Any) -> None:
    with serving(*MANAGEMENT, "--workers", "2", "--access-log", "-", env=env()) as server:
        pids = server.workers(2)
        until(
            lambda: (
                [worker["state"] for worker in ask(server, "/status.json").json()["workers"]]
                == ["serving"] * 2
            )
        )
        answer = ask(server, "/status.json")
        known = answer.json()
        assert {worker["pid"] for worker in known["workers"]} == {*pids}
        assert known["generation"] == 1
        assert known["arbiter"] in server.arbiters()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert server.get("/").status == 200
        assert server.get("/status.json").status == 404
        assert [ask(server, path).status for path in ("/admin/", "/whoami/", "/static/x.css")] == [404] * 3
        assert ask(server, "/status.json", "HEAD").headers["content-length"].isdecimal()
        refused = ask(server, "/status.json", "POST", body=b"x")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        until(lambda: server.output.count(" HTTP/1.1") >= 2)  # an access line comes after its response
        logged = [line for line in server.output.splitlines() if "HTTP/1.1" in line]
        assert all(re.search(r'"GET /(status\.json)? HTTP/1.1" (200|404) ', line) for line in logged)
        assert len(logged) == 2


def test_a_page_elsewhere_cannot_point_its_own_name_here(env: Any) -> None:
    with serving(*MANAGEMENT, env=env()) as server:
        hosts = ("evil.example", "127.0.0.1.evil.example:9000", "127.0.0.1", "[::1]:9000", "monitor:9000")
        statuses = [ask(server, "/status.json", headers={"Host": host}).status for host in hosts]
        assert statuses == [403, 403, 200, 200, 200]


@pytest.mark.slow
def test_the_management_address_answers_when_every_thread_is_stuck(env: Any) -> None:
    with (
        serving(
            *MANAGEMENT, "--workers", "1", "--threads", "2", "--graceful-timeout", "1s", env=env()
        ) as server,
        ThreadPoolExecutor(2) as clients,
    ):
        stuck = [clients.submit(server.get, "/slow/?seconds=6") for _ in range(2)]
        until(lambda: ask(server, "/status.json").json()["workers"][0]["busy"] == 2)
        (worker,) = ask(server, "/status.json").json()["workers"]
        assert worker["oldest"]["path"] == "/slow/"
        assert not any(future.done() for future in stuck)


def test_a_connection_to_the_management_address_may_be_kept(env: Any) -> None:
    with serving(*MANAGEMENT, env=env()) as server:
        host, _, port = address(server).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        sockets = set()
        for _ in range(3):
            connection.request("GET", "/status.json")
            assert connection.getresponse().read()
            sockets.add(connection.sock)
        assert len(sockets) == 1
        connection.close()


def test_a_reload_keeps_the_management_address(env: Any, tmp_path: Path) -> None:
    site, path = copy_site(tmp_path), tmp_path / "manage.sock"
    with serving("--management-bind", f"unix:{path}", "--workers", "1", env=env(), cwd=site) as server:
        assert ask(server, "/status.json").json()["generation"] == 1
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
        told = run("-m", "django_prodserve", "reload", env=env(), cwd=site)
        assert told.returncode == 0, told.stderr
        until(lambda: ask(server, "/status.json").json()["generation"] == 2)
        assert server.get("/").status == 200
        assert server.get("/status.json").status == 404
    assert not path.exists()


def test_the_management_address_answers_while_the_last_requests_do(env: Any) -> None:
    with serving(*MANAGEMENT, "--workers", "1", env=env()) as server, ThreadPoolExecutor(1) as client:
        slow = client.submit(server.get, "/slow/?seconds=4")
        until(lambda: ask(server, "/status.json").json()["workers"][0]["busy"] == 1)
        os.kill(server.process.pid, signal.SIGTERM)
        until(lambda: states(server) == ["retiring"])
        assert ask(server, "/readyz").text == "draining\n"
        assert ask(server, "/livez").text == "ok\n"
        with pytest.raises(ConnectionRefusedError):
            server.get("/")
        assert slow.result().status == 200
        assert server.process.wait(timeout=30) == 0


def test_gunicorns_own_workers_say_that_nobody_answers_there(env: Any) -> None:
    with serving(*MANAGEMENT, "-k", "gthread", "--workers", "1", env=env()) as server:
        assert "warning: Nothing answers on 127.0.0.1:0 (--management-bind)" in server.output
        assert not [line for line in server.lines if line.startswith("management ")]
        assert server.get("/").status == 200


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--management-bind", "nonsense"),
            "--management-bind: 'nonsense' lacks a port.",
        ),
        (("--management-bind", "fd://3"), "--management-bind: 'fd://3' cannot be the management address."),
        (
            ("--management-bind", ":8000", "--bind", "0.0.0.0:8000"),
            "--management-bind 127.0.0.1:8000 is the address of the site",
        ),
        (
            ("--management-bind", "unix:x.sock", "--bind", "unix:./x.sock"),
            "is the address of the site itself",
        ),
        (("--management-bind", "192.0.2.1:9000"), "192.0.2.1:9000 is not an address of this machine."),
    ],
)
def test_what_is_wrong_with_it_is_one_line(env: Any, flags: tuple[str, ...], told: str) -> None:
    ended = run("manage.py", "prodserve", "--bind", "127.0.0.1:0", *flags, env=env())
    assert ended.returncode != 0
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_management_port_is_told_at_once(env: Any) -> None:
    with serving(env=env()) as other:
        ended = run(
            "manage.py", "prodserve", "--bind", "127.0.0.1:0", "--management-bind", str(other.port), env=env()
        )
        assert ended.returncode == 1
        assert f"127.0.0.1:{other.port} is already in use" in ended.stderr
        assert f"by this project's server (pid {other.process.pid})" in ended.stderr
