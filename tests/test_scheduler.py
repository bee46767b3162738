from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.worker.admission import QueueState
from django_prodserve.worker.concurrency_limit import (
    BURST_SECONDS,
    DISABLED_SECONDS,
    FORGET_SECONDS,
    PROBE_CPU_BOUND_SECONDS,
    PROBE_IO_BOUND_SECONDS,
    PROBE_MAX_SECONDS,
    PROBE_REQUESTS,
    STALL_SECONDS,
    AdaptiveConcurrencyLimit,
    WorkerUsage,
)
from django_prodserve.worker.sampling import UncontendedSamples
from django_prodserve.worker.scheduler import Scheduler
from django_prodserve.worker.thread_pool import (
    CALM_CHECKS,
    IDLE_PERIODS,
    STALL_CHECK_SECONDS,
    STALL_CHECK_SECONDS_CALM,
    LeaderFollowerPool,
    Promotion,
)

from .scheduler_host import QuietHost

NONE = UncontendedSamples(0, 0.0, 0.0)
COMPUTING, WAITING, HALF = (
    UncontendedSamples(10, 1.0, 0.02),
    UncontendedSamples(10, 0.1, 1.0),
    UncontendedSamples(10, 1.0, 0.6),
)


class Worker:
    """What a worker of 8 threads has done."""

    def __init__(self, cpus: float = 1.0, running: int = 8) -> None:
        self.turns = AdaptiveConcurrencyLimit(8, cpus)
        self.seen = WorkerUsage(running, 0, 0.0, 0.0)
        self.delayed = 0.0

    def after(self, seconds: float, cpu: float, ended: int = 0) -> WorkerUsage:
        running, before, spent, now, _ = self.seen
        self.seen = WorkerUsage(running, before + ended, spent + cpu * seconds, now + seconds, self.delayed)
        return self.seen

    def judge(self, samples: UncontendedSamples = NONE, cpu: float = 0.9, events: int = 500) -> int:
        self.turns.recompute(events, samples, self.after(1.0, cpu, 100))
        return self.turns.limit

    def look(self, seconds: float, cpu: float, ended: int = 0) -> bool:
        seen = self.after(seconds, cpu, ended)._replace(run_delay=0.0)
        return self.turns.raise_if_stalled(seen, lambda: self.delayed)


def test_while_others_are_refused_one_runs_at_a_time() -> None:
    worker = Worker()
    worker.turns.recompute(500, COMPUTING, worker.after(1.0, 0.9, 100), refusing=True)
    assert worker.turns.limit == 1


@pytest.mark.parametrize(
    ("samples", "cpus", "limit"),
    [(COMPUTING, 1.0, 2), (COMPUTING, 0.5, 2), (HALF, 1.0, 3), (WAITING, 1.0, 8), (COMPUTING, 3.0, 4)],
)
def test_so_many_run_as_keep_the_interpreter_busy(
    samples: UncontendedSamples, cpus: float, limit: int
) -> None:
    assert Worker(cpus).judge(samples) == limit


def test_nobody_takes_turns_where_it_does_not_matter() -> None:
    assert Worker(running=2).judge(COMPUTING, events=5) == 8
    assert Worker().judge(COMPUTING, cpu=0.2) == 8
    assert Worker().judge(NONE, cpu=0.2) == 8


def test_where_none_was_measured_some_run_alone_first() -> None:
    worker = Worker()
    assert worker.judge() == 1
    assert not worker.look(0.01, 1.0, ended=8)  # those that ran already
    assert not worker.look(0.01, 1.0, ended=PROBE_REQUESTS - 1)
    assert not worker.turns.needs_recompute(worker.seen)
    assert worker.turns.needs_recompute(worker.after(0.01, 1.0, ended=1))
    assert worker.judge(COMPUTING) == 2
    assert [worker.judge() for _ in range(int(PROBE_CPU_BOUND_SECONDS))] == [2] * (
        int(PROBE_CPU_BOUND_SECONDS) - 1
    ) + [1]


def test_a_trial_that_tells_nothing_is_followed_by_a_second_without_one() -> None:
    worker = Worker()
    assert worker.judge() == 1
    assert worker.turns.needs_recompute(worker.after(0.05, 1.0, ended=8 + PROBE_REQUESTS))
    worker.turns.recompute(100, NONE, worker.seen)
    assert worker.turns.limit == 8
    assert worker.judge() == 1


