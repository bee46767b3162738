"""How many requests the server could serve, from counters as a server with known costs would have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from django_prodserve.monitoring.room import Mark, Room, Supply, cold, described, room


@dataclass
class Machine:
    """Counters of a server whose requests cost what is known, second by second."""

    workers: int = 2
    idle: float = 0.001
    """CPUs of a worker without requests."""
    constant: float = 0.0
    """CPUs of other processes..."""
    each: float = 0.0
    """...and their seconds for each request."""
    noise: Random = field(default_factory=lambda: Random(4))
    marks: list[Mark] = field(default_factory=lambda: [Mark(100.0, 0, 0.0, 0.0, 0.0, 0.0)])

    def serve(self, rate: float, seconds: int, *, cpu: float, thread: float = 0.0, **facts: float) -> Machine:
        """Serve at about this rate; requests come at random, and cost more after a pause."""
        for _ in range(seconds):
            last = self.marks[-1]
            requests = round(self.noise.gauss(rate, rate**0.5)) if rate else 0
            pause = max(0.0, self.workers - requests * cpu) / max(1, requests)
            own = self.idle * self.workers + requests * (cpu + cold(pause))
            others = self.constant * self.noise.uniform(0.8, 1.2) + requests * self.each
            others = min(others, max(0.0, self.workers - own))  # as many CPUs as workers
            self.marks.append(
                Mark(
                    now=last.now + 1.0,
                    requests=last.requests + requests,
                    cpu=last.cpu + own,
                    shared=last.shared + own + others,
                    thread=last.thread + requests * max(thread, cpu),
                    throttled=last.throttled + facts.get("throttled", 0.0),
                )
            )
        return self

    def room(self, **facts: Any) -> Room:
        supply = {"cpus": 2.0, "shared": 2.0, "workers": self.workers, "threads": 32}
        return room(self.marks, Supply(**{**supply, **facts}))


def limit(found: Room) -> float:
    assert not found.unknown
    return found.limits[found.short]


@pytest.mark.parametrize(
    ("cost", "facts", "rate", "short"),
    [
        pytest.param({"cpu": 0.005}, {}, 378, "cpu", id="computes"),
        pytest.param({"cpu": 0.001, "thread": 0.5}, {}, 64, "threads", id="waits"),
        pytest.param({"cpu": 0.001, "thread": 0.5}, {"threads_by": "memory"}, 64, "memory", id="memory"),
        pytest.param({"cpu": 0.005}, {"workers": 1}, 189, "gil", id="one worker"),
        pytest.param({"cpu": 0.005}, {"cpus": 0.5, "shared": 0.5}, 95, "cpu", id="quota"),
        pytest.param({"cpu": 0.005}, {"shared": 8.0}, 378, "cpu", id="a part of a large machine"),
    ],
)
def test_what_is_short_first(cost: dict[str, float], facts: dict[str, Any], rate: float, short: str) -> None:
    found = Machine().serve(40, 40, **cost).room(**facts)
    assert found.short == short
    assert limit(found) == pytest.approx(rate, rel=0.1)


def test_a_slow_site_is_not_charged_for_what_idle_workers_use() -> None:
    slow = Machine(idle=0.02).serve(0, 10, cpu=0).serve(1, 280, cpu=0.010)
    assert limit(slow.room()) == pytest.approx(190, rel=0.1)


def test_other_processes_are_a_constant_or_rise_with_the_requests() -> None:
    aside = Machine(constant=0.5).serve(0, 5, cpu=0).serve(100, 60, cpu=0.005)
    assert limit(aside.room()) == pytest.approx(1.5 * 0.95 / 0.005, rel=0.1)
    database = Machine(each=0.005).serve(0, 5, cpu=0).serve(100, 60, cpu=0.005)
    assert limit(database.room()) == pytest.approx(2 * 0.95 / 0.010, rel=0.1)


def test_the_size_of_a_mix_shows_in_its_fluctuations_alone() -> None:
    steady = Machine(each=0.005).serve(50, 120, cpu=0.005)
    assert limit(steady.room()) == pytest.approx(2 * 0.95 / 0.010, rel=0.15)


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        pytest.param(Machine().serve(50, 10, cpu=0.005), "just started", id="short"),
        pytest.param(Machine().serve(2, 60, cpu=0.005), "200 are enough", id="few"),
        pytest.param(Machine(), "just started", id="none"),
        pytest.param(
            Machine().serve(50, 20, cpu=0.005).serve(50, 12, cpu=0.010), "mix", id="the mix changes"
        ),
        pytest.param(
            Machine().serve(40, 40, cpu=0.001, thread=0.5, throttled=0.1), "quota", id="threads are stopped"
        ),
    ],
)
def test_what_is_not_known_says_why(machine: Machine, reason: str) -> None:
    assert reason in machine.room().unknown


def test_other_processes_that_may_rise_leave_the_room_open() -> None:
    machine = Machine(constant=1.0)
    for second in range(60):  # they do as they like
        machine.constant = 0.5 + second % 7 / 7
        machine.serve(100, 1, cpu=0.005)
    assert "other processes" in machine.room().unknown


def test_after_a_change_of_the_mix_the_new_one_counts() -> None:
    found = Machine().serve(50, 60, cpu=0.002).serve(50, 40, cpu=0.010)
    assert limit(found.room()) == pytest.approx(190, rel=0.1)


def test_a_full_cpu_is_what_is_short_though_threads_wait_for_it() -> None:
    found = Machine().serve(380, 40, cpu=0.005, thread=0.02)
    assert found.room(threads=8).short == "cpu"


def test_threads_are_short_though_other_processes_use_all_cpus() -> None:
    for wanted, cpu in ((1.8, 0.0005), (3.0, 0.003)):
        found = Machine(constant=wanted).serve(20, 40, cpu=cpu, thread=0.5)
        assert found.room().short == "threads"
        assert limit(found.room()) == pytest.approx(64, rel=0.1)


def test_what_processes_that_use_all_cpus_would_leave_is_not_known() -> None:
    found = Machine(constant=3.0).serve(50, 40, cpu=0.005)
    assert "other processes use 1.7 CPUs, and would leave some" in found.room().unknown
    steady = Machine(constant=1.2, noise=Random(1)).serve(0, 30, cpu=0).serve(50, 60, cpu=0.005)
    assert "other processes use 1.2 CPUs, and would leave some" in steady.room().unknown


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (120.4, "serves 120/s, room for about 430/s (CPU); 2,000/s would need 5 servers like this one"),
        (
            425.0,
            "serves 425/s, about the most that it can (CPU); 4,000/s would need 10 servers like this one",
        ),
        (None, "room for about 430/s (CPU)"),
    ],
)
def test_it_is_said_in_words(rate: float | None, text: str) -> None:
    known = described({"limits": {"cpu": 431.2, "threads": 900.0}, "unknown": ""}, rate)
    assert known is not None
    assert known["text"] == text
    assert (known["room"], known["short"], known["certain"]) == (431.2, "cpu", True)


def test_the_reason_is_said_in_words() -> None:
    known = described(Machine().room().facts(), 3.0)
    assert known is not None
    assert known["text"] == "not known yet: workers have just started"
    assert (known["room"], known["certain"]) == (None, False)
    assert described(None, 3.0) is None
