"""Processes beside the workers: their life, their lines, their end, whoever dies first."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from . import management
from .serving import Server, run, serving, until

Env = Callable[..., dict[str, str]]

# Every start and every end of a process is a line of one file; a child of its own notes that it lives.
SCRIPT = """
import os, signal, subprocess, sys, time
book = open(sys.argv[1], "a", buffering=1)
mode = sys.argv[2] if len(sys.argv) > 2 else ""

def end(*_):
    book.write(f"end {os.getpid()}\\n")
    sys.exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else end)
child = subprocess.Popen(["sleep", "600"], start_new_session=mode == "daemon") if mode else None
book.write(f"begin {os.getpid()} {child.pid if child else 0}\\n")
print("hello from", os.environ["PRODSERVE_PROCESS"], flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "beside.py"
    path.write_text(SCRIPT)
    return path


class Book:
    """What the processes have noted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def begun(self) -> list[int]:
        return [int(words[1]) for words in self.lines() if words[0] == "begin"]

    def children(self) -> list[int]:
        return [int(words[2]) for words in self.lines() if words[0] == "begin"]

    def next(self, after: int) -> int:
        """Wait for one more start; return its pid."""
        until(lambda: len(self.begun()) > after, lambda: str(self.lines()))
        return self.begun()[after]


def block(script: Path, book: Path, mode: str = "", **more: Any) -> dict[str, Any]:
    command = f"python {script} {book} {mode}"
    return {"PROCESSES": {"tasks": {"command": command, **more}}, "WITH": ["tasks"]}


def gone(*pids: int) -> bool:
    """Return whether none of these processes lives."""
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    with contextlib.suppress(psutil.NoSuchProcess):
        return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    return True


def minder_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


@pytest.fixture
def lasting(script: Path, tmp_path: Path, env: Env) -> Iterator[tuple[Server, Book, dict[str, str]]]:
    """Serve with a process that notes its life."""
    book = Book(tmp_path / "book")
    environ = env(PRODSERVE=block(script, book.path))
    with serving("--management-bind", "127.0.0.1:0", env=environ) as server:
        book.next(0)
        yield server, book, environ


def test_a_process_lives_beside_the_workers(lasting: tuple[Server, Book, dict[str, str]]) -> None:
    """Its lines, its state everywhere, its restart after each kind of death, and its reload."""
    server, book, environ = lasting
    first = book.begun()[0]
    server.wait_for(f"[{first}] [tasks] hello from tasks")

    def facts() -> Any:
        return json.loads(run("manage.py", "prodserve", "status", "--json", env=environ).stdout)

    [known] = facts()["processes"]
    assert (known["name"], known["pid"], known["state"], known["restarts"]) == ("tasks", first, "running", 0)
    assert known["memory"] > 2**20
    assert f"pid {first} running" in run("manage.py", "prodserve", "status", env=environ).stdout

    os.kill(first, signal.SIGKILL)
    server.wait_for("Process tasks was ended by SIGKILL after")
    second = book.next(1)
    assert facts()["processes"][0]["restarts"] == 1

    os.kill(minder_of(second), signal.SIGKILL)
    server.wait_for("has lost its minder")
    third = book.next(2)
    assert gone(second)

    said = management.ask(server, "/metrics").text
    assert 'prodserve_process_running{name="tasks"} 1.0' in said
    kinds = [event["kind"] for event in facts()["events"]]
    assert kinds.count("process ended") == 2

    assert run("manage.py", "prodserve", "reload", env=environ).returncode == 0
    fourth = book.next(3)
    assert book.lines()[-2:] == [["end", str(third)], ["begin", str(fourth), "0"]]
    assert server.answers()
    assert server.stop() == 0
    assert gone(fourth)
    assert book.lines()[-1] == ["end", str(fourth)]


@pytest.mark.parametrize("victim", ["arbiter", "supervisor"])
def test_no_process_outlives_the_server(
    victim: str, script: Path, tmp_path: Path, env: Env, lasting: tuple[Server, Book, dict[str, str]]
) -> None:
    """SIGKILL lets nobody clean up; a new generation starts the process when the old one has ended."""
    server, book, _ = lasting
    [first] = book.begun()
    killed = server.arbiters()[0] if victim == "arbiter" else server.process.pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: ["end", str(first)] in book.lines())
    if victim == "arbiter":
        second = book.next(1)
        assert book.lines()[-2:] == [["end", str(first)], ["begin", str(second), "0"]]
        until(server.answers)
    else:
        server.process.wait()
        until(lambda: gone(first))


def test_a_process_that_ignores_sigterm_is_killed_with_all_that_it_started(
    script: Path, tmp_path: Path, env: Env
) -> None:
    book = Book(tmp_path / "book")
    with serving(
        "--graceful-timeout", "1", "--no-supervisor", env=env(PRODSERVE=block(script, book.path, "deaf"))
    ) as server:
        first = book.next(0)
        assert server.answers()
        assert server.stop() == 0
        assert "Process tasks did not end in time and was killed" in server.output
        assert gone(first, *book.children())


def test_a_daemon_that_a_process_leaves_ends_with_it(script: Path, tmp_path: Path, env: Env) -> None:
    book = Book(tmp_path / "book")
    with serving(env=env(PRODSERVE=block(script, book.path, "daemon"))) as server:
        first = book.next(0)
        os.kill(first, signal.SIGKILL)
        book.next(1)
        assert gone(first, book.children()[0])
        assert server.stop() == 0
        assert gone(*book.begun(), *book.children())
