from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.arbiter.worker_pool import WorkerHandle, WorkerPool
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import BOOTING, RETIRING, SERVING

from .facts import plan


class Ship:
    """A worker pool, and what its arbiter would do."""

    def __init__(self, count: int) -> None:
        self.pool = WorkerPool()
        self.wanted = count
        self.board = Scoreboard.create(None, slots=20, rows=2, now=0.0)
        self.last = 0
        self.turn()
        self.boot()

    def turn(self) -> list[int]:
        """Do what the arbiter does on each turn; return who was told to go."""
        told = []
        for member in self.pool.surplus(self.wanted):
            self.pool.mark_leaving(member, "fewer wanted", 1.0)
            told.append(member.pid)
        for member, reason in self.pool.replaced(self.wanted):
            self.pool.mark_leaving(member, reason, 1.0)
            told.append(member.pid)
        for _ in range(self.pool.missing(self.wanted)):
            self.last += 1
            slot = self.board.claim()
            slot.start(self.last, 0, 1, 0.0)
            worker = SimpleNamespace(pid=self.last, age=self.last)
            self.pool.members[self.last] = WorkerHandle(worker, slot, born=0.0)
        return told

    def boot(self) -> None:
        for member in self.pool:
            if member.slot.state == BOOTING:
                member.slot.state = SERVING

    def end(self, pid: int) -> None:
        member = self.pool.remove(pid)
        assert member is not None
        self.board.release(member.slot)

    def pids(self) -> list[int]:
        return [member.pid for member in self.pool]


@pytest.mark.parametrize("count", [1, 2])
def test_a_replacement_serves_before_the_old_one_goes(count: int) -> None:
    ship = Ship(count)
    assert ship.pool.mark_for_replacement(1, "memory")
    assert ship.turn() == []
    assert len(ship.pids()) == count + 1
    assert ship.turn() == []  # it boots still
    ship.boot()
    assert ship.turn() == [1]
    assert ship.pool.members[1].slot.state == RETIRING
    assert ship.turn() == []
    ship.end(1)
    assert ship.turn() == []
    assert len(ship.pids()) == count


def test_those_who_can_wait_go_one_at_a_time() -> None:
    ship = Ship(3)
    assert ship.pool.mark_for_replacement(1, "max-requests")
    assert not ship.pool.mark_for_replacement(2, "max-lifetime")
    ship.turn()
    ship.boot()
    assert ship.turn() == [1]
    assert not ship.pool.mark_for_replacement(2, "memory")  # 1 is leaving still
    ship.end(1)
    assert ship.pool.mark_for_replacement(2, "memory")


def test_stuck_workers_wait_for_nobody() -> None:
    ship = Ship(2)
    assert ship.pool.mark_for_replacement(1, "hung")
    assert ship.pool.mark_for_replacement(2, "hung")
    assert not ship.pool.mark_for_replacement(2, "hung")
    ship.turn()
    assert ship.pids() == [1, 2, 3, 4]
    ship.pool.members[3].slot.state = SERVING
    assert ship.turn() == [1]
    ship.boot()
    assert ship.turn() == [2]
    assert ship.pids() == [1, 2, 3, 4]


def test_a_replacement_that_dies_is_started_again_and_the_old_one_stays() -> None:
    ship = Ship(2)
    ship.pool.mark_for_replacement(1, "memory")
    ship.turn()
    ship.end(3)
    assert ship.turn() == []
    assert ship.pids() == [1, 2, 4]


def test_an_old_one_that_dies_needs_no_replacement_more() -> None:
    ship = Ship(2)
    ship.pool.mark_for_replacement(1, "memory")
    ship.turn()
    ship.end(1)
    ship.boot()
    assert ship.turn() == []
    assert ship.pids() == [2, 3]


def test_more_and_fewer() -> None:
    ship = Ship(2)
    ship.wanted = 3
    ship.turn()
    ship.boot()
    assert ship.pids() == [1, 2, 3]
    ship.pool.mark_for_replacement(2, "memory")
    ship.turn()
    ship.boot()
    ship.wanted = 2
    assert ship.turn() == [2]  # the marked one goes anyway, and then one too many is left
    assert ship.turn() == [1]
    assert [member.pid for member in ship.pool.active()] == [3, 4]


def test_what_raises_in_the_monitor_is_logged_once_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    from django_prodserve.arbiter.monitor import WorkerMonitor

    events: list[tuple[str, str]] = []
    arbiter: Any = SimpleNamespace(
        log=logging.getLogger("tick"),
        plan=plan(),
        pool=WorkerPool(),
        board=Scoreboard.create(None, slots=2, rows=2, now=0.0),
        tls=None,
        renewals=None,
        record_event=lambda *event: events.append(event),
    )
    tick = WorkerMonitor(arbiter)

    def breaks(error: Exception) -> None:
        raise error

    for error in (OSError("first"), OSError("second"), ValueError("third")):
        tick.run_guarded(breaks, error)
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "step breaks OSError; continuing" in told[0]
    assert "breaks ValueError" in told[1]
    assert [kind for kind, _ in events] == ["failed", "failed"]
