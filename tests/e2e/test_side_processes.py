"""Processes beside the workers: their life, their lines, their end, whoever dies first."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from . import management
from .postgres import cluster
from .serving import Server, complaints, copy_site, run, serving, until

Env = Callable[..., dict[str, str]]

# Every start and every end of a process is a line of one file; a child of its own notes that it lives.
SCRIPT = """
import os, signal, subprocess, sys, time
book = open(sys.argv[1], "a", buffering=1)
mode = sys.argv[2] if len(sys.argv) > 2 else ""

if mode == "loud":
    print("begun to flood", flush=True)
    for number in range(20000):
        print("line", number, "x" * 80)
    print("y" * 100000)
    sys.stdout.flush()
    os.write(2, b"\\xff no text\\n")
    print('{"level": "warning", "message": "end of the flood"}', flush=True)
    os.write(2, b"no end")
    mode = ""
ballast = bytearray(int(sys.argv[3]) << 20) if mode == "fat" else b""
if mode == "fat":
    mode = ""

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

    def ask(*words: str) -> Any:
        return run("manage.py", "prodserve", *words, "--bind", str(server.port), env=environ)

    def facts() -> Any:
        return json.loads(ask("status", "--json").stdout)

    until(lambda: facts()["processes"][0]["state"] == "running")
    [known] = facts()["processes"]
    assert (known["name"], known["pid"], known["state"], known["restarts"]) == ("tasks", first, "running", 0)
    assert known["memory"] > 2**20
    assert f"pid {first} running" in ask("status").stdout

    os.kill(first, signal.SIGKILL)
    server.wait_for("Process tasks was ended by SIGKILL after")
    second = book.next(1)
    until(lambda: facts()["processes"][0]["pid"] == second)
    assert facts()["processes"][0]["restarts"] == 1

    os.kill(minder_of(second), signal.SIGKILL)
    server.wait_for("has lost its minder")
    third = book.next(2)
    assert gone(second)

    until(lambda: 'prodserve_process_running{name="tasks"} 1.0' in management.ask(server, "/metrics").text)
    kinds = [event["kind"] for event in facts()["events"]]
    assert kinds.count("process ended") == 2

    assert ask("reload").returncode == 0
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


def test_a_flood_of_lines_is_json_with_the_name_and_the_site_answers(
    script: Path, tmp_path: Path, env: Env
) -> None:
    book = Book(tmp_path / "book")
    environ = env({"PRODSERVE_LOG_FORMAT": "json"}, PRODSERVE=block(script, book.path, "loud"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = ("--bind", f"fd://{listener.fileno()}")
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with serving(env=environ, bind=bind, pass_fds=[listener.fileno()], address=address) as server:
            server.wait_for("begun to flood")
            assert server.answers()
            server.wait_for("end of the flood")
            pid = book.next(0)
            server.wait_for("no text")
            assert server.stop() == 0
    said = [json.loads(line) for line in server.output.splitlines()]
    ours = [line for line in said if line.get("process") == "tasks"]
    assert {"level": "warning", "message": "end of the flood", "process": "tasks"} in ours
    texts = [line["message"] for line in ours]
    assert {"line 0 " + "x" * 80, "line 19999 " + "x" * 80, "\\xff no text", "no end"} <= {*texts}
    assert [text[-24:] for text in texts if text.startswith("y")] == ["y ... (67232 bytes more)"]
    assert {line["pid"] for line in ours if "pid" in line} == {pid}


def test_a_process_that_outgrows_its_plan_is_restarted_before_a_worker(
    script: Path, tmp_path: Path, env: Env
) -> None:
    """The stated limit is below what the process uses, and it states less than that."""
    book = Book(tmp_path / "book")
    settings = block(script, book.path, "fat 300", memory="20m")
    with serving("--memory", "350m", "--workers", "1", env=env(PRODSERVE=settings)) as server:
        first = book.next(0)
        server.wait_for(lambda line: "Process tasks uses" in line and "restarting it" in line)
        second = book.next(1)
        assert ["end", str(first)] in book.lines() or gone(first)
        assert second != first
        assert server.answers()


WRONG = {
    "a": ("manage.py db_wrker", "this project has no command 'db_wrker'."),
    "b": ("manage.py prodserve", "would start this server again."),
    "c": ("manage.py", "names no command behind manage.py."),
    "d": ("no-such-program -x", "there is no program no-such-program, neither next to"),
    "e": ("./nothing", "there is no ./nothing."),
    "f": ("/etc/passwd", "/etc/passwd is not a program that this user may run."),
}


def test_each_wrong_command_is_one_line_before_anything_serves(env: Env) -> None:
    settings = {"PROCESSES": {name: command for name, (command, _) in WRONG.items()}}
    ended = run("manage.py", "prodserve", "--with", "all", env=env(PRODSERVE=settings))
    assert ended.returncode == 2
    lines = [line for line in complaints(ended) if line.startswith("prodserve: error")]
    for line, (name, (_, fault)) in zip(lines, WRONG.items(), strict=True):
        assert f"PRODSERVE['PROCESSES'][{name!r}]" in line
        assert fault in line


@pytest.mark.slow
def test_one_of_two_hosts_runs_it_and_the_other_takes_over(script: Path, tmp_path: Path, env: Env) -> None:
    """Two directories are two hosts here: they share no lock on a file, only the database."""
    book = Book(tmp_path / "book")
    with cluster() as postgres:
        database = {"default": postgres.settings("postgres")}
        environ = env(PRODSERVE=block(script, book.path, one_host=True), DATABASES=database)
        second_host = copy_site(tmp_path)
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(contextlib.ExitStack())
            running.enter_context(postgres.running())
            first = stack.enter_context(serving(env=environ))
            holder = book.next(0)
            second = stack.enter_context(serving(env=environ, cwd=second_host))

            def state() -> Any:
                ended = run("manage.py", "prodserve", "status", "--json", env=environ, cwd=second_host)
                return json.loads(ended.stdout)["processes"][0]["state"]

            until(lambda: state() == "waiting")
            ended = run("manage.py", "prodserve", "reload", "--bind", str(first.port), env=environ)
            assert ended.returncode == 0
            renewed = book.next(1)
            assert book.lines()[-2:] == [["end", str(holder)], ["begin", str(renewed), "0"]]
            assert state() == "waiting"
            assert first.stop() == 0
            successor = book.next(2)
            assert book.lines()[-2:] == [["end", str(renewed)], ["begin", str(successor), "0"]]
            running.close()
            second.wait_for("is stopped: this host has lost its lock in the database")
            until(lambda: gone(successor))
            assert len(book.begun()) == 3