def test_those_that_wait_are_seldom_asked_again() -> None:
    worker = Worker()
    worker.judge(WAITING)
    assert [worker.judge() for _ in range(int(PROBE_IO_BOUND_SECONDS))] == [8] * (
        int(PROBE_IO_BOUND_SECONDS) - 1
    ) + [1]


def test_those_that_wait_more_than_they_compute_are_seldom_asked_too() -> None:
    """Each trial holds up the others for a moment, in which the CPU is idle."""
    worker = Worker()
    worker.judge(UncontendedSamples(10, 1.0, 2.0))
    assert [worker.judge() for _ in range(int(PROBE_IO_BOUND_SECONDS))] == [6] * (
        int(PROBE_IO_BOUND_SECONDS) - 1
    ) + [1]


def test_a_trial_of_those_that_wait_for_a_moment_each_is_short() -> None:
    worker = Worker()
    assert worker.judge() == 1
    assert not worker.turns.needs_recompute(worker.after(PROBE_MAX_SECONDS - 0.01, 0.2, ended=3))
    assert worker.turns.needs_recompute(worker.after(0.02, 0.2, ended=1))


@pytest.mark.parametrize("cpu", [1.0, 0.1])
def test_a_trial_of_those_that_compute_lasts_until_they_have(cpu: float) -> None:
    """Also on a machine on which others have the CPU."""
    worker = Worker()
    assert worker.judge() == 1
    worker.delayed = (1 - cpu) * 2 * PROBE_MAX_SECONDS
    assert not worker.turns.needs_recompute(
        worker.after(2 * PROBE_MAX_SECONDS, cpu, ended=8 + PROBE_REQUESTS - 1)
    )
    assert worker.turns.needs_recompute(worker.after(0.01, cpu, ended=1))


def test_one_that_runs_alone_and_waits_ends_the_trial() -> None:
    worker = Worker()
    worker.judge()
    worker.look(0.01, 1.0, ended=1)
    assert not worker.look(0.01, 0.1)
    assert not worker.look(0.011, 0.1)  # it seems so
    assert worker.look(0.01, 0.1)
    assert worker.turns.limit == 8


def test_others_run_beside_those_that_wait_after_all() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.03, 1.0, ended=1)
    assert not worker.look(0.021, 0.4)
    assert worker.look(0.01, 0.4)
    assert worker.turns.limit == 5  # as many as use one CPU
    assert not worker.look(0.021, 0.0)
    assert worker.look(0.01, 0.0)
    assert worker.turns.limit == 8


def test_a_raised_limit_ends_at_once_if_the_cpu_was_idle_for_a_moment_only() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.03, 1.0, ended=1)
    assert [worker.look(0.01, 0.05, ended=1) for _ in range(3)][-1]
    assert [worker.judge(COMPUTING, cpu=1.0) for _ in range(2)] == [2, 2]


def test_requests_that_end_one_by_one_do_not_hide_that_the_cpu_is_idle() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.03, 1.0, ended=1)
    assert [worker.look(0.01, 0.05, ended=1) for _ in range(3)] == [False, False, True]
    assert worker.turns.limit == 8


def test_a_raised_limit_stays_while_the_cpu_is_idle_and_ends_soon_after() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.03, 1.0, ended=1)
    assert [worker.look(0.01, 0.05, ended=1) for _ in range(3)][-1]
    assert [worker.judge(cpu=0.1) for _ in range(int(FORGET_SECONDS) - 1)] == [8] * (int(FORGET_SECONDS) - 1)
    assert [worker.judge(COMPUTING) for _ in range(2)] == [8, 2]


def test_who_waits_on_and_on_holds_up_the_others_once_in_a_while() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.03, 1.0, ended=1)
    assert not worker.look(0.021, 0.45)
    assert worker.look(0.01, 0.45)
    assert worker.turns.limit == 5
    assert [worker.judge(COMPUTING) for _ in range(int(DISABLED_SECONDS))] == [5] * (
        int(DISABLED_SECONDS) - 1
    ) + [2]


def test_a_worker_that_got_no_cpu_for_a_moment_has_not_waited() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.01, 1.0, ended=1)
    assert not any(worker.look(0.01, cpu) for cpu in (0.0, 0.5, 1.0, 1.0))


def test_who_waits_for_a_cpu_on_a_busy_machine_computes() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.01, 1.0, ended=1)
    for _ in range(8):
        assert not worker.look(0.02, 0.3, ended=1)
        worker.delayed += 0.005
    worker.delayed += 0.7
    assert worker.judge(cpu=0.2) == 2  # within the second


