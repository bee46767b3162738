from __future__ import annotations

import signal
from typing import Any

import pytest

from django_prodserve.arbiter import policies
from django_prodserve.arbiter.policies import MemoryBudget, WorkerExit, WorkerState
from django_prodserve.scoreboard.board import REASONS
from django_prodserve.utils.units import GIB, MIB


def seen(**facts: Any) -> WorkerState:
    return WorkerState(**{"pid": 1, "age": 600.0, "threads": 4} | facts)


@pytest.mark.parametrize(
    ("facts", "hangs"),
    [
        ({"serving": False, "age": 59.0}, False),
        ({"serving": False, "age": 61.0}, True),
        ({"serving": True, "age": 6000.0}, False),
    ],
)
def test_a_worker_that_hangs_at_boot(facts: dict[str, Any], hangs: bool) -> None:
    assert bool(policies.hangs_at_boot(seen(**facts))) is hangs


def test_a_worker_that_runs_no_python() -> None:
    assert policies.is_unresponsive(seen(silent=29.0), 30) is None
    verdict = policies.is_unresponsive(seen(silent=31.0), 30)
    assert verdict is not None
    assert "unresponsive for 31 s" in verdict.line
    assert policies.is_unresponsive(seen(silent=999.0), 0) is None
    assert policies.is_unresponsive(seen(silent=999.0, serving=False), 30) is None


def test_after_one_frozen_worker_the_next_is_noticed_sooner() -> None:
    assert policies.unresponsive_limit(20, since_last=1000) == 20
    assert policies.unresponsive_limit(20, since_last=30) == 5
    assert policies.unresponsive_limit(4, since_last=30) == 2
    assert policies.unresponsive_limit(1, since_last=30) == 1
    assert policies.unresponsive_limit(0, since_last=30) == 0


@pytest.mark.parametrize(
    ("facts", "waiting", "stuck"),
    [
        ({"busy": 4, "idle": 21.0}, 1, True),
        ({"busy": 4, "idle": 19.0}, 1, False),  # a request has just ended or begun
        ({"busy": 3, "idle": 21.0}, 1, False),  # a thread is free
        ({"busy": 4, "idle": 21.0}, 0, False),  # nobody waits
        ({"busy": 4, "idle": 21.0, "serving": False}, 1, False),
    ],
)
def test_a_worker_whose_threads_are_all_stuck(facts: dict[str, Any], waiting: int, stuck: bool) -> None:
    assert bool(policies.is_starved(seen(**facts), waiting)) is stuck


def room(used: int | None = None, limit: int = GIB) -> MemoryBudget:
    return MemoryBudget(limit=limit, used=used, master=50 * MIB)


def workers(*sizes: int, age: float = 600.0) -> list[WorkerState]:
    return [
        seen(pid=number, memory=size * MIB, planned=50 * MIB, age=age) for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("workers", "used", "since_last", "expected"),
    [
        (workers(60, 70), 200, 1000, None),
        (workers(300, 500), 700, 1000, (1, "more than its share of 410.2 MiB", False)),
        (workers(300, 500), None, 1000, (1, "more than its share", False)),
        (workers(300, 500), 700, 59, None),  # one at a time, a minute apart
        (workers(300, 500, age=59), 700, 1000, None),  # too young to be worth it
        (workers(390, 400), 850, 1000, (1, "850 MiB of 1 GiB used", False)),  # the replacement fits
        (workers(390, 400), 900, 1000, (1, "900 MiB of 1 GiB used", True)),
        (workers(390, 400), 930, 1000, (1, "930 MiB of 1 GiB used", True)),  # it does not: go first
        (workers(390, 400, age=3), 930, 1, (1, "930 MiB of 1 GiB", True)),  # the kernel would kill one
        (workers(60, 70, age=3), 930, 1, None),  # others take the memory: nothing would be gained
        ([], 1000, 1000, None),
    ],
)
def test_the_fattest_worker_goes_before_the_kernel_acts(
    workers: list[WorkerState], used: int | None, since_last: float, expected: tuple[int, str, bool] | None
) -> None:
    found = policies.largest_to_replace(workers, room(None if used is None else used * MIB), since_last)
    if expected is None:
        assert found is None
        return
    assert found is not None
    worker, verdict, at_once = found
    assert (worker.pid, at_once) == (expected[0], expected[2])
    assert expected[1] in verdict.line
    assert verdict.reason == "memory"


