"""The user's hooks run beside ours, as often as Gunicorn says; one that raises is named and ends nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_prodserve.arbiter.hooks import HOOK_NAMES

from .serving import PATIENCE, Server, complaints, copy_site, run, serving, until

SIGNATURES = {
    "on_starting": "server",
    "on_reload": "server",
    "when_ready": "server",
    "pre_fork": "server, worker",
    "post_fork": "server, worker",
    "post_worker_init": "worker",
    "worker_int": "worker",
    "worker_abort": "worker",
    "pre_exec": "server",
    "pre_request": "worker, request",
    "post_request": "worker, request, environ, response",
    "child_exit": "server, worker",
    "worker_exit": "server, worker",
    "nworkers_changed": "server, new, old",
    "on_exit": "server",
    "on_dirty_starting": "arbiter",
    "dirty_post_fork": "arbiter, worker",
    "dirty_worker_init": "worker",
    "dirty_worker_exit": "arbiter, worker",
}

HEAD = """import os

from gunicorn.dirty.app import DirtyApp


class Model(DirtyApp):
    pass


def note(name):
    line = f"{name} {os.getpid()}\\n".encode()
    file = os.open(os.environ["HOOKS_FILE"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, line)
    os.close(file)
    if "HOOKS_RAISE" in os.environ:
        raise RuntimeError(f"the view broke, or rather {name}")
"""


def source(parameters_of_post_request: int) -> str:
    """Return a module that defines every hook."""
    signatures = dict(SIGNATURES)
    parts = signatures["post_request"].split(", ")
    signatures["post_request"] = ", ".join(parts[:parameters_of_post_request])
    return HEAD + "".join(
        f"\n\ndef {name}({signature}):\n    note({name!r})\n" for name, signature in signatures.items()
    )


def test_every_hook_of_gunicorns_is_known() -> None:
    from gunicorn.config import make_settings

    hooks = {name for name, setting in make_settings().items() if "Hooks" in setting.section}
    assert hooks == {*HOOK_NAMES, "ssl_context"}
    assert set(SIGNATURES) == set(HOOK_NAMES)


def in_settings(site: Path, value: str) -> None:
    (site / "shop" / "hooks.py").write_text(source(4 if value == "hook" else 3))
    settings = site / "shop" / "settings.py"
    settings.write_text(
        settings.read_text()
        + "from . import hooks as _hooks\n"
        + f"for _name in {list(SIGNATURES)}:\n"
        + "    hook = getattr(_hooks, _name)\n"
        + f"    PRODSERVE['GUNICORN'][_name] = {value}\n"
    )


def as_functions(site: Path) -> list[str]:
    in_settings(site, "hook")
    return []


def as_dotted_strings(site: Path) -> list[str]:
    in_settings(site, "f'shop.hooks.{_name}'")
    return []


def as_lambdas(site: Path) -> list[str]:
    (site / "shop" / "hooks.py").write_text(source(3))
    settings = site / "shop" / "settings.py"
    lambdas = "".join(
        f"PRODSERVE['GUNICORN'][{name!r}] = lambda {signature}: _hooks.note({name!r})\n"
        for name, signature in SIGNATURES.items()
    )
    settings.write_text(f"{settings.read_text()}from . import hooks as _hooks\n{lambdas}")
    return []


def in_a_file(site: Path) -> list[str]:
    (site / "shop" / "hooks.py").write_text(HEAD)
    (site / "hooks.conf.py").write_text(source(2))
    return ["--config", "hooks.conf.py"]


WAYS = [as_functions, as_dotted_strings, as_lambdas, in_a_file]


class Marks:
    """What the hooks wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pids(self, name: str) -> list[int]:
        """Return the processes that ran this hook, in order."""
        words = self.path.read_text().split() if self.path.exists() else []
        return [int(pid) for word, pid in zip(words[::2], words[1::2], strict=True) if word == name]

    def count(self) -> Counter[str]:
        return Counter(self.path.read_text().split()[::2])

    def wait(self, name: str, count: int) -> list[int]:
        """Return the processes that ran this hook, once they are so many."""
        until(lambda: len(self.pids(name)) >= count, lambda: f"{name}: {self.count()}")
        return self.pids(name)

    def running(self) -> list[int]:
        """Return the pids of workers that are ready and have not left, the oldest first."""
        left = self.pids("worker_exit")
        ready = self.pids("post_worker_init")
        return [pid for pid in ready if pid not in left and psutil.pid_exists(pid)]


def a_site(tmp_path: Path, way: Callable[[Path], list[str]]) -> tuple[Path, list[str], Marks]:
    """Return a project with every hook, the flags that it needs, and what its hooks write."""
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    # Gunicorn kills the dirty arbiter of another server with the same name.
    dirty = {"dirty_workers": 1, "dirty_apps": ["shop.hooks:Model"], "proc_name": f"hooks-{os.getpid()}"}
    settings.write_text(f"{settings.read_text()}\nPRODSERVE = {{'GUNICORN': {dirty}}}\n")
    return site, ["--workers", "2", "--threads", "2", *way(site)], Marks(tmp_path / "marks")


def drive(server: Server, marks: Marks, *, plain: bool = False) -> None:
    """Make every hook run that can, on a server whose workers are ready."""
    marks.wait("dirty_worker_init", 1)
    before = marks.count()
    for _ in range(3):
        assert server.get("/").text == "hello"
    marks.wait("post_request", 3)
    server.process.send_signal(signal.SIGTTIN)
    marks.wait("post_worker_init", before["post_worker_init"] + 1)
    server.process.send_signal(signal.SIGTTOU)
    marks.wait("child_exit", before["child_exit"] + 1)
    ready = len(marks.pids("post_worker_init"))
    os.kill(marks.running()[0], signal.SIGABRT)
    marks.wait("worker_abort", 1)
    marks.wait("post_worker_init", ready + 1)
    if plain:  # ours leave a signal to the arbiter, which did not send it
        os.kill(marks.running()[0], signal.SIGINT)
        marks.wait("worker_int", 1)
        marks.wait("post_worker_init", ready + 2)
    for number in () if plain else (signal.SIGHUP, signal.SIGUSR2):
        os.kill(server.arbiters()[0], number)
        server.wait_for("has no effect")
    assert server.get("/").text == "hello"
    marks.wait("post_request", 4)
    if plain:
        assert server.stop() == 0, server.output
    else:
        stop_in_a_hurry(server, marks)


def stop_in_a_hurry(server: Server, marks: Marks) -> None:
    """Let a request run when Ctrl-C is pressed for the second time: its worker is interrupted."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, PATIENCE) as client:
        client.sendall(b"GET /slow/?seconds=10 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        marks.wait("pre_request", 5)
        server.process.send_signal(signal.SIGINT)
        until(lambda: marks.pids("worker_exit") != [] and refuses(address))
        assert server.stop(signal.SIGINT) == 0, server.output


def refuses(address: tuple[str, int]) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) != 0


# Two at start, one for TTIN, one for the worker that was sent a signal.
COUNTS = {
    "on_starting": 1,
    "when_ready": 1,
    "pre_fork": 4,
    "post_fork": 4,
    "post_worker_init": 4,
    "worker_int": 1,
    "worker_abort": 1,
    "pre_request": 5,
    "post_request": 4,
    "child_exit": 4,
    "worker_exit": 4,
    "nworkers_changed": 3,
    "on_exit": 1,
    "on_dirty_starting": 1,
    "dirty_post_fork": 1,
    "dirty_worker_init": 1,
    "dirty_worker_exit": 1,
}
IN_ARBITER = {"on_starting", "when_ready", "pre_fork", "child_exit", "nworkers_changed", "on_exit"}


@pytest.mark.parametrize("way", WAYS)
def test_every_hook_runs_as_often_as_it_should(
    env: Any, tmp_path: Path, way: Callable[[Path], list[str]]
) -> None:
    site, flags, marks = a_site(tmp_path, way)
    with serving(*flags, env=env({"HOOKS_FILE": str(marks.path)}), cwd=site) as server:
        marks.wait("post_worker_init", 2)
        arbiter = server.arbiters()[0]
        drive(server, marks)
        assert "The hook" not in server.output
    assert marks.count() == COUNTS  # on_reload and pre_exec cannot run: HUP and USR2 are refused
    for name in COUNTS:
        if "dirty" not in name:
            assert (set(marks.pids(name)) == {arbiter}) == (name in IN_ARBITER)


@pytest.mark.parametrize("way", [as_functions, as_dotted_strings, in_a_file])
def test_hooks_that_raise_are_logged_by_name_and_end_nothing(
    env: Any, tmp_path: Path, way: Callable[[Path], list[str]]
) -> None:
    site, flags, marks = a_site(tmp_path, way)
    extra = {"HOOKS_FILE": str(marks.path), "HOOKS_RAISE": "yes"}
    with serving(*flags, env=env(extra), cwd=site) as server:
        os.kill(marks.wait("post_worker_init", 2)[0], signal.SIGKILL)
        marks.wait("post_worker_init", 3)
        drive(server, marks)
        said = server.output
    one_more = ("pre_fork", "post_fork", "post_worker_init", "child_exit")
    assert marks.count() == {name: count + (name in one_more) for name, count in COUNTS.items()}
    module = "__config__" if way is in_a_file else "shop.hooks"
    logged = Counter(
        re.findall(
            rf"\[ERROR\] (?:\[\w+\] )?The hook (\w+) \({module}\.\1\) raised; the server keeps serving", said
        )
    )
    assert logged == marks.count()
    assert said.count("RuntimeError: the view broke, or rather") == sum(logged.values())


def test_a_hook_may_end_the_server(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "own.conf.py").write_text("import sys\n\ndef on_starting(server):\n    sys.exit(7)\n")
    ended = run("manage.py", "prodserve", "--bind", "127.0.0.1:0", "-c", "own.conf.py", env=env(), cwd=site)
    assert ended.returncode == 7
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("shop.nothing.post_fork", "No module named 'shop.nothing'"),
        ("shop.urls.post_fork", "Can not load 'post_fork' from 'shop.urls'"),
        ("post_fork", "is not import string"),
        ("shop.urls.hello", "must have an arity of: 2"),
    ],
)
def test_a_hook_that_cannot_be_used_is_told_before_anything_starts(env: Any, hook: str, words: str) -> None:
    ended = run("manage.py", "prodserve", env=env(PRODSERVE={"GUNICORN": {"post_fork": hook}}))
    assert ended.returncode == 2
    assert f"PRODSERVE['GUNICORN']['post_fork'] is '{hook}', which Gunicorn refuses" in ended.stderr
    assert words in ended.stderr
    assert complaints(ended)[1:] == ["  Fix:  Correct post_fork there."]


def test_the_users_ssl_context_is_used(env: Any, tmp_path: Path) -> None:
    if not (openssl := shutil.which("openssl")):
        pytest.skip("openssl is not installed")
    site = copy_site(tmp_path)
    files = [
        *("-keyout", str(site / "key.pem")),
        *("-out", str(site / "cert.pem")),
        *("-subj", "/CN=localhost"),
    ]
    make = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files]
    subprocess.run(make, check=True, capture_output=True)
    (site / "shop" / "tls.py").write_text(
        "import ssl\n\n"
        "def newest_only(config, default):\n"
        "    context = default()\n"
        "    context.minimum_version = ssl.TLSVersion.TLSv1_3\n"
        "    return context\n"
    )
    settings = {"PRODSERVE": {"GUNICORN": {"ssl_context": "shop.tls.newest_only"}}}
    flags = ("--certfile", "cert.pem", "--keyfile", "key.pem")
    with serving(*flags, env=env(**settings), cwd=site) as server:
        client = ssl.create_default_context(cafile=str(site / "cert.pem"))
        client.check_hostname = False
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            ssl_version(server.port, client)
        client.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        assert ssl_version(server.port, client) == "TLSv1.3"


def ssl_version(port: int, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain) as client,
    ):
        return client.version()


NOSY = """
import os, psutil

with open(os.environ["SEEN"], "a") as seen:
    files = [file.path for file in psutil.Process().open_files()]
    seen.write(f"{os.getpid()} {files.count(os.environ['SITE_DATABASE'])}\\n")
"""


@pytest.mark.parametrize("preload", ["--preload", "--no-preload"])
def test_no_database_connection_crosses_a_fork(env: Any, tmp_path: Path, preload: str) -> None:
    """One is opened in ready(), another by the user's own pre_fork."""
    site, database, seen = copy_site(tmp_path), str(tmp_path / "db.sqlite3"), tmp_path / "seen"
    (site / "shop" / "apps.py").write_text(
        "from django.apps import AppConfig\n"
        "from django.db import connection\n\n"
        "def query(*arguments):\n"
        "    connection.cursor().execute('select 1')\n\n"
        "def pre_fork(server, worker):\n"
        "    query()\n"
        "    print('pre_fork has a connection', connection.connection is not None, flush=True)\n\n"
        "class Shop(AppConfig):\n"
        "    name = 'shop'\n"
        "    def ready(self):\n"
        "        query()\n"
    )
    settings, urls = site / "shop" / "settings.py", site / "shop" / "urls.py"
    settings.write_text(
        f"{settings.read_text()}INSTALLED_APPS.append('shop.apps.Shop')\n"
        "DATABASES['default']['CONN_MAX_AGE'] = None\n"
        "PRODSERVE = {'GUNICORN': {'pre_fork': 'shop.apps.pre_fork'}}\n"
    )
    urls.write_text(NOSY + urls.read_text())
    with serving(preload, "--workers", "2", env=env({"SEEN": str(seen)}), cwd=site) as server:
        assert "Accessing the database during app initialization" in server.output
        workers = server.workers(2)
        assert server.get("/").status == 200
        arbiter = server.arbiters()[0]
        for pid in (server.process.pid, arbiter, *workers):
            assert database not in [file.path for file in psutil.Process(pid).open_files()]
        assert server.stop() == 0
        assert server.output.count("pre_fork has a connection True") == 2
    loaded = dict(line.split() for line in seen.read_text().splitlines())
    if preload == "--no-preload":  # the trial and the workers load; nobody inherited a connection
        assert len(loaded) >= 2
        assert set(loaded.values()) == {"0"}
    else:
        assert set(loaded) == {str(arbiter)}


def test_a_hooks_infos_are_seen_and_gunicorns_are_not(env: Any, tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text(
        "worker_clas = 1\n"
        "def when_ready(server):\n    server.log.info('the hook says %s', 'ready')\n"
        "def post_worker_init(worker):\n    worker.log.info('the hook says init')\n"
        "def post_request(worker, request, environ, response):\n    worker.log.info('the hook says done')\n"
    )
    with serving("--config", str(conf), "--workers", "1", env=env()) as server:
        assert server.get("/").status == 200
        until(lambda: server.output.count("the hook says") == 3, lambda: server.output)
        assert f"note: {conf}: worker_clas is not used" in server.output
        for line in ("says ready", "says init", "says done"):
            assert re.search(rf"\[INFO\] (\[\w+\] )?the hook {line}", server.output)
        for chatter in ("Starting gunicorn", "Booting worker", "Listening at"):
            assert chatter not in server.output
    with serving("--config", str(conf), "--log-level", "warning", env=env()) as server:
        assert server.get("/").status == 200
    assert "the hook says" not in server.output
