from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.monitoring.advice import TrafficProfile, advise


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
        ({}, "fits", "compute 10% of their time: profile io with 16 threads fits"),
        ({"cpu": 96.0, "wait": 4.0}, "profile cpu", "--profile cpu fits, 2 threads are enough"),
        ({"cpu": 96.0, "wait": 4.0, "profile": "cpu", "threads": 4}, "fits", "profile cpu with 4"),
        ({"profile": "cpu", "threads": 4}, "profile io", "--profile io fits, 13 threads"),
        ({"cpu": 2.0, "wait": 98.0}, "more threads", "up to 64 threads"),
        ({"queued": 0.5}, "threads", "of it for threads: up to 32"),
        ({"queued": 0.5, "db_budget": True}, "db", "--db-connections keeps few"),
        ({"queued": 0.5, "used": 1.8, "busiest": 0.9}, "cpu", "1.8 of 2 are in use"),
        ({"queued": 0.5, "used": 0.95, "busiest": 0.9}, "gil", "a worker uses 0.9 CPUs"),
        ({"queued": 0.5, "used": 0.5, "cpus": 0.5, "throttled": 0.4}, "quota", "cut short 40%"),
        ({"cpu": 0.0, "wait": 0.0}, "more threads", "0%"),
        ({"queued": 0.5, "profile": "cpu", "threads": 4}, "profile io", "threads: --profile io fits"),
    ],
)
def test_what_fits_and_what_requests_wait_for(facts: dict[str, Any], kind: str, words: str) -> None:
    advice = advise(mix(**facts))
    assert advice is not None
    assert advice.kind == kind
    assert words in advice.line


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        ({"queued": 0.5}, "threads", "requests wait 50% of their time for threads"),
        ({"used": 1.9, "busiest": 0.97}, "cpu", "requests wait for CPUs: 1.9 of 2"),
        ({"used": 1.0, "busiest": 0.97}, "gil", "requests wait for the GIL"),
        ({"throttled": 0.3, "cpus": 0.5, "used": 0.5}, "quota", "for the CPU quota"),
    ],
)
def test_where_no_request_runs_alone_waiting_is_told(facts: dict[str, Any], kind: str, words: str) -> None:
    advice = advise(mix(samples=3, **facts))
    assert advice is not None
    assert advice.kind == kind
    assert advice.line.startswith("requests wait ")
    assert words in advice.line


def test_nothing_is_said_of_few_requests() -> None:
    assert advise(mix(samples=99)) is None
    assert advise(mix(samples=3, requests=99, queued=0.9)) is None
