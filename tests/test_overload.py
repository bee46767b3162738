"""An overload of the server is one, however many workers refuse, and for as long as they do."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.arbiter.monitor import WorkerMonitor, last_open
from django_prodserve.arbiter.overload import CALM_SECONDS, OverloadWatch, overloaded
from django_prodserve.machine.quota import Throttling
from django_prodserve.scoreboard.board import REASONS, Scoreboard
from django_prodserve.scoreboard.events import BAD, GOOD, PLAIN, SEVERITY, Event
from django_prodserve.scoreboard.slot import REFUSES, SERVING, Slot

from .facts import plan


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(None, slots=3, rows=4, now=1.0)


def workers(board: Scoreboard, count: int = 2) -> list[Slot]:
    """Return the slots of workers with three threads, two of them busy."""
    slots = [board.claim() for _ in range(count)]
    for number, slot in enumerate(slots):
        slot.start(100 + number, 1, 3, now=1.0)
        slot.state = SERVING
        for row in range(2):
            slot.request_started(row, 2.0, "GET", "/", "")
    return slots


def monitor(board: Scoreboard, slots: list[Slot]) -> tuple[WorkerMonitor, list[tuple[str, str]]]:
    events: list[tuple[str, str]] = []
    arbiter: Any = SimpleNamespace(
        log=logging.getLogger("overload"),
        plan=plan(),
        pool=SimpleNamespace(active=lambda: [SimpleNamespace(slot=slot) for slot in slots]),
        board=board,
        tls=None,
        renewals=None,
        record_event=lambda *event: events.append(event),
    )
    watching = WorkerMonitor(arbiter)
    return watching, events


def test_an_overload_is_said_when_it_begins_and_when_it_is_over(
    board: Scoreboard, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = slots = workers(board)
    watching, events = monitor(board, slots)
    first.refused = 4  # by a worker whose threads were stuck
    watching.watch_overload(10.0)
    for now in (11.0, 12.0, 13.0):
        first.saturated, first.queue_wait = REFUSES, 2.34
        first.refused += 1000
        watching.watch_overload(now)
        second.saturated, second.queue_wait = REFUSES, 1.0
        second.refused += 500
    first.saturated = 0
    watching.watch_overload(14.0)
    second.saturated = 0
    watching.watch_overload(14.0 + CALM_SECONDS - 0.1)
    assert [kind for kind, _ in events] == ["overload"]
    watching.watch_overload(14.0 + CALM_SECONDS)
    watching.watch_overload(30.0)
    begins = "Overloaded: rejecting new requests with 503 (queue wait 2.3 s, 4/6 threads busy)"
    ends = "Overload over after 3 s: 4,500 requests rejected"
    assert events == [("overload", begins), ("overload over", ends)]
    assert [record.message for record in caplog.records] == [f"{begins}.", f"{ends}."]
    first.saturated = REFUSES
    first.refused += 1
    watching.watch_overload(31.0)
    watching.end_overload(31.5, 0.0)
    assert events[2:] == [
        ("overload", begins),
        ("overload over", "Overload over after 0 s: 1 request rejected"),
    ]


def test_a_limit_below_the_threads_is_said(board: Scoreboard) -> None:
    slots = workers(board)
    for slot in slots:
        slot.saturated, slot.concurrency_limit = REFUSES, 2
    assert "4 requests running, 4 at a time because they are CPU-bound" in str(overloaded(slots))


def test_what_was_refused_for_another_reason_is_no_overload(board: Scoreboard) -> None:
    slots = workers(board)
    watching, events = monitor(board, slots)
    for now in range(10, 20):
        slots[0].refused += 1
        watching.watch_overload(float(now))
    assert events == []


def test_a_generation_goes_on_with_what_the_one_before_has_begun(board: Scoreboard) -> None:
    watching, events = monitor(board, workers(board))
    watching.resume([Event(1.0, "throttled", "begins"), Event(2.0, "overload", "begins")])
    assert [kind for kind, _ in events] == ["overload over"]
    for second in range(20):
        watching.process_quota(float(second), 3601.0, Throttling(periods=10 * second))
    assert events[1][0] == "throttling over"
    assert "quota is enough again; it throttled for 1 h" in events[1][1]
    watching.resume([Event(1.0, "throttled", "begins"), Event(2.0, "throttling over", "ends")])
    assert watching.quota.share == 0.0


def test_what_is_open_is_the_last_that_was_not_ended() -> None:
    begun, ended = Event(1.0, "overload", ""), Event(2.0, "overload over", "")
    assert last_open([begun], "overload", "overload over") == begun
    assert last_open([begun, ended], "overload", "overload over") is None
    assert last_open([ended, begun], "overload", "overload over") == begun
    assert last_open([], "overload", "overload over") is None


def test_every_kind_of_event_has_a_severity() -> None:
    assert {*REASONS} <= {*SEVERITY}
    assert Event(1.0, "overload", "").as_dict()["level"] == BAD
    assert Event(1.0, "overload over", "").as_dict()["level"] == GOOD
    assert Event(1.0, "of a later release", "").as_dict()["level"] == PLAIN
    assert OverloadWatch().end(5.0, 3) == ""
