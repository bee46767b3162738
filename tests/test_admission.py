"""A burst is served, a standing queue is refused, and normal times come back at once."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.worker.admission import MAX_DELAY_TIMEOUTS, OverloadDetector
from django_prodserve.worker.sampling import UncontendedSamples
from django_prodserve.worker.scheduler import Scheduler
from django_prodserve.worker.switch_interval import SHORT_SECONDS

from .scheduler_host import QuietHost

STEP = 0.001


def load(
    times_capacity: float, seconds: float, overload: OverloadDetector, backlog: float = 0.0, now: float = 0.0
) -> tuple[float, float, float]:
    """Offer so many times the capacity for so long; return what was refused and is left, and the time."""
    refused = 0.0
    for _ in range(round(seconds / STEP)):
        now += STEP
        work = times_capacity * STEP
        was_on = overload.is_on
        if overload.update(backlog, backlog, 1.0, now):
            refused += work
            if not was_on:  # the worker sheds the oldest
                refused += backlog - overload.target_delay
                backlog = overload.target_delay
        else:
            backlog += work
        backlog = max(0.0, backlog - STEP)
    return refused, backlog, now


@pytest.mark.parametrize("after", [0.1, 0.5, 0.9], ids="then {} of the capacity".format)
def test_a_burst_of_four_times_the_capacity_for_two_seconds_is_served(after: float) -> None:
    overload = OverloadDetector(2.0)
    refused, backlog, now = load(4, 2, overload)
    more, _, _ = load(after, 20, overload, backlog, now)
    assert refused == more == 0


@pytest.mark.parametrize(("times", "within"), [(10, 0.5), (4, 3.0), (2, 5.0), (1.5, 8.0)])
def test_a_standing_overload_is_refused_soon_and_what_is_served_waits_little(
    times: float, within: float
) -> None:
    overload = OverloadDetector(2.0)
    _, backlog, now = load(times, within, overload)
    assert overload.is_on
    refused, backlog, now = load(times, 10, overload, backlog, now)
    assert refused == pytest.approx((times - 1) * 10, rel=0.1)
    assert backlog <= overload.target_delay + times * STEP
    refused, backlog, now = load(0.5, 1, overload, backlog, now)
    assert refused < 0.01
    assert backlog < overload.target_delay


def test_who_waits_long_beside_a_worker_that_refuses_is_in_no_burst() -> None:
    overload = OverloadDetector(2.0)
    assert not overload.update(1.9, 1.9, 1.0, 1.0, others_do=True)
    assert not overload.update(2.1, 2.1, 1.0, 1.1)
    assert overload.update(2.1, 2.1, 1.0, 1.2, others_do=True)
    assert overload.update(0.3, 0.3, 1.0, 1.3)
    assert not overload.update(0.1, 0.1, 1.0, 1.4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("after", [0.5, 0.8])
def test_a_burst_of_requests_that_come_at_random_is_served(seed: int, after: float) -> None:
    """Its backlog is long for many seconds, and does not become shorter at every look."""
    overload, random, backlog = OverloadDetector(2.0), Random(seed), 0.0
    for step in range(2000):
        now = step / 100
        rate = 4.0 if now < 2 else after
        arrived = sum(random.random() < rate * 0.01 * 80 / 4 for _ in range(4))  # 80 a second are served
        assert not overload.update(backlog, backlog, 1.0, now)
        backlog = max(0.0, backlog + arrived / 80 - 0.01)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("times", [1.2, 1.5])
def test_a_moderate_overload_that_comes_at_random_is_refused_in_time(seed: int, times: float) -> None:
    """Its backlog grows, but not at every check."""
    overload, random, backlog, began = OverloadDetector(2.0), Random(seed), 0.0, math.inf
    for step in range(12000):
        now = step / 100
        arrived = sum(random.random() < times * 0.01 * 40 / 4 for _ in range(4))  # 40 a second are served
        backlog = max(0.0, backlog + arrived / 40 - 0.01)
        if backlog <= overload.timeout:
            began = math.inf
        else:
            began = min(began, now)
        if overload.update(backlog, backlog, 1.0, now):
            break
    assert overload.is_on
    assert now - began <= 20.1


def test_the_rate_of_a_queue_is_measured() -> None:
    """The limit and the mean time move with the load: here they say 20 a second, and 10 are served."""
    queue = Idle()
    try:
        for number in range(80):
            queue.enter(10 + number / 100)
        assert queue.scheduler._rate(11.0) == 20
        for second in (11, 12, 13):
            queue.scheduler.tick(second)
            queue.pool.ended += 10
        assert queue.scheduler._rate(14.0) == pytest.approx(10)
        queue.pool.queue.clear()
        queue.scheduler.tick(14)
        assert queue.scheduler._rate(20.0) == queue.scheduler.limiter.steady_limit / 0.1
    finally:
        queue.scheduler.disown()


def test_requests_that_no_thread_ends_are_refused_as_they_become_more() -> None:
    overload = OverloadDetector(2.0)
    refused = [overload.update(step / 10, 0.1 + step / 100, 1.0, step / 10) for step in range(100)]
    assert True in refused[:50]
    assert not any(refused[:20])


def test_a_queue_that_only_stands_is_refused_after_a_while() -> None:
    """As many clients as always wait for their answers: 6 s of work for the worker, neither more nor less."""
    overload = OverloadDetector(2.0)
    refused = [overload.update(6.0, 6.0, 1.0, step / 10) for step in range(120)]
    assert not any(refused[:90])
    assert all(refused[105:])


def test_zero_never_refuses() -> None:
    refused, _, _ = load(10, 10, OverloadDetector(0))
    assert refused == 0


def test_a_full_load_is_no_overload() -> None:
    refused, _, _ = load(1.0, 30, OverloadDetector(2.0), backlog=1.0)
    assert refused == 0


class Queue(QuietHost):
    """A scheduler whose requests take 0.1 s, two at a time. None of its threads is started."""

    def __init__(self) -> None:
        self.waiting = 0.0
        self.scheduler = Scheduler(4, self, self, self, queue_timeout=2.0)
        self.scheduler.limiter.steady_limit, self.scheduler.mean_seconds = 2, 0.1
        self.pool, self.overload = self.scheduler.pool, self.scheduler.admission.overload

    def enter(self, now: float, waited: float = 0.0) -> list[float]:
        """Let a request in; return when those arrived that are refused for it."""
        request: Any = SimpleNamespace(arrived=now, waited=waited)
        return [refused.arrived for refused in self.scheduler.submit(request, now)]

    def unaccepted(self) -> float:
        return self.waiting

    def wait_for_events(self, block: bool) -> None:
        raise AssertionError

    def serve(self, work: Any, row: int) -> None:
        raise AssertionError

    def thread_started(self, row: int) -> None:
        raise AssertionError

    def thread_ends(self, row: int) -> None:
        raise AssertionError

    def since(self) -> UncontendedSamples:
        return UncontendedSamples(0, 0.0, 0.0)


@pytest.fixture
def queue() -> Iterator[Queue]:
    interval = sys.getswitchinterval()
    yield Queue()
    sys.setswitchinterval(interval)


def test_what_the_kernel_holds_counts_as_soon_as_somebody_has_waited_for_long(queue: Queue) -> None:
    queue.waiting = 20 * MAX_DELAY_TIMEOUTS * 2  # of which nothing is served
    assert not any(queue.enter(10 + number / 100) for number in range(30))  # nobody has waited 0.5 s yet
    assert queue.enter(10.6) == [10.6]
    assert queue.scheduler.needs_evaluation
    assert sys.getswitchinterval() == pytest.approx(SHORT_SECONDS)


class Idle(Queue):
    """One whose threads may start: each waits for what never comes, until the process ends."""

    def wait_for_events(self, block: bool) -> None:
        threading.Event().wait()

    def serve(self, work: Any, row: int) -> None:
        threading.Event().wait()

    def thread_started(self, row: int) -> None:
        pass


@pytest.mark.parametrize(("before", "while_refusing"), [(0.005, 0.001), (0.002, 0.002), (0.05, 0.05)])
def test_a_switch_interval_that_the_project_has_set_is_kept(before: float, while_refusing: float) -> None:
    default = sys.getswitchinterval()
    sys.setswitchinterval(before)
    queue = Idle()
    try:
        for number in range(260):
            queue.enter(10 + number / 1000)
        assert queue.enter(11.0) == [11.0]
        assert sys.getswitchinterval() == pytest.approx(while_refusing)
        queue.pool.queue.clear()
        for second in range(20, 30):
            queue.scheduler.tick(second)
        assert not queue.overload.is_on
        assert sys.getswitchinterval() == pytest.approx(before)
    finally:
        queue.scheduler.disown()
        sys.setswitchinterval(default)


@pytest.mark.parametrize(("times", "seconds", "told"), [(4, 1.5, False), (5, 1.1, False), (10, 0.9, True)])
def test_many_times_the_capacity_are_told_by_what_was_served_meanwhile(
    queue: Queue, times: int, seconds: float, told: bool
) -> None:
    """The queue is more than 4 s long at the end; 20 requests a second are served."""
    for number in range(round(seconds * 20 * times)):
        queue.pool.ended = number // times
        while len(queue.pool.queue) > number - queue.pool.ended:
            queue.pool.queue.popleft()
        queue.enter(100 + number / (20 * times))
    assert queue.scheduler.admission.delay(queue.scheduler._queue(100 + seconds)) > 4 or told
    assert queue.overload.is_on == told


def test_who_has_waited_in_the_kernel_has_waited(queue: Queue) -> None:
    for number in range(5):
        assert not queue.enter(10 + number / 1000, waited=1.0)
    assert queue.scheduler.admission.delay(queue.scheduler._queue(10.1)) == pytest.approx(1.1)


def test_the_newest_are_told_first_and_when_it_is_known_how(queue: Queue) -> None:
    for number in range(260):
        assert not queue.enter(10 + number / 1000)
    assert queue.enter(11.0) == [11.0]  # the main thread has not judged yet
    queue.scheduler.needs_evaluation = False
    refused = queue.enter(11.1)
    assert refused[0] == 11.1
    assert refused[1:] == sorted(refused[1:], reverse=True)
    assert len(refused) + len(queue.pool.queue) == 261
    assert [queued.arrived for queued in queue.pool.queue][-1] == pytest.approx(10.259)