def test_long_ones_hold_up_the_others_for_a_moment_only() -> None:
    worker = Worker()
    worker.judge(COMPUTING)
    worker.look(0.01, 1.0, ended=1)
    looks = [worker.look(0.01, 1.0) for _ in range(12)]
    assert [number for number, more in enumerate(looks) if more] == [4, 9]
    assert worker.turns.limit == 4
    assert not worker.look(10 * STALL_SECONDS, 1.0)  # nobody waited meanwhile


def test_turns_that_leave_the_cpu_idle_while_somebody_waits_end() -> None:
    worker = Worker()
    assert worker.judge(COMPUTING) == 2
    for _ in range(40):
        worker.look(0.02, 0.3, ended=2)
    assert worker.judge() == 8
    assert [worker.judge() for _ in range(int(DISABLED_SECONDS))] == [8] * (int(DISABLED_SECONDS) - 1) + [
        1
    ]  # measured again


def test_what_is_known_is_kept_for_the_next_load_for_a_while() -> None:
    worker = Worker()
    assert worker.judge(COMPUTING) == 2
    assert [worker.judge(cpu=0.0, events=0) for _ in range(int(FORGET_SECONDS))] == [2] * (
        int(FORGET_SECONDS) - 1
    ) + [8]
    assert not worker.turns.needs_stall_checks


def test_a_load_after_a_rest_is_known_again_at_once() -> None:
    worker = Worker()
    assert worker.judge(COMPUTING) == 2
    worker.seen = worker.seen._replace(running=0)
    while worker.turns.is_limiting:
        worker.judge(cpu=0.0, events=0)
    worker.seen = worker.seen._replace(running=8)
    assert worker.turns.is_crowded(worker.seen.running)
    assert not worker.turns.needs_recompute(worker.after(0.5, 0.1))  # it began in the middle of a second
    assert worker.turns.needs_recompute(worker.after(BURST_SECONDS, 1.0))
    worker.turns.recompute(8, NONE, worker.seen)
    assert worker.turns.is_limiting
    assert not worker.turns.is_crowded(worker.seen.running)


def test_many_that_nobody_knows_are_let_run_alone_at_once() -> None:
    worker = Worker()
    assert worker.turns.is_crowded(worker.seen.running)
    worker.after(0.9, 0.0)
    assert not worker.turns.needs_recompute(worker.after(0.01, 1.0))
    assert not worker.turns.needs_recompute(worker.after(BURST_SECONDS / 2, 1.0))
    assert worker.turns.needs_stall_checks
    assert worker.turns.needs_recompute(worker.after(BURST_SECONDS, 1.0))
    worker.turns.recompute(8, NONE, worker.seen)
    assert worker.turns.limit == 1
    assert not worker.turns.needs_recompute(worker.after(0.01, 1.0, ended=8 + PROBE_REQUESTS - 1))
    assert worker.turns.needs_recompute(worker.after(0.01, 1.0, ended=1))
    worker.turns.recompute(16, COMPUTING, worker.seen)
    assert worker.turns.limit == 2


def test_many_that_wait_are_left_alone() -> None:
    worker = Worker()
    worker.turns.needs_recompute(worker.after(0.01, 0.1))
    assert worker.turns.needs_recompute(worker.after(BURST_SECONDS, 0.1))
    worker.turns.recompute(8, NONE, worker.seen)
    assert worker.turns.limit == 8
    assert not worker.turns.is_crowded(worker.seen.running)  # not asked again before they are few
    assert not worker.turns.needs_recompute(worker.after(10.0, 0.1))


def test_switched_off_no_request_is_held_back_or_measured() -> None:
    turns = AdaptiveConcurrencyLimit(8, adaptive=False)
    seen = WorkerUsage(8, 0, 0.0, 0.0)
    for second in range(1, 4):
        assert not turns.is_crowded(8)
        assert not turns.is_probing(8)
        assert not turns.needs_recompute(seen)
        seen = WorkerUsage(8, 100 * second, 0.9 * second, float(second))
        turns.recompute(500, COMPUTING, seen, refusing=second == 2)
        assert turns.limit == turns.steady_limit == 8
        assert not turns.is_limiting
        assert not turns.needs_stall_checks


