from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.plan.capacity import CONNECTIONS, Means, RequestCost, capacity


def means(**facts: Any) -> Means:
    return Means(**{"cpus": 2.0, "workers": 2, "threads": 32} | facts)


@pytest.mark.parametrize(
    ("cost", "facts", "rate", "short"),
    [
        ({"cpu": 0.010}, {}, 190, "cpu"),
        ({"cpu": 0.010, "beside": 0.010}, {}, 95, "cpu"),
        ({"cpu": 0.010}, {"workers": 1}, 95, "gil"),
        ({"cpu": 0.001, "thread": 1.0}, {}, 32, "threads"),
        ({"cpu": 0.001, "thread": 1.0}, {"threads_by": CONNECTIONS}, 32, "connections"),
        ({"cpu": 0.001, "thread": 0.001}, {}, 1900, "cpu"),
        ({"cpu": 0.001}, {"cpus": 0.5}, 475, "cpu"),
    ],
)
def test_what_is_short_first_sets_the_rate(
    cost: dict[str, float], facts: dict[str, Any], rate: float, short: str
) -> None:
    found = capacity(RequestCost(**cost), means(**facts))
    assert found.rate == pytest.approx(rate)
    assert found.short == short


def test_requests_that_cost_nothing_have_no_limit_that_is_known() -> None:
    assert capacity(RequestCost(cpu=0.0), means()).rate == float("inf")
