"""Workers that die, fail, hang or are recycled: the server goes on, and says what happened."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from .serving import Server, at_work, run, serving, until


@contextmanager
def clients(server: Server, path: str = "/", count: int = 2) -> Iterator[list[object]]:
    """Ask all the time while the block runs; the list holds every answer, or what was raised."""
    answers: list[object] = []

    def ask(over: threading.Event) -> None:
        while not over.is_set():
            try:
                answers.append(server.get(path).status)
            except OSError as error:
                answers.append(error)

    with at_work(ask, count):
        yield answers


def is_alive(pid: int) -> bool:
    """Say whether a process has not ended, not even as a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def trouble(tmp_path: Path, *what: str) -> Path:
    """Make the directory where files tell the workers what to do wrong."""
    directory = tmp_path / "trouble"
    directory.mkdir(exist_ok=True)
    for name in what:
        (directory / name).touch()
    return directory


def test_workers_that_are_killed_are_started_again(env: Any) -> None:
    with serving("--workers", "2", env=env()) as server:
        before = server.workers(2)
        os.kill(before[0], signal.SIGKILL)
        server.wait_for(f"Worker {before[0]} was killed (SIGKILL) by another process or user")
        until(lambda: before[0] not in server.workers(2))
        for pid in server.workers(2):
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(server.workers()) == 2 and not {*before} & {*server.workers()})
        assert server.get("/").status == 200
        assert "out of memory" not in server.output.lower()


def test_workers_that_cannot_boot_again_do_not_stop_a_site(env: Any, tmp_path: Path) -> None:
    directory = trouble(tmp_path)
    hooks = {"GUNICORN": {"post_fork": "shop.hooks.post_fork"}}
    with serving("--workers", "2", env=env({"TROUBLE": str(directory)}, PRODSERVE=hooks)) as server:
        victim, survivor = server.workers(2)
        (directory / "fail at boot").touch()
        os.kill(victim, signal.SIGKILL)
        started = time.monotonic()
        server.wait_for("failed to start (exit code 3)")
        server.wait_for("Workers exit as soon as they start")
        assert time.monotonic() - started > 0.4  # 0.25 s, then 0.5 s: not as fast as it can
        assert server.get("/").status == 200
        assert server.workers() == [survivor] or survivor in server.workers()
        (directory / "fail at boot").unlink()
        server.workers(2)
        assert server.output.count("failed to start") < 6


@pytest.mark.slow
def test_a_server_that_cannot_start_any_worker_ends(env: Any, tmp_path: Path) -> None:
    directory = trouble(tmp_path)
    hooks = {"GUNICORN": {"post_fork": "shop.hooks.post_fork"}}
    # Where something else starts it again.
    settings = env({"TROUBLE": str(directory), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, PRODSERVE=hooks)
    with serving("--workers", "2", env=settings) as server:
        assert server.get("/").status == 200
        pids = server.workers(2)
        (directory / "fail at boot").touch()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        server.wait_for("No worker serves after 6 attempts", patience=40)
        assert server.process.wait(timeout=10) == 3
        assert len([line for line in server.output.splitlines() if "failed to start" in line]) < 20


def test_the_first_failure_to_boot_ends_the_server_at_once(env: Any, tmp_path: Path) -> None:
    directory = trouble(tmp_path, "fail at boot")
    hooks = {"GUNICORN": {"post_fork": "shop.hooks.post_fork"}}
    environ = env({"TROUBLE": str(directory)}, PRODSERVE=hooks)
    ended = run("manage.py", "prodserve", "--bind", "127.0.0.1:0", env=environ)
    assert ended.returncode == 3, ended.stderr
    assert " ready in " not in ended.stdout


def test_more_and_fewer_workers_on_request(env: Any) -> None:
    with serving("--workers", "2", env=env()) as server, clients(server) as answers:
        server.workers(2)
        server.process.send_signal(signal.SIGTTIN)
        server.workers(3)
        for count in (2, 1):
            server.process.send_signal(signal.SIGTTOU)
            until(lambda: len(server.workers()) == count)  # noqa: B023
    assert {*answers} == {200}


@pytest.mark.parametrize(
    "flags",
    [pytest.param(["--max-lifetime", "3s"], marks=pytest.mark.slow), ["--max-requests", "100"]],
    ids=" ".join,
)
def test_recycling_never_leaves_fewer_workers(env: Any, flags: list[str]) -> None:
    with serving("--workers", "2", *flags, env=env()) as server, clients(server) as answers:
        before = {*server.workers(2)}
        seen: list[int] = []

        def all_new() -> bool:
            seen.append(len([pid for pid in server.workers() if is_alive(pid)]))
            return not before & {*server.workers()}

        until(all_new)
        assert min(seen) >= 2
        assert max(seen) == 3
    assert {*answers} == {200}
    assert server.output.count(f"is replaced: {flags[0][2:]}.") >= 2


def test_a_worker_that_hangs_at_boot_is_killed(env: Any, tmp_path: Path) -> None:
    directory = trouble(tmp_path)
    hooks = {"GUNICORN": {"post_fork": "shop.hooks.post_fork", "on_starting": "shop.hooks.impatient"}}
    with serving("--workers", "2", env=env({"TROUBLE": str(directory)}, PRODSERVE=hooks)) as server:
        assert server.get("/").status == 200
        victim, survivor = server.workers(2)
        (directory / "hang at boot").touch()
        os.kill(victim, signal.SIGKILL)
        line = server.wait_for("did not finish booting within 2 s; killing it")
        hanging = int(line.partition("Worker ")[2].split()[0])
        assert server.get("/").status == 200
        server.wait_for("in post_fork")  # the stack says where it hangs
        (directory / "hang at boot").unlink()
        until(lambda: hanging not in server.workers() and len(server.workers()) == 2)
        assert survivor in server.workers()


@pytest.mark.slow
def test_workers_that_hold_the_gil_are_replaced_and_say_where(env: Any) -> None:
    """The worker class is Gunicorn's own: nothing but its heartbeat tells that Python stands still."""
    settings = env(PRODSERVE={"GUNICORN": {"timeout": 2}})
    with serving("--workers", "2", "--worker-class", "gthread", env=settings) as server:
        before = server.workers(2)
        with ThreadPoolExecutor(8) as stuck:
            held = [stuck.submit(server.get, "/hold-gil/") for _ in range(8)]
            until(lambda: any("unresponsive for" in line for line in server.output.splitlines()))
            until(lambda: len(server.workers()) == 2 and not {*before} & {*server.workers()})
            for future in held:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    future.result(timeout=30)
        assert server.get("/").status == 200
        assert "in hold_gil" in server.output
