"""The ring of requests that failed: what is kept, of workers that are gone too."""

from __future__ import annotations

import pytest

from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.errors import ENTRIES, SHOWN, WORKER_ENTRIES, RequestError


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(None, slots=2, rows=2, now=1.0)


def error(number: int, **other: str) -> RequestError:
    texts = {"method": "GET", "path": "/a/", "route": "a", "exception": "KeyError", "id": f"id-{number}"}
    return RequestError(time=float(number), status=500, **{**texts, **other})


def test_errors_of_all_workers_are_told_in_their_order(board: Scoreboard) -> None:
    first, second = board.claim(), board.claim()
    first.record_error(error(3))
    second.record_error(error(2, route="", exception=""))
    first.record_error(error(4))
    assert board.read_errors() == [error(2, route="", exception=""), error(3), error(4)]


def test_only_the_last_are_kept(board: Scoreboard) -> None:
    slot = board.claim()
    for number in range(3 * ENTRIES):
        slot.record_error(error(number))
    assert board.read_errors() == [error(number) for number in range(3 * ENTRIES)][-WORKER_ENTRIES:]
    for worker in range(1, 6):
        board.release(slot)
        slot = board.claim()
        for number in range(WORKER_ENTRIES):
            slot.record_error(error(1000 * worker + number))
    assert len(board.read_errors()) == SHOWN
    assert board.read_errors()[-1] == error(5000 + WORKER_ENTRIES - 1)


def test_the_errors_of_a_worker_outlive_it_and_its_generation(board: Scoreboard) -> None:
    slot = board.claim()
    slot.record_error(error(7))
    board.release(slot)
    assert board.claim().errors.read() == []
    assert board.read_errors() == [error(7)]
    after = Scoreboard.create(None, slots=2, rows=2, now=2.0)
    after.claim().record_error(error(8))
    after.take_over(board)
    assert after.read_errors() == [error(7), error(8)]


def test_texts_that_are_too_long_or_odd_do_no_harm(board: Scoreboard) -> None:
    slot = board.claim()
    slot.record_error(
        error(1, path="/\0\n\udc80" + "ü" * 5000, method="X" * 99, route="r" * 999, id="i" * 99)
    )
    slot.record_error(error(2))
    first, second = board.read_errors()
    assert first.path.startswith("/ \n?ü")
    assert len(first.path) <= 200
    assert (first.method, first.route, first.id) == ("X" * 16, "r" * 100, "i" * 64)
    assert second == error(2)
