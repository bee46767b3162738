"""``status`` and ``dump``: what the running server does, told by a command of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from django_prodserve.supervisor import run_directory

from .serving import copy_site, run, serving, until

STATUS = ("-m", "django_prodserve", "status")


def place(project: Path) -> Path:
    """Return the private place of the one server that runs here."""
    # pytest leads to its directories by links, and a server knows its directory by a link that leads there.
    here = [
        where for where, record in run_directory.running() if os.path.samefile(record["project"], project)
    ]
    (found,) = here
    return found


def test_status_tells_what_every_worker_does(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "2", "--threads", "3", env=env(), cwd=site) as server:
        pids = server.workers(2)
        assert server.get("/").status == 200
        (site / "shop" / "settings.py").write_text("this is broken")
        started = time.monotonic()
        told = run(*STATUS, "--json", env=env(), cwd=site)
        assert time.monotonic() - started < 5  # 0.15 s on a quiet machine
        assert told.returncode == 0, told.stderr
        known = json.loads(told.stdout)
        assert known["pid"] == server.process.pid
        children = psutil.Process(known["pid"]).children()
        assert known["arbiter"] in {known["pid"], *(child.pid for child in children)}
        assert known["generation"] == 1
        assert 0 <= known["uptime"] < 60
        assert known["uptime"] - 1 < known["server_uptime"] < 120
        assert (known["verdict"], known["failed_reload"]) == ("ok", None)
        assert known["profile"] == "io"
        assert {worker["pid"] for worker in known["workers"]} == {*pids}
        for worker in known["workers"]:
            assert worker["threads"] == 3
            assert worker["memory"] > 2**20
            assert worker["cpu"] >= 0
        people = run(*STATUS, env=env(), cwd=site).stdout
        assert people.splitlines()[0] == "Serving normally"
        assert people.splitlines()[1].startswith(f"server    pid {known['pid']} on 127.0.0.1:")
        assert re.fullmatch(r"release   generation 1, loaded \d+ s ago", people.splitlines()[2])
        assert "start: Generation 1 serves with 2 workers" in people
        assert f"worker    pid {pids[0]} serving, age " in people


def test_the_board_is_private_and_goes_with_the_server(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        server.workers(2)
        where = place(site)
        files = list(where.iterdir())
        assert any(file.name == "board-1" for file in files)
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert file.stat().st_uid == os.geteuid()
    assert not where.exists()


def test_without_a_server_status_says_so(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    for action in ("status", "dump"):
        told = run("-m", "django_prodserve", action, env=env(), cwd=site)
        assert told.returncode == 1
        assert told.stderr.startswith(f"prodserve: error: No server is running for the project in {site}.")
        assert "Traceback" not in told.stderr


def test_status_through_manage_py(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        pids = server.workers(2)
        told = run("manage.py", "prodserve", "status", env=env(), cwd=site)
        assert f"pid {pids[0]} " in told.stdout, told.stderr


def test_status_fails_while_something_is_wrong(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", env=env(), cwd=site) as server:
        (pid,) = server.workers(1)
        urls = site / "shop" / "urls.py"
        urls.write_text(urls.read_text() + "\nthis is broken\n")
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 1
        warned = run(*STATUS, env=env(), cwd=site)
        assert warned.returncode == 0, warned.stderr
        assert re.match(r"!  .*reload failed.*NameError", warned.stdout), warned.stdout
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.workers(1) != [pid])
        failed = run(*STATUS, env=env(), cwd=site)
        assert failed.returncode == 1, failed.stdout
        assert failed.stdout.startswith("!! ")
        known = json.loads(run("manage.py", "prodserve", "status", "--json", env=env(), cwd=site).stdout)
        assert known["verdict"] == "bad"
        assert "NameError" in known["failed_reload"]


def test_check_beside_the_server_names_it_and_tries_no_address_of_it(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        address = f"127.0.0.1:{server.port}"
        for command in (("manage.py", "prodserve"), ("-m", "django_prodserve")):
            ended = run(*command, "check", "--bind", address, "--json", env=env(), cwd=site)
            assert ended.returncode == 0, ended.stderr
            found = json.loads(ended.stdout)
            assert (found["ready"], found["errors"]) == (True, [])
            assert f"(pid {server.process.pid}) serves {address}" in found["notes"][0]
            assert all({"code", "message"} <= warning.keys() for warning in found["warnings"])
        # Another project's server is in the way.
        elsewhere = copy_site(tmp_path / "elsewhere")
        ended = run("-m", "django_prodserve", "check", "--bind", address, "--json", env=env(), cwd=elsewhere)
        assert ended.returncode == 1
        found = json.loads(ended.stdout)
        assert (found["ready"], found["errors"][0]["code"]) == (False, "port-in-use")


def test_dump_shows_requests_and_one_line_for_idle_threads(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", "--threads", "4", env=env(), cwd=site) as server:
        pids = server.workers(1)
        dumped = run("-m", "django_prodserve", "dump", env=env(), cwd=site).stdout
        assert dumped.startswith(f"worker {pids[0]} (serving), busy 0/4\n")
        assert re.search(r"^\d idle threads of the server: .*poller", dumped, re.MULTILINE)
        assert "most recent call first" not in dumped


def test_reports_end_quietly_with_their_reader(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", env=env(), cwd=site):
        for words in (("status",), ("status", "--json"), ("dump",)):
            reader, number = os.pipe()
            os.close(reader)
            command = [sys.executable, "-m", "django_prodserve", *words]
            with os.fdopen(number, "wb") as out:
                ended = subprocess.run(command, cwd=site, env=env(), stdout=out, stderr=subprocess.PIPE)
            assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")
