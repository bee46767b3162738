from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from django_prodserve.cli.watch import printable, render, sparkline
from django_prodserve.monitoring.rates import Point, latest, percentile, points, steadily_waiting
from django_prodserve.scoreboard.history import Sample
from django_prodserve.scoreboard.slot import BOUNDS, BUCKETS


def sample(clock: float, requests: int, *, board: int = 1, bucket: int = 0, **other: Any) -> Sample:
    """Return a server that has answered so many requests, all of them in one bucket."""
    counts = tuple(requests if index == bucket else 0 for index in range(BUCKETS))
    known: dict[str, Any] = {"refused": 0, "aborted": 0, "busy": 0, "waiting": 0, "memory": 0, **other}
    return Sample(
        time=1000 + clock,
        clock=clock,
        board=board,
        classes=(0, requests, 0, 0, 0),
        latency=counts,
        queued=counts,
        **known,
    )


def test_rates_are_differences_over_the_last_seconds() -> None:
    samples = [sample(float(second), 10 * second) for second in range(20)]
    samples += [sample(20.0, 790, refused=30, busy=3, waiting=2, memory=5)]
    last = latest(samples)
    assert last == points(samples)[-1]
    assert last.requests == pytest.approx((790 - 150) / 5)
    assert last.classes == pytest.approx((0, last.requests, 0, 0, 0))
    assert last.refused == 6
    assert (last.busy, last.waiting, last.memory) == (3, 2, 5)
    assert points(samples)[10].requests == 10


def test_a_reload_gives_no_negative_rates() -> None:
    samples = [sample(float(second), 1000 * second) for second in range(5)]
    samples += [sample(5.0 + second, 7 * second, board=2) for second in range(3)]
    rates = [point.requests for point in points(samples)]
    assert rates[0] is rates[5] is None
    assert rates[1:5] == [1000] * 4
    assert rates[6:] == [7, 7]


def test_a_count_that_seems_to_shrink_for_an_instant_is_no_negative_rate() -> None:
    last = latest([sample(1.0, 100), sample(2.0, 90)])
    assert last.requests == 0
    assert last.p95 is None


def test_one_sample_tells_no_rate() -> None:
    last = latest([sample(1.0, 100, busy=2)])
    assert (last.requests, last.p50, last.refused, last.busy) == (None, None, None, 2)


def test_a_longer_window_sees_what_a_short_one_has_forgotten() -> None:
    samples = [sample(float(second), 100, refused=60 if second >= 30 else 0) for second in range(70)]
    assert latest(samples).refused == 0
    minute = latest(samples, 60.0)
    assert (minute.refused, minute.seconds) == (1, 60)


def test_who_waits_for_a_moment_does_not_wait_steadily() -> None:
    waiting = [sample(float(second), 0, waiting=number) for second, number in enumerate((9, 0, 5, 3, 4))]
    assert steadily_waiting(waiting) == 3
    assert steadily_waiting(waiting[:-1]) == 0


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([0] * BUCKETS, 0.5, None),
        ([100, *[0] * (BUCKETS - 1)], 0.5, 0.0005),
        ([50, 50, *[0] * (BUCKETS - 2)], 0.99, 0.001 + 0.0015 * 0.98),
        ([*[0] * (BUCKETS - 1), 1], 0.5, BOUNDS[-1]),
        ([99, *[0] * (BUCKETS - 2), 1], 0.99, 0.001),
    ],
)
def test_percentiles_lie_within_their_bucket(
    buckets: list[int], share: float, expected: float | None
) -> None:
    found = percentile(buckets, share)
    assert found == (None if expected is None else pytest.approx(expected))


WORKER: dict[str, Any] = {
    **{"pid": 12, "state": "serving", "threads": 4, "concurrency_limit": 2, "busy": 0, "queue": 0},
    **{"async": 0, "loop": None, "websockets": 0},
    **{"connections": 3, "requests": 70, "memory": 2**20, "share": None, "cpu": 1.0, "age": 3.0},
    "oldest": None,
}
QUIET = Point(time=1000.0, requests=10.0, classes=(0.0, 10.0, 0.0, 0.0, 0.0), refused=0.0)


def test_a_path_gives_no_orders_to_a_terminal() -> None:
    assert printable("GET /\x1b]0;owned\x07\u202e\x9b2J\n") == "GET /?]0;owned???2J?"


def test_a_screen_is_never_wider_than_its_terminal() -> None:
    known = {
        **{"pid": 4711, "bind": ["127.0.0.1:8000"], "generation": 1234, "uptime": 99999.0},
        **{
            "rates": vars(replace(QUIET, requests=123456.0)),
            "findings": [],
            "restarts": {"hung": 3},
            "processes": [],
        },
        **{"workers": [{**WORKER, "requests": 123456789}], "memory_limit": None, "events": []},
        "profile": "io",
    }
    lines = render(known, [vars(QUIET)] * 300, "12:00:00", 80, 24)
    assert max(len(line) for _, line in lines) <= 80


def test_a_sparkline_shows_gaps_and_never_hides_a_value() -> None:
    assert sparkline([None, 0.0, 0.001, 4.0, 8.0]) == "  ▁▄█"
    assert sparkline([None, 0.0]) == "  "
