"""The main job: a real project, a real port, real clients, real signals."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.speedups import asgiref_locals

from .needs import need_program
from .serving import PATIENCE, SITE, complaints, copy_site, run, serving

COMMANDS = [("manage.py", "prodserve"), ("-m", "django_prodserve")]


@pytest.mark.parametrize("command", COMMANDS, ids=["manage.py", "-m"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_it_serves_says_so_and_stops_cleanly(env: Any, command: Any, number: int) -> None:
    with serving(env=env(), command=command) as server:
        assert server.get("/").text == "hello"
        said = server.output
        assert re.search(r"workers +\d+ x 16 threads: ", said)
        assert re.search(r"static +\d+ files", said)
        assert re.search(r"database +default: SQLite db.sqlite3", said)
        assert "gunicorn" not in said.lower()
        assert server.stop(number) == 0
        assert "Traceback" not in server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("attempt", range(3))
def test_a_stop_right_after_the_start_is_not_lost(env: Any, number: int, attempt: int) -> None:
    """A worker that missed the signal would be waited for until the graceful timeout."""
    with serving("--workers", "4", "--graceful-timeout", "10m", env=env()) as server:
        assert server.stop(number) == 0


def test_the_settings_that_are_loaded_serve_whatever_wsgi_py_says(env: Any) -> None:
    with serving(env=env()) as server:
        assert server.get("/settings/").text == "shop.settings shop.settings"


def test_a_custom_wsgi_application_is_kept(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "own.py").write_text(
        "from django.core.wsgi import get_wsgi_application\n"
        "django = get_wsgi_application()\n"
        "def app(environ, start_response):\n"
        "    def start(status, headers, exc_info=None):\n"
        "        return start_response(status, [*headers, ('X-Own', 'yes')], exc_info)\n"
        "    return django(environ, start)\n"
    )
    with serving(env=env(WSGI_APPLICATION="shop.own.app"), cwd=site) as server:
        assert server.get("/").headers["x-own"] == "yes"


LOCKED = """
from django.utils import translation
LOCKED, TRANSLATED = threading.Event(), threading.Event()

def locked(request):
    from django.utils.translation.trans_real import _active
    has = vars(_active)
    with has.get("_lock") or has["_thread_lock"]:
        LOCKED.set()
        return HttpResponse(str(TRANSLATED.wait(10)))

def translated(request):
    LOCKED.wait(10)
    language = translation.get_language()
    TRANSLATED.set()
    return HttpResponse(str(language))

