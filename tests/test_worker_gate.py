"""A burst is served, a standing queue is refused, and normal times come back at once."""

from __future__ import annotations

import pytest

from django_prodserve.worker.gate import Overload

STEP = 0.001


def load(
    times_capacity: float, seconds: float, overload: Overload, backlog: float = 0.0, now: float = 0.0
) -> tuple[float, float, float]:
    """Offer so many times the capacity for so long; return what was refused and is left, and the time."""
    refused = 0.0
    for _ in range(round(seconds / STEP)):
        now += STEP
        work = times_capacity * STEP
        was_on = overload.is_on
        if overload.refuses(backlog, now):
            refused += work
            if not was_on:  # the gate drops the eldest
                refused += backlog - overload.target
                backlog = overload.target
        else:
            backlog += work
        backlog = max(0.0, backlog - STEP)
    return refused, backlog, now


@pytest.mark.parametrize("after", [0.1, 0.5, 0.9], ids="then {} of the capacity".format)
def test_a_burst_of_four_times_the_capacity_for_two_seconds_is_served(after: float) -> None:
    overload = Overload(2.0)
    refused, backlog, now = load(4, 2, overload)
    more, _, _ = load(after, 20, overload, backlog, now)
    assert refused == more == 0


@pytest.mark.parametrize(("times", "within"), [(10, 1.0), (4, 3.0), (2, 5.0), (1.5, 8.0)])
def test_a_standing_overload_is_refused_soon_and_what_is_served_waits_little(
    times: float, within: float
) -> None:
    overload = Overload(2.0)
    _, backlog, now = load(times, within, overload)
    assert overload.is_on
    refused, backlog, now = load(times, 10, overload, backlog, now)
    assert refused == pytest.approx((times - 1) * 10, rel=0.1)
    assert backlog <= overload.target + times * STEP
    refused, backlog, now = load(0.5, 1, overload, backlog, now)
    assert refused < 0.01
    assert backlog < overload.target


def test_who_waits_long_beside_a_worker_that_refuses_is_in_no_burst() -> None:
    overload = Overload(2.0)
    assert not overload.refuses(1.9, 1.0, others_do=True)
    assert not overload.refuses(2.1, 1.1)
    assert overload.refuses(2.1, 1.2, others_do=True)
    assert overload.refuses(0.3, 1.3)
    assert not overload.refuses(0.1, 1.4)


def test_zero_never_refuses() -> None:
    refused, _, _ = load(10, 10, Overload(0))
    assert refused == 0


def test_a_full_load_is_no_overload() -> None:
    refused, _, _ = load(1.0, 30, Overload(2.0), backlog=1.0)
    assert refused == 0
