"""Which request a thread runs next while one route has most of the threads."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings
from django.urls import path

from django_prodserve.worker.lanes import KEEP_SECONDS, Lanes, route_of


def waiting(name: str) -> Any:
    """Return what a lane needs of a connection: its request, whose path is its route here."""
    return SimpleNamespace(request=SimpleNamespace(path=name))


def lanes(*names: str) -> tuple[Lanes, deque[Any]]:
    ready: deque[Any] = deque(map(waiting, names))
    return Lanes(ready, route=str), ready


FULL = dict.fromkeys(range(3), "report") | {3: "page"}


def test_a_route_with_half_of_the_busy_threads_is_limited_while_another_waits() -> None:
    lane, _ = lanes("report", "page")
    assert lane.update(4, FULL, 10.0)
    assert (lane.limited, lane.most) == ("report", 2)


@pytest.mark.parametrize(
    ("queue", "running"),
    [
        (["report"], FULL),
        (["page"], {0: "report", 1: "report"}),
        (["page"], {0: "a", 1: "b", 2: "c", 3: "report"}),
        ([], {}),
    ],
    ids=["no other waits", "threads are free", "no route has half", "nothing runs"],
)
def test_nothing_is_limited_otherwise(queue: list[str], running: dict[int, str]) -> None:
    lane, _ = lanes(*queue)
    assert not lane.update(4, running, 10.0)
    assert lane.limited == ""


def test_the_oldest_of_the_others_is_next_then_the_limited_route_up_to_its_part() -> None:
    lane, ready = lanes("report", "report", "page", "report", "about")
    lane.update(4, FULL, 10.0)
    lane.ended(0)
    taken = []
    for row in (0, 3):
        lane.ended(row)
        found = lane.take(row)
        assert found is not None
        taken.append(found.request.path)
    assert taken == ["page", "about"]
    lane.ended(0)
    assert lane.take(0) is None, "two of the limited route run"
    lane.ended(1)
    found = lane.take(1)
    assert found is not None
    assert found.request.path == "report"
    assert len(ready) == 2


def test_the_part_follows_the_threads_and_the_limit_ends_without_others() -> None:
    lane, _ = lanes("report", "page")
    lane.update(4, FULL, 10.0)
    assert not lane.update(12, FULL, 11.0)
    assert lane.most == 6
    assert not lane.admits(waiting("report"), 11.0, 4)
    assert lane.admits(waiting("page"), 12.0, 4)
    lane.update(12, FULL, 12.0 + KEEP_SECONDS - 1)
    assert lane.limited == "report"
    lane.update(12, FULL, 12.0 + KEEP_SECONDS)
    assert lane.limited == ""


def test_others_are_admitted_past_the_limited_route_up_to_a_number() -> None:
    """Beyond it they wait for each other, and an overload of them is refused as without lanes."""
    lane, ready = lanes("report", "page")
    lane.update(4, FULL, 10.0)
    ready.extend(waiting("report") for _ in range(50))
    assert lane.admits(waiting("page"), 11.0, 2)
    ready.append(waiting("about"))
    assert not lane.admits(waiting("page"), 12.0, 2)


def page(request: Any) -> None:
    """A view that nobody calls."""


urlpatterns = [path("orders/<slug:number>/", page, name="order")]


@override_settings(ROOT_URLCONF=__name__)
def test_a_route_is_the_name_of_the_view_and_of_unknown_paths_what_is_no_identifier() -> None:
    route_of.cache_clear()
    assert route_of("/orders/a-b/") == route_of("/orders/c%2Dd/") == "order"
    assert route_of("/report/2026-11/7") == "/report/*/*"
    route_of.cache_clear()
