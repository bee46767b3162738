"""The supervisor stays: small, private, and there when the rest of the server is not."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest

from .serving import PATIENCE, Server, copy_site, run, serving, until
from .test_reload import RELOAD, Load
from .test_stop import in_flight


def places() -> dict[int, Path]:
    """Return the private places of all servers by their pid."""
    bases = [Path(os.environ.get("XDG_RUNTIME_DIR", "/")), Path(f"/run/user/{os.getuid()}"), Path("/dev/shm")]
    found = [place for base in bases for place in base.glob(f"prodserve-{os.getuid()}/*")]
    return {int(place.name.rpartition("-")[2]): place for place in found}


def until_all_is_ready(server: Server) -> None:
    """Wait until the supervisor knows that all workers serve: what ends sooner has failed to start."""
    until(lambda: json.loads((places()[server.process.pid] / "server.json").read_text())["ready"])


def test_it_is_small_and_its_place_is_private_and_goes_with_it(env: Any, tmp_path: Path) -> None:
    with serving(env=env(), cwd=copy_site(tmp_path)) as server:
        supervisor = psutil.Process(server.process.pid)
        assert supervisor.memory_full_info().pss <= 8 * 2**20
        assert len(supervisor.open_files()) + len(supervisor.net_connections()) <= 6
        place = places()[supervisor.pid]
        for path in (place.parent, place):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert json.loads((place / "server.json").read_text())["pid"] == supervisor.pid
        assert stat.S_IMODE((place / "server.json").stat().st_mode) == 0o600
        assert server.stop() == 0
        assert not place.exists()


def test_a_killed_arbiter_is_replaced_and_no_request_is_lost(env: Any, tmp_path: Path) -> None:
    with serving("--workers", "2", env=env(), cwd=copy_site(tmp_path)) as server:
        until_all_is_ready(server)
        killed = server.arbiters()[0]
        with Load(server.port, clients=2) as load:
            os.kill(killed, signal.SIGKILL)
            server.wait_for("was ended by SIGKILL; starting another")
            until(lambda: killed not in server.arbiters() and len(server.workers()) >= 2)
            until(lambda: len(load.answers) > 20)
        assert load.failures == []
        until(lambda: len(server.arbiters()) == 1)


def test_nobody_outlives_a_killed_supervisor(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        server.workers(2)
        family = psutil.Process(server.process.pid).children(recursive=True)
        address = server.address.removeprefix("http://")
        place = places()[server.process.pid]
        server.process.kill()
        assert psutil.wait_procs(family, PATIENCE)[1] == []
        ended = run("-m", "django_prodserve", "stop", env=env(), cwd=site)  # a file is no server
        assert "No server is running" in ended.stderr
        with serving(env=env(), cwd=site, bind=("--bind", address)):
            assert not place.exists()
        server.process.wait()


def test_after_a_kill_a_service_manager_starts_it_again_at_once(env: Any, tmp_path: Path) -> None:
    """Workers that still answer hold the port: the new server waits for it."""
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        address = server.address.removeprefix("http://")
        with in_flight(server, 1, 2.0) as answers:
            flags = ("--bind", address)
            server.process.kill()
            server.process.wait()
            with serving(env=env(), cwd=site, bind=flags) as second:
                assert second.get("/").text == "hello"
    assert [getattr(answer, "status", answer) for answer in answers] == [200]


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_workers_do_not_outlive_a_killed_arbiter_without_a_supervisor(env: Any, worker_class: str) -> None:
    with serving("--no-supervisor", "--worker-class", worker_class, env=env()) as server:
        workers = [psutil.Process(pid) for pid in server.workers(2)]
        server.process.kill()
        assert psutil.wait_procs(workers, PATIENCE)[1] == []


@pytest.mark.slow
def test_an_orphan_that_holds_the_gil_is_killed(env: Any) -> None:
    """Nothing in it can hear that its arbiter is gone; the others answer what they have."""
    flags = ("--supervisor", "--workers", "2", "--graceful-timeout", "3s")
    with serving(*flags, env=env()) as server:
        workers = [psutil.Process(pid) for pid in server.workers(2)]
        (arbiter,) = server.arbiters()
        until_all_is_ready(server)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /hold-gil/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            dump = ("-m", "django_prodserve", "dump", "--bind", str(server.port))
            until(lambda: "in hold_gil" in run(*dump, env=env()).stdout)
            os.kill(arbiter, signal.SIGKILL)
            server.wait_for("was ended by SIGKILL; starting another")
            assert psutil.wait_procs(workers, PATIENCE)[1] == []
        until(lambda: arbiter not in server.arbiters() and len(server.workers()) == 2)
        assert server.get("/").text == "hello"


STUCK_AT_BOOT = """
import re
from django_prodserve.signals import worker_started
def hold_gil(**kwargs):
    re.match(r"(a+)+$", "a" * 60 + "b")
