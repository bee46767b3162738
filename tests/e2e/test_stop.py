"""Stopping loses nothing, takes no longer than was promised, and leaves nobody behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from .serving import PATIENCE, Response, Server, copy_site, run, serving, until

SUPERVISORS = pytest.mark.parametrize("supervisor", ["--supervisor", "--no-supervisor"])
CLASSES = pytest.mark.parametrize("worker_class", ["gthread", "sync"])


@contextmanager
def in_flight(server: Server, count: int, seconds: float) -> Iterator[list[Response | Exception]]:
    """Let some requests run; at the end wait for what became of them."""
    answers: list[Response | Exception] = []

    def ask() -> None:
        try:
            answers.append(server.get(f"/slow/?seconds={seconds}"))
        except Exception as error:  # whatever a client sees
            answers.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: established(server) >= count)
    time.sleep(0.3)  # from accepted to running in a view
    yield answers
    for thread in threads:
        thread.join()


def established(server: Server) -> int:
    """Return how many connections the workers have accepted."""
    found = 0
    for pid in server.workers():
        connections = psutil.Process(pid).net_connections("tcp")
        found += sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)
    return found


def refuses(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        return client.connect_ex(("127.0.0.1", port)) != 0


@SUPERVISORS
@CLASSES
def test_running_requests_are_answered_when_every_process_is_signalled(
    env: Any, supervisor: str, worker_class: str
) -> None:
    """As Heroku, systemd and pkill do it, workers first."""
    with (
        serving(supervisor, "--workers", "2", "--worker-class", worker_class, env=env()) as server,
        in_flight(server, 2, 2.0) as answers,
    ):
        pids = [*server.workers(), *server.arbiters()]
        for _ in range(3):
            for pid in pids:
                with suppress(ProcessLookupError):  # a worker without a request may be gone by now
                    os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert [getattr(answer, "status", answer) for answer in answers] == [200, 200]


@SUPERVISORS
def test_the_drain_delay_serves_on_then_the_listener_closes(env: Any, supervisor: str) -> None:
    flags = [supervisor, "--drain-delay", "1.5", "--graceful-timeout", "10"]
    with serving(*flags, env=env()) as server:
        server.get("/")
        begun = time.monotonic()
        for pid in (*server.workers(), server.process.pid):
            os.kill(pid, signal.SIGTERM)
        served = 0
        while time.monotonic() - begun < 1.0:
            assert server.get("/").text == "hello"  # a new connection each time
            served += 1
        assert served > 5
        assert server.process.wait(PATIENCE) == 0
        assert 1.5 <= time.monotonic() - begun < 1.5 + 10
        assert refuses(server.port)


@SUPERVISORS
def test_the_listener_is_closed_while_the_last_requests_run(env: Any, supervisor: str) -> None:
    with serving(supervisor, env=env()) as server, in_flight(server, 2, 3.0) as answers:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server.port))
        assert server.process.poll() is None
        assert server.process.wait(PATIENCE) == 0
    assert [getattr(answer, "status", answer) for answer in answers] == [200, 200]


@pytest.mark.slow
@SUPERVISORS
@CLASSES
def test_who_waits_to_be_accepted_is_answered_too(env: Any, supervisor: str, worker_class: str) -> None:
    """One request at a time: the others wait in the listener's queue, where Gunicorn would reset them."""
    flags = [supervisor, "--workers", "1", "--threads", "1", "--worker-class", worker_class]
    with serving(*flags, env=env()) as server, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(4):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            client.sendall(b"GET /slow/?seconds=0.5 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            clients.append(client)
        until(lambda: established(server) >= 1)
        assert server.stop() == 0
        assert [client.recv(15) for client in clients] == [b"HTTP/1.1 200 OK"] * 4


@SUPERVISORS
def test_what_does_not_finish_is_cut_at_the_graceful_timeout(env: Any, supervisor: str) -> None:
    with (
        serving(supervisor, "--graceful-timeout", "1", env=env()) as server,
        in_flight(server, 2, 10) as answers,
    ):
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 6
    assert [answer for answer in answers if isinstance(answer, Response)] == []


@pytest.mark.parametrize("path", ["/deadlock/", "/hold-gil/"])
@pytest.mark.parametrize("worker_class", ["prodserve", "gthread"])
def test_what_does_not_finish_is_logged_with_its_stack(env: Any, path: str, worker_class: str) -> None:
    flags = ("--workers", "1", "--graceful-timeout", "2s", "--worker-class", worker_class)
    function = f"in {path.strip('/').replace('-', '_')}"
    with (
        serving(*flags, env=env()) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        dump = ("-m", "django_prodserve", "dump", "--bind", str(server.port))
        until(lambda: function in run(*dump, env=env()).stdout)
        begun = time.monotonic()
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - begun < 2 + 1 + 4  # on a machine that is busy
        line = server.wait_for("did not finish in time")
        assert (f"Request GET {path} [" in line) == (worker_class == "prodserve")
        server.wait_for(function)


@SUPERVISORS
def test_the_first_interrupt_is_graceful_and_the_second_stops_at_once(env: Any, supervisor: str) -> None:
    with serving(supervisor, env=env()) as server, in_flight(server, 2, 10):
        server.process.send_signal(signal.SIGINT)
        until(lambda: refuses(server.port))
        begun = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - begun < 7
        assert "[INFO] Stopping: 2 requests running, at most 25 s." in server.output
        assert re.search(
            r"\[INFO\] Stopped after \d\.\d s: 2 requests aborted\.$", server.output, re.MULTILINE
        )
        assert "Traceback" not in server.output


def test_ctrl_c_in_a_terminal_reaches_a_whole_group_and_is_graceful(env: Any) -> None:
    with (
        serving("--no-supervisor", env=env()) as server,
        in_flight(server, 1, 1.5) as answers,
    ):
        workers = server.workers()
        for pid in (*workers, server.process.pid):
            os.kill(pid, signal.SIGINT)
        until(lambda: refuses(server.port))
        for pid in workers:  # late: their arbiter has told them to stop by now, but not at once
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
    assert [getattr(answer, "status", answer) for answer in answers] == [200]


@pytest.mark.parametrize(
    "command",
    [("-m", "django_prodserve", "stop"), ("manage.py", "prodserve", "stop")],
    ids=["-m", "manage.py"],
)
@SUPERVISORS
def test_the_command_waits_until_the_server_has_stopped(
    env: Any, tmp_path: Any, command: Any, supervisor: str
) -> None:
    site = copy_site(tmp_path)
    with serving(supervisor, env=env(), cwd=site) as server, in_flight(server, 1, 1.0) as answers:
        ended = run(*command, env=env(), cwd=site)
        assert ended.returncode == 0, ended.stderr
        assert f"stopped: pid {server.process.pid} on 127.0.0.1:0" in ended.stdout
        server.wait_for("[INFO] Stopped after ")
        assert server.output.count("[INFO] Stopping: ") == 1
        assert server.output.count("[INFO] Stopped after ") == 1
        assert server.process.wait(PATIENCE) == 0
    assert [getattr(answer, "status", answer) for answer in answers] == [200]


def test_control_needs_no_settings(env: Any, tmp_path: Any) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        (site / "shop" / "settings.py").write_text("1/0\n")
        ended = run("-X", "importtime", "-m", "django_prodserve", "stop", env=env(), cwd=site)
        assert ended.returncode == 0, ended.stderr
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
        assert not {"django", "gunicorn", "psutil"} & imported
        assert server.process.wait(PATIENCE) == 0


def test_a_closed_terminal_stops_it(env: Any, tmp_path: Any) -> None:
    """SIGHUP means to reload otherwise; here it would leave a server behind that nobody sees."""
    master, slave = os.openpty()
    script = (
        "import fcntl, os, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, 'manage.py', 'prodserve', '--bind', '127.0.0.1:0'])\n"
    )
    site = copy_site(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=site,
        env=env(),
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.close(slave)
        server = Server(process)
        server.address = server.wait_for(" ready in ").split()[0]
        assert server.get("/").text == "hello"
        os.close(master)
        assert process.wait(PATIENCE) == 0
        server._reader.join(PATIENCE)
        assert "Reload" not in server.output


@pytest.mark.parametrize(("module", "action"), [("control", "stop"), ("status", "status")])
def test_it_belongs_to_someone_else(env: Any, tmp_path: Any, module: str, action: str) -> None:
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    site = copy_site(tmp_path)
    act = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        f"from django_prodserve.cli import {module}\n"
        "from django_prodserve.errors import ProdserveError\n"
        f"try: {module}.run({action!r}, None, print)\n"
        "except ProdserveError as error: sys.exit(str(error))\n"
    )
    with serving(env=env(), cwd=site) as server:
        for name in (
            "psutil",
            f"django_prodserve.cli.{module}",
        ):  # loaded while they may be read
            act = f"import {name}\n{act}"
        ended = run("-c", act, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "No server is running for the project" in ended.stderr
        assert f"(pid {server.process.pid})" in ended.stderr
        assert "Run this command as that user" in ended.stderr


@pytest.mark.parametrize("supervisor", ["--supervisor", "--no-supervisor"])
def test_a_signal_before_it_serves_ends_it_without_a_traceback(
    env: Any, supervisor: str, tmp_path: Any
) -> None:
    site, gate = copy_site(tmp_path), tmp_path / "gate"
    os.mkfifo(gate)
    urls = site / "shop" / "urls.py"
    urls.write_text(f"open({str(gate)!r}).read()\n" + urls.read_text())
    with subprocess.Popen(
        [sys.executable, "manage.py", "prodserve", supervisor, "--bind", "127.0.0.1:0"],
        cwd=site,
        env=env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        with gate.open("w"):  # opens when the server is in the middle of loading
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGTERM
        assert "Traceback" not in said


@pytest.mark.parametrize(("supervisor", "number"), [("--supervisor", "TERM"), ("--no-supervisor", "INT")])
def test_a_signal_in_a_finalizer_ends_the_start_too(
    env: Any, tmp_path: Any, supervisor: str, number: str
) -> None:
    """Python drops the exceptions of a finalizer; another one of those reports as ever."""
    site = copy_site(tmp_path)
    urls = site / "shop" / "urls.py"
    gone = "import os, signal, time, weakref\nclass Gone: pass\n"
    for act in ("1 / 0", f"os.kill(os.getpid(), signal.SIG{number})"):
        gone += f"gone = Gone(); weakref.finalize(gone, lambda: {act}); del gone\n"
    urls.write_text(gone + f"time.sleep({2 * PATIENCE})\n" + urls.read_text())
    ended = run("manage.py", "prodserve", supervisor, "--bind", "127.0.0.1:0", env=env(), cwd=site)
    assert ended.returncode == 128 + getattr(signal, f"SIG{number}"), ended.stderr
    assert ended.stderr.count("Exception ignored") == ended.stderr.count("ZeroDivisionError") == 1
