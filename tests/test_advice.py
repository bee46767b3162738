from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.monitoring.advice import Advice, SteadyAdvice, TrafficProfile, advise


def mix(**facts: Any) -> TrafficProfile:
    usual = {
        "samples": 200,
        "requests": 2000,
        "cpu": 10.0,
        "wait": 90.0,
        "busy": 0.1,
        "queued": 0.0,
        "used": 0.4,
        "busiest": 0.2,
        "cpus": 2.0,
        "throttled": 0.0,
        "profile": "io",
        "threads": 16,
        "db_budget": False,
    }
    return TrafficProfile(**usual | facts)


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        (
            {"cpu": 96.0, "wait": 4.0, "busy": 0.9},
            "profile cpu",
            "Consider --profile cpu: requests compute 96 % of their time, so 2 threads in each",
        ),
        ({"profile": "cpu", "threads": 4}, "profile io", "Consider --profile io: requests compute 10 %"),
        ({"cpu": 2.0, "wait": 98.0}, "more threads", "Consider --threads 64: requests compute 2 %"),
        ({"queued": 0.5}, "threads", "Consider --threads 32: requests wait 50 % of their time for a thread"),
        ({"queued": 0.5, "db_budget": True}, "db", "Consider a higher --db-connections: "),
        ({"queued": 0.5, "used": 1.8, "busiest": 0.9}, "cpu", "1.8 of 2 CPUs are in use"),
        ({"queued": 0.5, "used": 0.95, "busiest": 0.9}, "gil", "Consider more --workers: one uses 0.9 CPUs"),
        ({"queued": 0.5, "used": 0.5, "cpus": 0.5, "throttled": 0.4}, "quota", "it throttles 40 %"),
        ({"cpu": 0.0, "wait": 0.0}, "more threads", "0 %"),
        ({"queued": 0.5, "profile": "cpu", "threads": 4}, "profile io", "Consider --profile io, up to 13"),
    ],
)
def test_what_fits_and_what_requests_wait_for(facts: dict[str, Any], kind: str, words: str) -> None:
    advice = advise(mix(**facts))
    assert advice is not None
    assert advice.kind == kind
    assert words in advice.line
    assert advice.line.startswith("Consider ")


def test_a_plan_that_suits_the_traffic_gives_nothing_to_do() -> None:
    assert advise(mix()) == Advice("fits", "")
    assert advise(mix(cpu=96.0, wait=4.0, busy=0.9, profile="cpu", threads=4)) == Advice("fits", "")


def test_threads_that_sleep_never_say_that_fewer_are_enough() -> None:
    """The samples are of requests that ran alone, minutes ago; since then the threads sleep in a view."""
    assert advise(mix(cpu=99.0, wait=1.0, busy=0.02)) == Advice("", "")
    assert advise(mix(cpu=99.0, wait=1.0, busy=0.02, profile="cpu", threads=4)) == Advice("", "")


def test_advice_must_hold_before_it_is_told_and_is_taken_back_at_once() -> None:
    steady, more, cpu = SteadyAdvice(), Advice("threads", "more"), Advice("profile cpu", "fewer")
    assert [steady.update(now, more, 180.0) for now in (100.0, 115.0, 279.0)] == [None] * 3
    assert steady.update(280.0, more, 180.0) == more
    assert steady.update(295.0, Advice("threads", "other words"), 180.0) is None
    assert steady.update(310.0, cpu, 180.0) == Advice("", "")
    assert steady.update(325.0, more, 180.0) is None
    assert steady.update(340.0, cpu, 180.0) is None
    assert steady.update(519.0, cpu, 180.0) is None
    assert steady.update(520.0, cpu, 180.0) == cpu


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"queued": 0.5}, "threads", "requests wait 50 % of their time for a thread"),
        (
            {"used": 1.9, "busiest": 0.97},
            "cpu",
            "1.9 of 2 CPUs are in use, and requests slow each other down",
        ),
        ({"used": 1.0, "busiest": 0.97}, "gil", "its GIL allows"),
        ({"throttled": 0.3, "cpus": 0.5, "used": 0.5}, "quota", "Consider a higher CPU limit"),
    ],
)
def test_where_no_request_runs_alone_waiting_is_told(facts: dict[str, Any], kind: str, words: str) -> None:
    advice = advise(mix(samples=3, **facts))
    assert advice is not None
    assert advice.kind == kind
    assert advice.line.startswith("Consider ")
    assert words in advice.line


def test_nothing_is_said_of_few_requests() -> None:
    assert advise(mix(samples=99)) is None
    assert advise(mix(samples=3, requests=99, queued=0.9)) is None