class Work:
    """A request that has just arrived."""

    waited = 0.0

    def __init__(self, run: Callable[[], object]) -> None:
        self.run, self.arrived = run, time.monotonic()


class Site(QuietHost):
    """A scheduler that runs functions, and counts how many others ran when each began."""

    def __init__(self, slots: int, ceiling: int = 0) -> None:
        self.rows: set[int] = set()
        """Rows of the threads that live."""
        self.scheduler = Scheduler(slots, self, self, self, ceiling=ceiling, queue_timeout=1.0)
        self.pool: LeaderFollowerPool[Any] = self.scheduler.pool
        self.samples = NONE
        self.event = threading.Event()
        self.lock = threading.Lock()
        self.running = self.beside = self.done = self.looks = self.woken = 0
        self.watched = threading.Event()
        """A thread waits for the clients."""

    def wait_for_events(self, block: bool) -> None:
        if block:
            self.watched.set()
            self.event.wait()
            self.event.clear()
        else:
            self.looks += 1

    def serve(self, work: Any, row: int) -> None:
        with self.lock:
            self.running += 1
            self.beside += self.running - 1
        work.run()
        with self.lock:
            self.running -= 1
            self.done += 1

    def since(self) -> UncontendedSamples:
        return self.samples

    def run_delay(self) -> float:
        """Return how long the threads of this process waited for a CPU, as far as the system reports it."""
        total = 0
        for file in Path("/proc/self/task").glob("*/schedstat"):
            with suppress(OSError):
                total += int(file.read_text().split()[1])
        return total / 1e9

    def judge(self, samples: UncontendedSamples, *, refusing: bool = False) -> None:
        scheduler = self.scheduler
        scheduler.limiter._judged = WorkerUsage(0, 0, -10.0, time.monotonic() - 1)  # the CPU was busy
        scheduler.admission.overload.is_on, scheduler.admission.overload.target_delay = (
            refusing,
            -1.0,
        )  # it lasts
        self.samples, scheduler.events = samples, 100
        scheduler._next_second = 0.0
        scheduler.tick(time.monotonic())
        self.samples = NONE

    def thread_started(self, row: int) -> None:
        assert row not in self.rows
        self.rows.add(row)

    def thread_ends(self, row: int) -> None:
        self.rows.remove(row)

    def wake_main_thread(self) -> None:
        self.woken += 1

    def give(self, *functions: Callable[[], object]) -> None:
        self.pool.queue.extend(map(Work, functions))
        self.event.set()

    def until(self, done: int) -> float:
        """Tick as the worker's main thread does; return the seconds until so many were done."""
        started = time.monotonic()
        while self.done < done:
            assert time.monotonic() - started < 30
            now = time.monotonic()
            self.scheduler.tick(now)
            time.sleep(max(0.0, min(0.01, self.scheduler.tick_in(now))))
        return time.monotonic() - started


@contextmanager
def site(slots: int, ceiling: int = 0) -> Iterator[Site]:
    """The threads of a pool end with the process; here they sleep from the end of the block on."""
    made, interval = Site(slots, ceiling), sys.getswitchinterval()
    made.scheduler.start()
    try:
        yield made
    finally:
        made.pool.max_threads = made.pool.limit = 0
        sys.setswitchinterval(interval)


def compute(seconds: float) -> Callable[[], object]:
    def work() -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    return work


def take_turns(made: Site, *, refusing: bool = False) -> None:
    made.judge(COMPUTING, refusing=refusing)
    assert made.pool.limit == 2 - refusing


def test_real_computing_takes_turns() -> None:
    with site(6) as made:
        take_turns(made)
        made.give(*[compute(0.005)] * 40)
        made.until(40)
        assert made.beside <= 40 * 2  # one; on a machine that gives them no CPU more are let run


def test_real_waiting_does_not() -> None:
    gate = threading.Barrier(6)
    with site(6) as made:
        take_turns(made)
        made.give(*[lambda: gate.wait(20)] * 6)  # none ends before all run
        assert made.until(6) < 10


def test_all_that_wait_run_when_turns_end() -> None:
    gate = threading.Barrier(6)
    with site(6) as made:
        take_turns(made)
        made.give(*[lambda: gate.wait(20)] * 6)
        made.judge(UncontendedSamples(10, 0.01, 10.0))
        assert made.pool.limit == 6
        assert made.until(6) < 10


