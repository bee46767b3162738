"""The routes on which a server's time is spent: counted by its workers, read by everybody."""

from __future__ import annotations

import pytest

from django_prodserve.monitoring.snapshot import ROUTES_SHOWN, busiest_routes, live_snapshot
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.memory import SharedMemory
from django_prodserve.scoreboard.routes import CELLS, MINUTES, OTHERS, ROUTES, RouteTable, RouteTime

NOW = 1_000_020.0
"""In the middle of a minute."""


def tables() -> tuple[RouteTable, RouteTable]:
    """Return a table as its writer has it, and as another process has it."""
    memory = SharedMemory(memoryview(bytearray(8 * (CELLS + 3))))
    return RouteTable(memory, 3), RouteTable(memory, 3)


def test_a_route_has_its_requests_its_time_and_its_longest_request() -> None:
    writer, reader = tables()
    for seconds in (0.5, 2.0, 0.25):
        writer.add("shop.urls.slow", NOW, seconds)
    writer.add("admin:index", NOW, 1.0)
    slow, index = reader.read(NOW)
    assert slow == RouteTime("shop.urls.slow", 3, 2.75, 2.0)
    assert slow.mean == pytest.approx(0.9167, abs=1e-4)
    assert index == RouteTime("admin:index", 1, 1.0, 1.0)


def test_the_window_is_more_than_five_minutes_and_ends() -> None:
    writer, reader = tables()
    for minute in range(20):
        writer.add("a", NOW + 60 * minute, 1.0)
        (route,) = reader.read(NOW + 60 * minute)
        assert route.requests == min(minute + 1, MINUTES)
        assert [part.requests for part in reader.read(NOW + 60 * minute, minutes=2)] == [min(minute + 1, 2)]
    last = NOW + 60 * 19
    assert [route.requests for route in reader.read(last + 60 * (MINUTES - 1))] == [1]
    assert reader.read(last + 60 * MINUTES) == []
    writer.add("a", last + 3600, 1.0)
    assert [route.requests for route in reader.read(last + 3600)] == [1]


def test_the_first_minutes_after_the_boot_of_a_machine_count_once() -> None:
    writer, reader = tables()
    for now in (0.0, 59.9, 60.0):
        writer.add("a", now, 1.0)
    assert [route.requests for route in reader.read(61.0)] == [3]


def test_a_thread_that_is_late_counts_in_the_minute_that_has_begun() -> None:
    writer, reader = tables()
    writer.add("a", NOW + 60, 1.0)
    writer.add("a", NOW, 1.0)
    assert [route.requests for route in reader.read(NOW + 60)] == [2]


def test_any_number_of_names_fits_and_no_request_is_lost() -> None:
    writer, reader = tables()
    for number in range(ROUTES + 500):
        writer.add(f"page {number}", NOW, 1.0)
    writer.add(OTHERS, NOW, 1.0)
    found = {route.route: route.requests for route in reader.read(NOW)}
    assert len(found) == ROUTES
    assert found[OTHERS] == 502
    assert sum(found.values()) == ROUTES + 501


def test_a_row_goes_to_another_route_once_its_own_has_rested() -> None:
    writer, reader = tables()
    for number in range(ROUTES - 1):
        writer.add(f"old {number}", NOW, 1.0)
    for minute in range(1, MINUTES):
        writer.add("old 7", NOW + 60 * minute, 1.0)
        writer.add("new", NOW + 60 * minute, 1.0)
        assert OTHERS in {route.route for route in reader.read(NOW + 60 * minute)}
    now = NOW + 60 * MINUTES
    writer.add("new", now, 1.0)
    found = {route.route: route.requests for route in reader.read(now)}
    assert found == {"new": 1, "old 7": MINUTES - 1, OTHERS: MINUTES - 1}


@pytest.mark.parametrize("name", ["", "a" * 500, "\ud800", "é" * 90, "a\0b"])
def test_any_name_can_be_written(name: str) -> None:
    writer, reader = tables()
    writer.add(name, NOW, 1.0)
    writer.add(name, NOW, 1.0)
    assert [route.requests for route in reader.read(NOW)] == [2]


def test_what_a_dead_worker_counted_stays_for_the_window() -> None:
    board = Scoreboard.create(None, slots=3, rows=2, now=1.0)
    first, second = board.claim(), board.claim()
    first.routes.add("a", NOW, 2.0)
    first.routes.add("b", NOW + 60, 1.0)
    second.routes.add("a", NOW + 60, 3.0)
    board.routes.merge(first.routes, NOW + 60)
    first.clear()
    assert board.read_routes(NOW + 60) == [RouteTime("a", 2, 5.0, 3.0), RouteTime("b", 1, 1.0, 1.0)]
    assert board.read_routes(NOW + 60, minutes=1) == [
        RouteTime("a", 1, 3.0, 3.0),
        RouteTime("b", 1, 1.0, 1.0),
    ]
    again = board.claim(first.index)
    again.routes.add("a", NOW + 60, 1.0)
    assert board.read_routes(NOW + 60)[0] == RouteTime("a", 3, 6.0, 3.0)
    assert board.read_routes(NOW + 60 * MINUTES) == [
        RouteTime("a", 2, 4.0, 3.0),
        RouteTime("b", 1, 1.0, 1.0),
    ]


def test_a_reload_and_the_end_of_a_worker_keep_the_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: NOW)
    before = Scoreboard.create(None, slots=2, rows=2, now=1.0)
    gone, serves = before.claim(), before.claim()
    gone.routes.add("a", NOW, 1.0)
    before.release(gone)
    serves.routes.add("a", NOW, 1.0)
    after = Scoreboard.create(None, slots=2, rows=2, now=NOW)
    after.take_over(before)
    after.claim().routes.add("a", NOW, 1.0)
    assert after.read_routes(NOW) == [RouteTime("a", 3, 3.0, 1.0)]


def test_the_busiest_routes_have_their_share_of_the_time() -> None:
    found = [RouteTime(str(number), 2, 10.0, 9.0) for number in range(20)]
    shown = busiest_routes(found)
    assert len(shown) == ROUTES_SHOWN
    assert shown[0] == {
        **{"route": "0", "requests": 2, "seconds": 10.0, "maximum": 9.0},
        **{"mean": 5.0, "share": 0.05},
    }
    assert busiest_routes([]) == []
    assert busiest_routes([RouteTime("a", 1, 0.0, 0.0)])[0]["share"] == 0.0


def test_the_snapshot_has_them() -> None:
    board = Scoreboard.create(None, slots=1, rows=2, now=NOW)
    board.claim().routes.add("shop.urls.slow", NOW, 2.0)
    (route,) = live_snapshot(board, NOW)["routes"]
    assert (route["route"], route["share"]) == ("shop.urls.slow", 1.0)
