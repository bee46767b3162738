"""Threads and connections are named with what a reader needs to find them."""

from __future__ import annotations

import functools
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.startup.fork_safety import ForkSafetyCheck, connected, foreign_threads, kind, started_by


def wait(stop: threading.Event) -> None:
    stop.wait()


class Poller(threading.Thread):
    def __init__(self, stop: threading.Event) -> None:
        super().__init__()
        self.stop = stop

    def run(self) -> None:
        self.stop.wait()


@contextmanager
def running(make: Any) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = make(stop)
    thread.start()
    yield thread
    if isinstance(thread, threading.Timer):
        thread.cancel()
    stop.set()
    thread.join()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda stop: threading.Thread(target=wait, args=(stop,)), "wait"),
        (lambda stop: threading.Thread(target=functools.partial(wait, stop)), "wait"),
        (lambda stop: threading.Timer(3600, wait, (stop,)), "wait"),
        (Poller, "run"),
        (lambda stop: threading.Thread(target=stop.wait), "wait"),
    ],
    ids=["target", "partial", "Timer", "subclass", "no code of the project's"],
)
def test_a_thread_is_known_by_what_it_runs(make: Any, name: str) -> None:
    with running(make) as thread:
        assert started_by(thread).startswith(f" ({name} in ")
        assert ", line " in started_by(thread)
        if name == "run" or "Timer" in repr(thread):
            assert "test_fork_safety.py" in started_by(thread)


def test_a_task_of_a_pool_is_known_by_what_it_does_now() -> None:
    stop, begun = threading.Event(), threading.Event()

    def task() -> None:
        begun.set()
        stop.wait()

    with ThreadPoolExecutor(1, "mail") as pool:
        pool.submit(task)
        begun.wait()
        line = next(line for line in ForkSafetyCheck().lines(preloaded=True) if "'mail_0'" in line)
        stop.set()
    assert "(task in " in line
    assert "test_fork_safety.py, line " in line


@pytest.mark.parametrize(("preloaded", "advised"), [(True, True), (False, False)])
def test_what_loading_has_started_can_be_loaded_in_the_worker(preloaded: bool, advised: bool) -> None:
    alive = ForkSafetyCheck()
    with running(Poller) as thread:
        line = next(line for line in alive.lines(preloaded=preloaded) if repr(thread.name) in line)
        assert ("--no-preload" in line) is advised
        again = next(
            line for line in ForkSafetyCheck().lines(preloaded=preloaded) if repr(thread.name) in line
        )
        assert "--no-preload" not in again


def test_as_many_as_run_again_in_a_fork_raise_no_alarm() -> None:
    before = len(list(ForkSafetyCheck().lines(preloaded=True)))
    with running(Poller) as one, running(Poller):
        assert len(list(ForkSafetyCheck().lines(preloaded=True))) == before + 2
        assert len(list(ForkSafetyCheck().lines(preloaded=True, returning=[kind(one)]))) == before + 1
        assert len(list(ForkSafetyCheck().lines(preloaded=True, returning=[kind(one)] * 2))) == before
        one.name = "loguru-writer-1"
        assert len(list(ForkSafetyCheck().lines(preloaded=True))) == before + 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_connection_is_known_by_its_peer(family: int, tmp_path: Path) -> None:
    place: Any = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "db.sock")
    before = ForkSafetyCheck()
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(place)
        listener.listen()
        assert connected() == sorted(before.early_sockets)  # who listens has no peer
        client.connect(listener.getsockname())
        peer = str(place) if family == socket.AF_UNIX else f"127.0.0.1:{listener.getsockname()[1]}"
        assert (client.fileno(), peer) in connected()
        assert any(
            f"the open connection to {peer}: open it in" in line for line in before.lines(preloaded=True)
        )


def test_pairs_and_pipes_are_this_process_s_own() -> None:
    before = connected()
    left, right = socket.socketpair()
    receiving, sending = os.pipe()
    assert connected() == before
    left.close()
    right.close()
    os.close(receiving)
    os.close(sending)


def test_threads_of_c_libraries_are_known_by_the_name_they_gave_themselves(tmp_path: Path) -> None:
    named = {
        str(os.getpid()): "python",
        "999001": "python",
        "999002": "grpc_global_tim",
        "999003": "jemalloc_bg_thd",
    }
    for task, name in named.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "comm").write_text(f"{name}\n")
    assert foreign_threads(tmp_path) == ["grpc_global_tim"]
    assert foreign_threads(tmp_path / "nowhere") == []
