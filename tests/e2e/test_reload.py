"""A reload loses no request, serves the new code, and leaves the old one serving where the new is broken."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .needs import need_program
from .serving import PATIENCE, Server, copy_site, run, serving, until

VIEW = "def hello(request: HttpRequest) -> HttpResponse:\n    return HttpResponse("
RELOAD = ("-m", "django_prodserve", "reload")


def edit(file: Path, old: str, new: str) -> None:
    """Change a file so that no compiled copy of it can be taken for it."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    moment = time.time_ns() + 10**10 * next(_seconds)
    os.utime(file, ns=(moment, moment))


_seconds = iter(range(1, 10**6))


class Load:
    """Clients that ask for / until they are told to stop; some keep their connection, some do not."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.port = port
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(bool(number % 2),)) for number in range(clients)
        ]

    def _ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self._over.wait(0.005):
            began = time.monotonic()
            try:
                connection.request("GET", "/", headers={} if keep else {"Connection": "close"})
                answer = connection.getresponse()
                self.answers.append(f"{answer.status} {answer.read().decode()}")
            except (OSError, http.client.HTTPException) as error:
                took = time.monotonic() - began
                self.failures.append(f"{'kept' if keep else 'new'} connection after {took:.3f} s: {error!r}")
                connection.close()
        connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_reloads_under_load_lose_nothing_and_serve_the_new_code(env: Any, tmp_path: Path) -> None:
    site, count = copy_site(tmp_path), int(os.environ.get("TEST_RELOADS", "4"))
    urls = site / "shop" / "urls.py"
    with serving("--workers", "2", "--threads", "4", env=env(), cwd=site) as server:
        pid, old = server.process.pid, "hello"
        with Load(server.port) as load:
            for number in range(count):
                new = f"version {number}" + "x" * number
                edit(urls, f'HttpResponse("{old}")', f'HttpResponse("{new}")')
                ended = run(*RELOAD, env=env(), cwd=site)
                assert ended.returncode == 0, ended.stderr + server.output
                assert f"generation {number + 2} serves" in ended.stdout
                assert [server.get("/").text for _ in range(5)] == [new] * 5
                old = new
        assert load.failures == [], server.output
        assert {answer[:3] for answer in load.answers} == {"200"}
        assert len(load.answers) > 20 * count
        assert server.process.pid == pid
        until(lambda: len(server.workers(2)) == 2)  # the last of the old ones may be leaving


FAULTS = {
    "a view": ("shop/urls.py", "def hello", "def hello(:", "invalid syntax"),
    "the settings": ("shop/settings.py", "DEBUG = False", "DEBUG = Fals", "NameError: name 'Fals'"),
    "an exit": ("shop/settings.py", "DEBUG = False", "import os; os._exit(7)", "exit code 7"),
    "a request": (
        "shop/settings.py",
        "MIDDLEWARE = [",
        'MIDDLEWARE = ["shop.nothing.Middleware",',
        "shop.nothing",
    ),
    "the address": (
        "shop/settings.py",
        "STATIC_URL",
        "PRODSERVE = {'WORKRES': 3}\nSTATIC_URL",
        "Did you mean WORKERS",
    ),
}


QUICK = "a view", "the settings"
"""The two that differ most; the others are left to the slow layer."""


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in QUICK else pytest.mark.slow) for fault in FAULTS]
)
def test_broken_code_leaves_the_old_one_serving(env: Any, tmp_path: Path, fault: str) -> None:
    site = copy_site(tmp_path)
    name, good, bad, reason = FAULTS[fault]
    with serving(env=env(), cwd=site) as server:
        before = server.workers(2)
        edit(site / name, good, bad)
        ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "generation 1 keeps serving. " in ended.stderr
        assert reason in ended.stderr
        assert "Traceback" not in ended.stderr
        assert server.get("/").text == "hello"
        assert server.workers() == before
        edit(site / name, bad, good)
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert server.get("/").text == "hello"
        server.lines = [line for line in server.output.splitlines() if "Traceback" not in line]


def test_sighup_reloads_and_says_so(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        edit(site / "shop" / "urls.py", 'HttpResponse("hello")', 'HttpResponse("by signal")')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("generation 2 serves")
        assert server.get("/").text == "by signal"


def test_a_reload_says_what_is_new_and_nothing_else(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", env=env(), cwd=site) as server:
        first = {*server.output.splitlines()}
        assert any(line.startswith("workers   1 x") for line in first)
        assert any("prodserve.W001" in line for line in first)

        def said(number: int) -> list[str]:
            """Return what the next reload says of the server, which is not how far it is."""
            before = len(server.output.splitlines())
            assert run(*RELOAD, env=env(), cwd=site).returncode == 0
            server.wait_for(f"generation {number} serves")
            lines = server.output.splitlines()[before:]
            assert not first & {*lines}
            return [line for line in lines if not re.search(r" \(\d+ s\)$|Reloaded in ", line)]

        assert said(2) == said(3) == []
        hosts = 'ALLOWED_HOSTS = ["http://shop.example", '
        edit(site / "shop" / "settings.py", "ALLOWED_HOSTS = [", hosts)
        (warning, fix, more) = said(4)
        assert "prodserve.W022" in warning
        assert "shop.example" in fix
        assert more.endswith("prodserve help W022")


SHOWS = 'HttpResponse(os.environ.get("SHOWN", "nothing"))'


@pytest.mark.parametrize(
    "command",
    [("manage.py", "prodserve"), pytest.param(("-m", "django_prodserve"), marks=pytest.mark.slow)],
)
def test_env_file_is_read_before_settings_and_at_every_reload(env: Any, tmp_path: Path, command: Any) -> None:
    site, file = copy_site(tmp_path), tmp_path / "production.env"
    edit(site / "shop" / "urls.py", 'HttpResponse("hello")', SHOWS)
    edit(site / "shop" / "settings.py", "DEBUG = False", 'DEBUG = "SHOWN" not in os.environ')
    file.write_text("# shown\nSHOWN='the first'  # one\n")
    with serving("--env-file", str(file), env=env({"SHOWN": "typed"}), cwd=site, command=command) as server:
        assert server.get("/").text == "the first"
        file.write_text("export SHOWN=the second\n")
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert server.get("/").text == "the second"
        file.write_text("OTHER=1\n")  # a line that is gone counts too
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert server.get("/").text == "typed"
        file.write_text("nonsense\n")
        ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "line 1: expected KEY=VALUE" in ended.stderr
        assert server.get("/").text == "typed"


def test_an_edited_dotenv_counts(env: Any, tmp_path: Path) -> None:
    """Loaders put it into the environment with setdefault: with the environment of now it would not."""
    site = copy_site(tmp_path)
    (site / ".env").write_text("SHOWN=before")
    edit(site / "shop" / "urls.py", 'HttpResponse("hello")', SHOWS)
    loader = 'os.environ.setdefault(*open(".env").read().split("="))\nDEBUG = False'
    edit(site / "shop" / "settings.py", "DEBUG = False", loader)
    with serving(env=env(), cwd=site) as server:
        assert server.get("/").text == "before"
        (site / ".env").write_text("SHOWN=after")
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert server.get("/").text == "after"


@pytest.mark.parametrize("told_by", ["PWD", pytest.param("the program", marks=pytest.mark.slow)])
def test_a_switched_link_leads_to_the_new_release(env: Any, tmp_path: Path, told_by: str) -> None:
    old, new, current = tmp_path / "r1", tmp_path / "r2", tmp_path / "current"
    copy_site(tmp_path).rename(old)
    shutil.copytree(old, new)
    edit(new / "shop" / "urls.py", 'HttpResponse("hello")', 'HttpResponse("release 2")')
    current.symlink_to(old)
    extra = {"PWD": str(current if told_by == "PWD" else "/")}
    program = "manage.py" if told_by == "PWD" else str(current / "manage.py")
    with serving(env=env(extra), cwd=current, command=(program, "prodserve")) as server:
        current.unlink()
        current.symlink_to(new)
        shutil.rmtree(old)
        ended = run(program, "prodserve", "reload", env=env(extra), cwd=current)
        assert ended.returncode == 0, ended.stderr
        assert server.get("/").text == "release 2"


@pytest.mark.slow
def test_interpreter_flags_are_kept(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    edit(site / "shop" / "urls.py", 'HttpResponse("hello")', "HttpResponse(str(__import__('sys').flags))")
    with serving(env=env(), cwd=site, command=("-X", "utf8", "-O", "manage.py", "prodserve")) as server:
        before = server.get("/").text
        assert "optimize=1" in before
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        assert server.get("/").text == before


def test_a_renewed_certificate_is_picked_up(env: Any, tmp_path: Path) -> None:
    openssl = need_program("openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def renew(name: str) -> None:
        files = ["-keyout", str(key), "-out", str(certificate)]
        make = [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ]
        subprocess.run([*make, *files], check=True, capture_output=True)

    def served(server: Server) -> str:
        return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=PATIENCE)

    renew("first")
    with serving("--certfile", str(certificate), "--keyfile", str(key), env=env()) as server:
        before = served(server)
        renew("second")
        ended = run(*RELOAD, "--bind", server.address.removeprefix("https://"), env=env())
        assert ended.returncode == 0, ended.stderr
        assert served(server) != before
        assert served(server).split() == certificate.read_text().split()


@contextlib.contextmanager
def two(env: Any, site: Path) -> Iterator[tuple[Server, Server]]:
    with serving(env=env(), cwd=site) as first, serving(env=env(), cwd=site) as second:
        yield first, second


@pytest.mark.slow
def test_the_server_is_found_or_it_is_said_clearly_why_not(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    ended = run(*RELOAD, env=env(), cwd=site)
    assert ended.returncode == 1
    assert f"No server is running for the project in {site}." in ended.stderr
    with two(env, site) as (first, second):
        ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "2 servers of this project are running:" in ended.stderr
        ended = run("manage.py", "prodserve", "reload", "--bind", str(second.port), env=env(), cwd=site)
        assert ended.returncode == 0, ended.stderr
        second.wait_for("generation 2 serves")
        assert "generation 2" not in first.output
    elsewhere = run(str(site / "manage.py"), "prodserve", "stop", env=env(), cwd=tmp_path)
    assert elsewhere.returncode == 1
    assert "No server is running" in elsewhere.stderr


def test_without_a_supervisor_reload_says_why_and_what_to_do(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}), cwd=site) as server:
        assert server.arbiters() == [server.process.pid]
        ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "Kubernetes replaces the whole instance" in ended.stderr
        assert "Restart it" in ended.stderr


def test_reload_while_one_is_under_way_waits_for_one_more(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site) as server:
        commands = [
            subprocess.Popen(
                [sys.executable, *RELOAD], cwd=site, env=env(), stdout=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        outputs = [command.communicate(timeout=PATIENCE)[0] for command in commands]
        assert [command.returncode for command in commands] == [0] * 4, outputs
        assert server.output.count("[INFO] Reloaded in") <= 3


def test_the_number_of_workers_survives_a_reload(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", env=env(), cwd=site) as server:
        until(lambda: run(*RELOAD, env=env(), cwd=site).returncode == 0)
        server.process.send_signal(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 2)
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        until(lambda: len(server.arbiters()) == 1 and len(server.workers()) == 2)


@pytest.mark.slow
def test_with_reload_a_burst_of_saves_is_served_once(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    urls = site / "shop" / "urls.py"
    with serving("--reload", env=env(), cwd=site) as server:
        server.workers(2)
        for number in range(5):
            (site / "shop" / f"other{number}.py").write_text("pass\n")
            time.sleep(0.02)
        urls.write_text(urls.read_text().replace('"hello"', '"saved"'))
        server.wait_for("changed: reloading")
        server.wait_for("generation 2 serves")
        assert server.get("/").text == "saved"
        urls.write_text(urls.read_text().replace('"saved"', '"saved'))
        server.wait_for("Reload failed; generation 2 keeps serving: ")
        assert server.get("/").text == "saved"
        urls.write_text(urls.read_text().replace('"saved', '"mended"'))
        server.wait_for("generation 4 serves")
        assert server.get("/").text == "mended"
        assert server.output.count("changed: reloading") == 3


def test_reload_on_changes_needs_a_supervisor_and_gunicorns_own_is_refused(env: Any) -> None:
    ended = run("manage.py", "prodserve", "--reload", "--no-supervisor", env=env())
    assert ended.returncode == 2
    assert "--reload needs the supervisor, but --supervisor turns it off" in ended.stderr
    ended = run("manage.py", "prodserve", env=env(PRODSERVE={"GUNICORN": {"reload": True}}))
    assert ended.returncode == 2
    assert "Gunicorn's reload is refused" in ended.stderr
    assert "Use --reload" in ended.stderr
    ended = run("manage.py", "prodserve", env=env(PRODSERVE={"ENV_FILE": ".env"}))
    assert ended.returncode == 2
    assert "PRODSERVE['ENV_FILE'] comes too late" in ended.stderr


@pytest.mark.slow
def test_one_port_of_both_families_is_served_over_a_reload(env: Any) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 here")
    bind = ("--bind", f"[::]:{port}", "--bind", f"0.0.0.0:{port}")
    with serving(env=env(), bind=bind):
        for _ in range(2):
            for host in ("127.0.0.1", "::1"):
                connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
                connection.request("GET", "/", headers={"Host": "localhost"})
                assert connection.getresponse().read() == b"hello"
                connection.close()
            ended = run(*RELOAD, "--bind", f"[::]:{port}", env=env())
            assert ended.returncode == 0, ended.stderr
    ended = run("manage.py", "prodserve", "--bind", "0.0.0.0:8765", "--bind", "127.0.0.1:8765", env=env())
    assert ended.returncode == 2
    assert "Remove 127.0.0.1:8765: it is answered all the same." in ended.stderr