urlpatterns += [path("locked/", locked), path("translated/", translated)]
"""


@pytest.mark.skipif(bool(asgiref_locals.why_not()), reason=asgiref_locals.why_not())
@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_a_request_that_looks_up_its_language_waits_for_no_other(
    env: Any, tmp_path: Path, preload: str
) -> None:
    site = copy_site(tmp_path, LOCKED)
    with serving("--workers", "1", preload, env=env(), cwd=site) as server, ThreadPoolExecutor() as clients:
        locked = clients.submit(server.get, "/locked/")
        assert server.get("/translated/").text == "en-us"
        assert locked.result().text == "True"


def connects(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(PATIENCE)
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_the_port_is_taken_first_and_listens_last(env: Any, tmp_path: Path, preload: str) -> None:
    site = copy_site(tmp_path)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    urls = site / "shop" / "urls.py"
    # Loading waits until the test opens the gate; only the first load does, then the gate is gone.
    urls.write_text(
        f"import os\nif os.path.exists({str(gate)!r}):\n    open({str(gate)!r}).read()\n" + urls.read_text()
    )
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "manage.py", "prodserve", preload, "--bind", f"127.0.0.1:{port}"],
        cwd=site,
        env=env(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            with gate.open("w"):  # opens when the server is in the middle of loading
                assert not connects(port)
                gate.unlink()
            for line in process.stdout:
                if " ready in " in line:
                    break
            assert connects(port)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_a_taken_port_is_one_line_at_once(env: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        ended = run("manage.py", "prodserve", "--bind", address, env=env())
    assert ended.returncode == 1
    assert f"{address} is already in use by " in ended.stderr
    assert f"(pid {os.getpid()})" in ended.stderr
    assert len(complaints(ended)) == 2
    assert ended.stdout == ""


def test_of_a_server_that_has_the_port_the_process_to_stop_is_named(env: Any) -> None:
    """Its workers listen as well, and would be replaced."""
    with serving("--workers", "2", env=env()) as server:
        assert len(server.workers(2)) == 2
        ended = run("manage.py", "prodserve", "--bind", f"127.0.0.1:{server.port}", env=env())
    assert ended.returncode == 1
    assert f"already in use by this project's server (pid {server.process.pid})." in ended.stderr
    assert "prodserve check --bind 127.0.0.1:0" in ended.stderr


def test_several_addresses_at_once(env: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    flags = ["--bind", f"unix:{path}", "--bind", "[::1]:0"]
    with serving(*flags, env=env()) as server:
        ready = server.lines[-1]
        assert f"unix:{path}" in ready
        port = int(re.search(r"\[::1\]:(\d+)", ready)[1])  # type: ignore[index]
        assert over(socket.AF_INET6, ("::1", port)) == 200
        assert over(socket.AF_UNIX, str(path)) == 200
        assert path.stat().st_mode & 0o777 == 0o770
        assert server.get("/").status == 200
    assert not path.exists()


def over(family: int, target: Any) -> int:
    """Return the status of a request over a socket of this kind."""
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect(target)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.read() == b"hello"
        return answer.status


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(env: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving("--bind", f"unix:{path}", env=env()):
        second = run("manage.py", "prodserve", "--bind", f"unix:{path}", env=env())
        assert second.returncode == 1
        assert "is served by another process" in second.stderr
        assert over(socket.AF_UNIX, str(path)) == 200


def test_an_inherited_socket(env: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        flags = ("--bind", f"fd://{listener.fileno()}")
        with serving(env=env(), bind=flags, pass_fds=[listener.fileno()]) as server:
            assert server.port == listener.getsockname()[1]
            assert server.get("/").text == "hello"


def test_systemd_socket_activation_and_readiness(env: Any, tmp_path: Path) -> None:
    notify = tmp_path / "notify"
    # As systemd does it: the socket is descriptor 3, and LISTEN_PID is the pid of the service.
    script = (
        "import os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.execv(sys.executable, [sys.executable, 'manage.py', 'prodserve'])\n"
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(str(notify))
        manager.settimeout(PATIENCE)
        extra = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(notify), "INVOCATION_ID": "1"}
        with serving(
            env=env(extra),
            command=("-c", script),
            bind=(str(listener.fileno()),),
            pass_fds=[listener.fileno()],
        ) as server:
            assert server.port == listener.getsockname()[1]
            assert server.get("/").text == "hello"
            assert b"READY=1" in manager.recv(1000)
            assert "platform  systemd" in server.output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_without_a_supervisor_a_reload_signal_changes_nothing_and_says_what_to_do(
    env: Any, number: int
) -> None:
    with serving("--no-supervisor", "--workers", "2", env=env()) as server:
        before = set(server.workers(2))
        server.process.send_signal(number)
        line = server.wait_for("has no effect")
        assert signal.Signals(number).name in line
        assert "restart" in line
        assert set(server.workers(2)) == before
        assert server.get("/").status == 200


def test_tls(env: Any, tmp_path: Path) -> None:
    openssl = need_program("openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    with serving("--certfile", str(certificate), "--keyfile", str(key), env=env()) as server:
        assert server.address.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=PATIENCE)
        connection.request("GET", "/whoami/")
        body = connection.getresponse().read()
        connection.close()
        assert b'"secure": true' in body


@pytest.mark.parametrize("flags", [("--worker-class", "sync"), ("--profile", "cpu"), ("--no-preload",)])
def test_the_other_ways_to_serve(env: Any, flags: tuple[str, ...]) -> None:
    with serving(*flags, env=env()) as server:
        pids = {server.get("/whoami/").json()["pid"] for _ in range(5)}
        assert pids <= set(server.workers(2))


def test_web_concurrency_auto_does_not_break_gunicorns_import(env: Any) -> None:
    extra = {"WEB_CONCURRENCY": "auto", "PRODSERVE_CPUS": "3"}
    with serving(env=env(extra)) as server:
        assert len(server.workers(3)) == 3


def test_a_killed_worker_is_replaced(env: Any) -> None:
    with serving("--workers", "2", env=env()) as server:
        killed = server.workers(2)[0]
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while killed in server.workers() or len(server.workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.get("/").status == 200


def test_the_working_directory_and_home_may_be_read_only(env: Any) -> None:
    extra = {"HOME": "/proc/nonexistent", "XDG_CACHE_HOME": "/proc/nonexistent"}
    with serving(env=env(extra)) as server:
        assert server.get("/").status == 200
        assert "Control server" not in server.output


def test_site_is_where_the_tests_expect_it() -> None:
    assert (SITE / "manage.py").is_file()
