"""How many threads a worker has: they follow requests that wait, and nothing else."""

from __future__ import annotations

import itertools

import pytest

from django_prodserve.worker.thread_growth import (
    CHECK_SECONDS,
    MAX_PAUSE_SECONDS,
    PAUSE_SECONDS,
    PROBE_SECONDS,
    Hold,
    ThreadGrowth,
    Usage,
    is_late,
)


class Load:
    """A worker under a load, whose clock only this test moves."""

    def __init__(self, growth: ThreadGrowth) -> None:
        self.growth, self.now, self.ended, self.cpu, self.delay = growth, 100.0, 0.0, 0.0, 0.0

    def run(
        self,
        seconds: float,
        *,
        queued: int = 5,
        demand: float = 0.05,
        delay: float = 0.0,
        rate: float = 0.0,
        late: float = 0.0,
        idle: bool = False,
    ) -> int:
        """Check as often as a worker does; return the number of threads then."""
        for _ in range(round(seconds / CHECK_SECONDS)):
            self.now += CHECK_SECONDS + 1e-9
            self.ended += rate * CHECK_SECONDS
            self.cpu += demand * CHECK_SECONDS
            self.delay += delay * CHECK_SECONDS
            running = 1 if idle else self.growth.threads
            counted = 0 if idle else queued
            usage = Usage(
                self.now, running, counted, int(self.ended), self.cpu, self.delay, int(late * running)
            )
            self.growth.check(usage)
        return self.growth.threads


@pytest.fixture
def load() -> Load:
    return Load(ThreadGrowth(16, 256))


def test_requests_that_wait_get_a_hundred_threads_within_a_second(load: Load) -> None:
    assert load.run(0.9) >= 100
    assert load.growth.may_grow


def test_growth_ends_at_the_ceiling_and_says_so(load: Load) -> None:
    assert load.run(10.0) == 256
    assert load.growth.hold is Hold.MAXIMUM
    assert not load.growth.may_grow


def test_a_number_that_is_fixed_never_changes() -> None:
    load = Load(ThreadGrowth(16, 0))
    assert load.run(5.0) == 16
    assert not load.growth.is_range


@pytest.mark.parametrize("short", [{"demand": 0.95}, {"delay": 0.9}, {"demand": 0.4, "delay": 0.5}])
def test_requests_that_compute_or_wait_for_a_cpu_get_no_more(load: Load, short: dict[str, float]) -> None:
    assert load.run(5.0, rate=50, **short) == 16
    assert load.growth.hold is Hold.CPU


def test_free_threads_or_an_empty_queue_grow_nothing(load: Load) -> None:
    assert load.run(5.0, queued=0) == 16
    assert load.run(5.0, idle=True) == 16
    assert load.growth.hold is Hold.NOTHING


def test_a_slow_database_gets_one_probe_that_is_undone_and_the_next_ones_come_more_rarely(
    load: Load,
) -> None:
    sizes = [load.run(CHECK_SECONDS, rate=2, late=1.0) for _ in range(3000)]
    assert set(sizes) == {16, 24}
    assert load.growth.hold is Hold.SLOWER
    starts = [at for at in range(1, 3000) if (sizes[at - 1], sizes[at]) == (16, 24)]
    pauses = [(after - before) * CHECK_SECONDS for before, after in itertools.pairwise(starts)]
    assert pauses[0] == pytest.approx(PAUSE_SECONDS + PROBE_SECONDS, abs=1)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(MAX_PAUSE_SECONDS + PROBE_SECONDS, abs=1)


def test_a_probe_that_ends_more_requests_is_kept_and_followed_by_the_next(load: Load) -> None:
    for _ in range(200):
        load.run(CHECK_SECONDS, rate=load.growth.threads * 2.0, late=1.0)
    assert load.growth.threads >= 81


def test_a_few_late_requests_among_many_hold_nothing_back(load: Load) -> None:
    assert load.run(2.0, late=0.3) >= 100


def test_a_quiet_minute_gives_back_what_nobody_used(load: Load) -> None:
    load.run(3.0)
    assert load.growth.shrink(40)
    assert load.growth.threads == 40
    assert load.growth.shrink(3)
    assert load.growth.threads == 16
    assert not load.growth.shrink(2)


@pytest.mark.parametrize(
    ("seconds", "usual", "late"),
    [(5.0, None, False), (0.15, 0.001, False), (0.25, 0.001, True), (3.0, 1.0, False), (4.1, 1.0, True)],
)
def test_late_is_what_takes_much_longer_than_its_route(
    seconds: float, usual: float | None, late: bool
) -> None:
    assert is_late(seconds, usual) is late