worker_started.connect(hold_gil, weak=False)
"""


def test_where_the_arbiter_is_killed_before_all_is_ready_nobody_is_left(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, STUCK_AT_BOOT)
    with serving("--supervisor", "--workers", "2", env=env(), cwd=site, address="none yet") as server:
        server.wait_for("starting the workers: 0/2")
        workers = [psutil.Process(pid) for pid in server.workers(2)]
        os.kill(server.arbiters()[0], signal.SIGKILL)
        server.wait_for("The server was ended by SIGKILL before all workers were ready.")
        assert server.process.wait(PATIENCE) == 128 + signal.SIGKILL
        assert psutil.wait_procs(workers, PATIENCE)[1] == []


def test_a_unix_socket_stays_the_same_over_reloads_and_is_removed_at_the_end(
    env: Any, tmp_path: Path
) -> None:
    site, path = copy_site(tmp_path), tmp_path / "shop.sock"
    with serving(env=env(), cwd=site, bind=("--bind", f"unix:{path}")) as server:
        inode = path.stat().st_ino
        ended = run(*RELOAD, "--bind", f"unix:{path}", env=env(), cwd=site)
        assert ended.returncode == 0, ended.stderr
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
        assert not path.exists()


def test_a_server_that_cannot_start_ends_with_its_reason(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "urls.py").write_text("import nothing_of_this_name\n")
    ended = run("manage.py", "prodserve", "--bind", "127.0.0.1:0", env=env(), cwd=site)
    assert ended.returncode == 1
    assert "nothing_of_this_name" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_threads_of_the_project_are_not_lost_in_a_fork(env: Any, tmp_path: Path) -> None:
    """With one running, the first generation is started anew, as all later ones are."""
    site = copy_site(tmp_path)
    (site / "shop" / "apps.py").write_text(
        "import threading\n"
        "from django.apps import AppConfig\n\n"
        "class Shop(AppConfig):\n"
        "    name = 'shop'\n"
        "    def ready(self):\n"
        "        threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
    )
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + "INSTALLED_APPS.append('shop.apps.Shop')\n")
    with serving(env=env(), cwd=site) as server:
        assert "workers will not have the thread 'poller'" in server.output
        assert psutil.Process(server.arbiters()[0]).num_threads() > 1


def test_gunicorns_pid_file_names_the_pid_that_stays(env: Any, tmp_path: Path) -> None:
    site, file = copy_site(tmp_path), tmp_path / "shop.pid"
    settings = {"PRODSERVE": {"GUNICORN": {"pidfile": str(file)}}}
    with serving(env=env(**settings), cwd=site) as server:
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert int(file.read_text()) == server.process.pid
        assert server.stop() == 0
        assert not file.exists()


def test_what_cannot_start_again_is_tried_again_until_it_can(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    text = settings.read_text()
    with serving(env=env(), cwd=site) as server:
        until(lambda: json.loads((places()[server.process.pid] / "server.json").read_text())["ready"])
        settings.write_text(f"{text}\n1/0\n")
        os.kill(server.arbiters()[0], signal.SIGKILL)
        line = server.wait_for("Generation 2 cannot start")
        assert "ZeroDivisionError" in line
        assert "settings.py, line " in line
        settings.write_text(text)
        until(
            lambda: len(server.arbiters()) == 1 and len(psutil.Process(server.arbiters()[0]).children()) == 2
        )
        assert server.get("/").text == "hello"
        server.lines = [line for line in server.output.splitlines() if "Traceback" not in line]