def test_while_refusing_the_clients_get_their_turn_between_requests() -> None:
    with site(6) as made:
        take_turns(made, refusing=True)
        made.give(*[compute(0.005)] * 20)
        made.watched.clear()
        made.until(20)
        # Between any two; where another load takes their CPU, a thread is woken that waits for the clients.
        assert made.looks >= 10 or made.watched.is_set()


def test_while_refusing_a_long_request_does_not_keep_the_clients_waiting() -> None:
    with site(6) as made:
        take_turns(made, refusing=True)
        made.give(made.watched.clear, lambda: made.watched.wait(20))
        assert made.until(2) < 10


def test_when_refusing_begins_the_main_thread_judges_at_once() -> None:
    with site(6) as made:
        take_turns(made)
        made.scheduler.after_events(0)
        assert not made.woken
        assert made.scheduler._refuses(QueueState(0, 0.0, 1.0), time.monotonic(), waited=100.0)
        assert made.scheduler.needs_evaluation
        made.scheduler.after_events(0)
        assert made.woken == 1  # by the thread that gets events
        made.scheduler.tick(time.monotonic())
        assert made.pool.promotion is Promotion.POLL_BETWEEN_REQUESTS
        assert not made.scheduler.needs_evaluation
        assert made.pool.limit == 1


def test_a_pool_that_promotes_on_stall_is_checked_less_often_while_it_moves() -> None:
    pool: LeaderFollowerPool[Any] = LeaderFollowerPool(2, Site(2))
    pool.promote(Promotion.ON_STALL)
    for _ in range(CALM_CHECKS):
        assert pool.tick_in == STALL_CHECK_SECONDS
        pool.moved += 1
        pool.promote_if_stalled()
    assert pool.tick_in == STALL_CHECK_SECONDS_CALM
    pool._size = 3  # the pool has started all of its threads
    pool.promote_if_stalled()  # nothing has moved
    assert pool.tick_in == STALL_CHECK_SECONDS


def test_somebody_waits_for_the_clients_when_nothing_is_refused_any_more() -> None:
    with site(6) as made:
        take_turns(made, refusing=True)
        made.give(compute(0.005), compute(0.005))
        made.until(2)
        made.watched.clear()
        gate = threading.Event()
        made.give(lambda: gate.wait(20))
        made.judge(COMPUTING)
        assert made.watched.wait(10)
        gate.set()
        made.until(3)


def await_rows(made: Site, count: int) -> None:
    """Wait until threads that were told to end have ended."""
    until = time.monotonic() + 20
    while len(made.rows) > count and time.monotonic() < until:
        time.sleep(0.01)
    assert len(made.rows) == count


def test_threads_that_wait_become_more_and_those_that_nobody_needs_end() -> None:
    gate = threading.Barrier(40)
    with site(6, ceiling=40) as made:
        made.give(*[lambda: gate.wait(20)] * 40)  # none ends before all run
        made.scheduler.after_events(0)
        made.until(40)
        assert made.scheduler.threads == 40
        for period in range(IDLE_PERIODS + 1):  # all threads were used in the first
            assert made.scheduler.threads == 40, period
            made.scheduler._next_end = 0.0
            made.scheduler._tick_second(time.monotonic())
        await_rows(made, 1)
        assert made.scheduler.threads == 6


def test_cycles_of_growth_and_end_leave_nothing_behind() -> None:
    with site(2, ceiling=8) as made:
        for cycle in range(200):
            gate = threading.Barrier(3)
            made.give(*[lambda gate=gate: gate.wait(20)] * 2)
            made.pool.promote_follower(beside=True)
            gate.wait(20)
            made.until(2 * cycle + 2)
            for _ in range(IDLE_PERIODS + 1):
                made.pool.end_unused()
        await_rows(made, made.pool._size)
        assert len(made.rows) <= 3


def test_an_overload_of_other_routes_is_refused_while_one_route_is_limited() -> None:
    made = Site(2)
    scheduler = Scheduler(2, made, made, made, lanes=True, queue_timeout=1.0)
    assert scheduler.lanes is not None
    scheduler.lanes.limited = "report"
    overload = scheduler.admission.overload
    overload.is_on, overload.target_delay = True, 0.0
    now, request = time.monotonic(), SimpleNamespace(path="/about/")
    told = []
    for _ in range(4):
        arrived: Any = SimpleNamespace(request=request, arrived=now, waited=0.0)
        told.append(bool(scheduler.submit(arrived, now + 0.1)))
    assert told == [False, False, True, True]
