"""A log that cannot be written stops neither the start, nor a reload, nor the stop of a server."""

from __future__ import annotations

import contextlib
import http.client
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .namespaces import mounted
from .serving import PATIENCE, SITE, complaints, copy_site, until

ENTRIES = {"manage.py": ("manage.py", "prodserve"), "-m": ("-m", "django_prodserve")}
NUMBERS = {"stdout": 1, "stderr": 2}
SAYS_MUCH = """
import logging, sys, warnings
from django.apps import AppConfig

class Shop(AppConfig):
    name = "shop"

    def ready(self):
        print("ready: caf\\u00e9 \\u2713 \\udcff")
        print("the same", file=sys.stderr, flush=True)
        sys.stdout.buffer.write(b"bytes" * 3000)
        warnings.warn("ready \\u2713")
        logging.getLogger("django").warning("ready \\u2713")
        logging.getLogger("shop").warning("ready \\u2713")
"""
SETTINGS = """
import sys
if sys.argv[0] == "-m" or (sys.stdout and not sys.stdout.write_through):
    print("settings")  # unbuffered, it would raise before anything of ours is imported under manage.py
"""
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
        "err": {"class": "logging.StreamHandler"},
    },
    "root": {"handlers": ["out", "err"], "level": "INFO"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a project that writes on every way there is while it starts."""
    site = copy_site(tmp_path_factory.mktemp("talkative"))
    (site / "shop" / "apps.py").write_text(SAYS_MUCH)
    with (site / "shop" / "settings.py").open("a") as settings:
        settings.write(f"INSTALLED_APPS.append('shop.apps.Shop')\nLOGGING = {LOGGING}\n{SETTINGS}")
    with (site / "shop" / "wsgi.py").open("a") as wsgi:
        wsgi.write("\nprint('wsgi \\u2713')\n")
    return site


@contextlib.contextmanager
def stream(state: str) -> Iterator[int]:
    """Give a descriptor that is in this state; -1 where it is to be closed."""
    with contextlib.ExitStack() as stack:
        if state == "full disk":
            number = os.open("/dev/full", os.O_WRONLY)
        elif state == "reader gone":
            reader, number = os.pipe()
            os.close(reader)
        elif state == "pipe full":
            reader, number = os.pipe()
            stack.callback(os.close, reader)
            os.set_blocking(number, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(number, b"-" * 512)
            os.set_blocking(number, True)
        elif state == "dead terminal":
            master, number = pty.openpty()
            os.close(master)
        elif state == "closed":
            yield -1
            return
        else:
            number = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, number)
        yield number


class Started:
    """A server whose standard streams are in a state; its early requests wait in the test's socket."""

    def __init__(
        self, command: tuple[str, ...], flags: tuple[str, ...], env: dict[str, str], cwd: Path
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        descriptor = self.listener.fileno()
        self.flags = ("--bind", f"fd://{descriptor}", "--workers", "1", "--access-log", "-", *flags)
        self.command, self.env, self.cwd = command, env, cwd

    def start(self, which: str, number: int, other: int) -> None:
        """Start it; the stream that is not in question goes to ``other``."""
        streams = {1: other, 2: other, NUMBERS[which]: number}
        script = " ".join(f"{name}>&-" for name, target in streams.items() if target < 0)
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {script}', "sh", sys.executable, *self.command, *self.flags],
            cwd=self.cwd,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=streams[1] if streams[1] >= 0 else subprocess.DEVNULL,
            stderr=streams[2] if streams[2] >= 0 else subprocess.DEVNULL,
            pass_fds=[self.listener.fileno()],
            start_new_session=True,
        )

    def get(self, path: str = "/") -> int:
        connection = http.client.HTTPConnection(*self.listener.getsockname()[:2], timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": "localhost"})
            until(lambda: self.has_ended() or bool(select.select([connection.sock], [], [], 0.1)[0]))
            assert not self.has_ended(), self.process.returncode
            return connection.getresponse().status

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> set[int]:
        """Return the processes that have no child: with a supervisor there is one between it and a worker."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            return {process.pid for process in family if not process.children()}
        return set()

    def reload(self) -> None:
        until(lambda: len(self.workers()) == 1)
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len(self.workers()) == 1 and self.workers() != before)

    def kill(self) -> None:
        family = []
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
        self.process.wait(PATIENCE)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.listener.close()


# Of each state two servers at once: each stream, each entry, with a supervisor and without, in turn.
PAIRS = {
    "full disk": (("stdout", "manage.py", "--supervisor"), ("stderr", "-m", "--no-supervisor")),
    "reader gone": (("stdout", "-m", "--no-supervisor"), ("stderr", "manage.py", "--supervisor")),
    "pipe full": (("stdout", "manage.py", "--no-supervisor"), ("stderr", "-m", "--supervisor")),
    "dead terminal": (("stdout", "-m", "--supervisor"), ("stderr", "manage.py", "--no-supervisor")),
    "closed": (("stdout", "manage.py", "--supervisor"), ("stderr", "-m", "--supervisor")),
    "ascii": (("stdout", "-m", "--no-supervisor"), ("stderr", "manage.py", "--supervisor")),
}


QUICK = "full disk", "closed"
"""The two that differ most; the others are left to the slow layer."""


@pytest.mark.parametrize(
    "state", [pytest.param(state, marks=() if state in QUICK else pytest.mark.slow) for state in PAIRS]
)
def test_it_starts_reloads_and_stops(env: Any, tmp_path: Path, site: Path, state: str) -> None:
    extra = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii:strict"} if state == "ascii" else {}
    log = tmp_path / "log"
    servers = []
    with contextlib.ExitStack() as stack, log.open("ab") as other:
        for which, entry, supervisor in PAIRS[state]:
            buffered = {"PYTHONUNBUFFERED": "1" if entry == "-m" else ""}
            server = Started(ENTRIES[entry], (supervisor,), env({**extra, **buffered}), site)
            server.start(which, stack.enter_context(stream(state)), other.fileno())
            stack.callback(server.kill)
            servers.append(server)
        for server in servers:
            assert server.get() == 200, log.read_text()
            assert server.get("/livez") == 200
        for server in servers:
            if "--supervisor" in server.flags:
                server.reload()
        for server in servers:
            assert server.get() == 200
            server.process.terminate()
        assert [server.process.wait(PATIENCE) for server in servers] == [0, 0], log.read_text()
    text = log.read_text()
    assert "Exception ignored" not in text
    assert "Traceback" not in text
    if state in {"full disk", "reader gone", "dead terminal"}:
        assert "Requests are served; " in text  # lines of standard output are counted as others are


def test_a_disk_that_fills_up(env: Any, tmp_path: Path, site: Path) -> None:
    """As /dev/full, on a disk that still takes a part of the lines."""
    disk = tmp_path / "disk"
    disk.mkdir()
    steps = (f"mount -t tmpfs -o size=4k none {disk}", f"exec > {disk}/log 2>&1")
    server = Started((*mounted(*steps), "manage.py", "prodserve"), (), env(), site)
    with contextlib.ExitStack() as stack:
        server.start("stdout", stack.enter_context(stream("null")), 2)
        stack.callback(server.kill)
        assert server.get() == 200
        within = Path(f"/proc/{server.process.pid}/root{disk}/log")
        until(lambda: within.stat().st_size == 4096)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("command", ENTRIES)
def test_a_failing_start_keeps_its_exit_code(env: Any, command: str) -> None:
    """Neither 120, which Python returns where its last flush fails, nor a wait for ever."""
    for state in ("pipe full", "closed" if command == "-m" else "full disk"):
        server = Started(ENTRIES[command], (), env(ROOT_URLCONF="shop.nowhere"), SITE)
        with contextlib.ExitStack() as stack:
            number = stack.enter_context(stream(state))
            server.start("stdout", number, number)
            stack.callback(server.kill)
            assert server.process.wait(PATIENCE) == 1, state


@pytest.mark.parametrize("command", ENTRIES)
def test_commands_that_print_end_quietly_with_their_reader(env: Any, command: str) -> None:
    environ = {**env(), "PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "ascii"}
    script = f'"$0" {" ".join(ENTRIES[command])} plan | head -1; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable],
        cwd=SITE,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode in {0, 128 + signal.SIGPIPE}  # head may have read all before it ends
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 1
    with stream("reader gone") as number:
        broken = subprocess.run(
            [sys.executable, *ENTRIES[command], "plan"],
            cwd=SITE,
            env=env(),  # unbuffered: each line fails by itself
            stdout=number,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert (broken.returncode, broken.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("command", ENTRIES)
def test_a_plan_that_cannot_be_kept_says_so(env: Any, command: str) -> None:
    """Unlike a server's lines it was asked for."""
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, *ENTRIES[command], "plan", "--gunicorn-conf"],
            cwd=SITE,
            env={**env(), "PYTHONUNBUFFERED": "1" if command == "-m" else ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
        )
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("Standard output cannot be written: No space left on device.")
    assert len(complaints(ended)) == 1