def test_a_leak_that_is_faster_than_its_remedy_is_met_early() -> None:
    fast = MemoryBudget(limit=GIB, used=600 * MIB, master=50 * MIB, growth=600 * MIB)
    found = policies.largest_to_replace(workers(200, 350, age=3), fast, since_last=1)
    assert found is not None
    assert found[2]
    slow = MemoryBudget(limit=GIB, used=600 * MIB, master=50 * MIB, growth=60 * MIB)
    assert policies.largest_to_replace(workers(200, 350, age=3), slow, since_last=1) is None
    begins = MemoryBudget(limit=GIB, used=300 * MIB, master=50 * MIB, growth=2 * GIB)
    assert policies.largest_to_replace(workers(100, 150, age=3), begins, since_last=1) is None


def test_who_is_leaving_counts_as_gone() -> None:
    assert (
        policies.largest_to_replace(workers(390, 400, age=3), room(930 * MIB).without(400 * MIB), 1) is None
    )
    assert room(100).without(200).used == 0
    assert room(None).without(200).used is None


def test_memory_is_looked_at_more_often_where_little_is_left() -> None:
    assert policies.until_next_look(None) == 1.0
    assert policies.until_next_look(room(None)) == 1.0
    assert policies.until_next_look(room(0, limit=100 * GIB)) == 1.0
    assert 0.05 < policies.until_next_look(room(100 * MIB)) < 0.2
    assert policies.until_next_look(room(1000 * MIB)) == 0.05


def test_failing_workers_are_tried_less_and_less_often() -> None:
    waits = [policies.back_off(rounds) for rounds in range(12)]
    assert waits[:5] == [0.0, 0.25, 0.5, 1.0, 2.0]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    assert not policies.gives_up(policies.MAX_FAILED_ROUNDS, serving=1)
    assert not policies.gives_up(policies.MAX_FAILED_ROUNDS - 1, serving=0)
    assert policies.gives_up(policies.MAX_FAILED_ROUNDS, serving=0)


@pytest.mark.parametrize(
    ("end", "reason", "words"),
    [
        (
            WorkerExit(code=None, number=signal.SIGKILL, out_of_memory=True),
            "out of memory",
            "fewer workers (--workers)",
        ),
        (WorkerExit(code=None, number=signal.SIGKILL), "killed", "by another process or user"),
        (WorkerExit(code=None, number=signal.SIGSEGV), "crashed", "SIGSEGV"),
        (WorkerExit(code=None, number=64), "crashed", "SIGRTMAX"),
        (WorkerExit(code=None, number=70), "crashed", "signal 70"),
        (WorkerExit(code=3, served=False), "boot", "exit code 3"),
        (WorkerExit(code=1), "crashed", "exited with code 1"),
        (WorkerExit(code=0), "crashed", "by itself"),
        (WorkerExit(code=0, recycles=True), None, ""),
        (WorkerExit(code=0, recycles=True, served=False), "boot", "exit code 0"),
        (WorkerExit(code=None, number=signal.SIGKILL, ours=True), None, ""),
        (
            WorkerExit(code=None, number=signal.SIGKILL, ours=True, out_of_memory=True),
            "out of memory",
            "kernel",
        ),
    ],
)
def test_why_a_worker_has_ended(end: WorkerExit, reason: str | None, words: str) -> None:
    verdict = policies.why_it_ended(end)
    assert (verdict and verdict.reason) == reason
    if verdict is not None:
        assert words in verdict.line
        assert verdict.reason in REASONS


@pytest.mark.parametrize(
    ("used", "fits"), [(None, 8), (0, 8), (550 * MIB, 8), (750 * MIB, 4), (930 * MIB, 0), (2000 * MIB, 0)]
)
def test_how_many_workers_fit_beside_another_generation(used: int | None, fits: int) -> None:
    room = MemoryBudget(limit=1000 * MIB, used=used, master=0)
    assert policies.fits_beside(room, 8, 50 * MIB) == fits


def test_what_a_worker_takes_when_it_begins() -> None:
    assert policies.startup_memory(56 * MIB, preloaded=True) == 14 * MIB
    assert policies.startup_memory(56 * MIB, preloaded=False) == 56 * MIB
