"""Advice names what is short, and nothing else: by counters of known traffic, and of its shifts."""

from __future__ import annotations

import itertools
import random
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.arbiter.monitor import SURVEY_SECONDS
from django_prodserve.arbiter.traffic_sampler import CounterSnapshot, TrafficSampler
from django_prodserve.arbiter.worker_pool import WorkerHandle, WorkerPool
from django_prodserve.monitoring.advice import FITS, Advice, SteadyAdvice, TrafficProfile, advise
from django_prodserve.plan.capacity import CONNECTIONS, MEMORY
from django_prodserve.plan.plan import Plan
from django_prodserve.scoreboard import history
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.growth_holds import GROWTH_HOLDS

from .facts import machine, plan, postgresql, project


def mix(**facts: Any) -> TrafficProfile:
    usual = {
        "requests": 2000,
        "running": 10.0,
        "waiting": 0.0,
        "queued": 0.0,
        "refused": 0.0,
        "used": 0.4,
        "busiest": 0.2,
        "used_by_all": 0.6,
        "cpus": 2.0,
        "throttled": 0.0,
        "profile": "io",
        "workers": 2,
        "threads": 32,
    }
    return TrafficProfile(**usual | facts)


FULL = {"running": 32.0, "queued": 0.5}
BUSY = {"used": 1.8, "busiest": 0.9, "used_by_all": 1.9}


@pytest.mark.parametrize(
    ("facts", "kind", "words"),
    [
        (
            FULL,
            "threads",
            "--threads 32: all 32 threads are busy and use 0.4 of 2 CPUs, and requests wait 50 %",
        ),
        ({**FULL, "computing": 0.03}, "threads", "Consider --threads 44: "),
        ({"running": 32.0, "refused": 0.2}, "threads", "20 % of the requests are refused"),
        (
            {**FULL, "threads_by": CONNECTIONS, "limit": "database connections: 40 of 40"},
            "db",
            "Consider a higher --db-connections: database connections: 40 of 40, and requests wait",
        ),
        ({**FULL, "threads_by": MEMORY}, "memory", "Consider more memory for more threads"),
        ({**FULL, **BUSY}, "cpu", "1.9 of 2 CPUs are in use, and requests wait 50 %"),
        (BUSY, "cpu", "and requests slow each other down"),
        ({**FULL, "used_by_all": 1.9}, "threads", "and use 0.4 of 2 CPUs"),
        (
            {**FULL, "used_by_all": 1.9, "used": 0.6},
            "cpu",
            "1.9 of 2 CPUs are in use, 0.6 of them by the workers",
        ),
        (
            {"queued": 0.5, "used": 0.95, "busiest": 0.95, "used_by_all": 1.2, "workers": 1},
            "gil",
            "Consider more --workers: one uses 0.9",
        ),
        ({"queued": 0.5, "used": 0.5, "cpus": 0.5, "throttled": 0.4}, "quota", "it throttles 40 %"),
        ({**FULL, "held": "slower"}, "slower", "Find what requests wait for"),
        (
            {"computing": 0.96, "running": 1.0, "used": 0.9},
            "profile cpu",
            "requests compute 96 % of their time, so 2 threads",
        ),
        (
            {"computing": 0.1, "profile": "cpu"},
            "profile io",
            "requests compute 10 % of their time, so 13 threads",
        ),
    ],
)
def test_what_is_short_is_named(facts: dict[str, Any], kind: str, words: str) -> None:
    advice = advise(mix(**facts))
    assert advice.kind == kind
    assert words in advice.line


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"queued": 0.5, "running": 4.0},  # for their turn, or for threads that come at once
        {"queued": 0.5, "running": 4.0, "held": "cpu"},
        {"computing": 0.96, "used": 0.2},  # few are sampled, and the others sleep
        {"computing": 0.1, "profile": "cpu", "running": 2.0, "used": 1.5},  # and these compute by now
        {"used_by_all": 1.9},  # others compute, and nobody waits
        {**FULL, "used_by_all": 1.9, "used": 0.4, "running": 3.0},  # perhaps for a CPU
        {"computing": 0.001},  # more threads than there are would be of use, but nobody waits
    ],
)
def test_nothing_is_advised_where_nothing_is_short(facts: dict[str, Any]) -> None:
    assert advise(mix(**facts)) == Advice(FITS, "")


def test_nothing_is_said_of_few_requests() -> None:
    assert advise(mix(**FULL | {"requests": 19, "running": 9.0})) == Advice("", "")
    assert advise(mix(**FULL | {"requests": 0})).kind == "threads"  # they take longer than the window


def test_what_has_begun_to_hold_does_not_end_at_the_same_limit() -> None:
    for kind, facts in {
        "cpu": {**BUSY, "used": 1.6, "used_by_all": 1.6},
        "threads": {"running": 25.0, "queued": 0.08},
        "quota": {"throttled": 0.04},
        "gil": {"workers": 1, "used": 0.75, "busiest": 0.75},
    }.items():
        assert advise(mix(**facts)).kind == FITS
        assert advise(mix(**facts), kind).kind == kind


def test_advice_must_hold_before_it_is_told_and_is_taken_back_at_once() -> None:
    steady, more, cpu = SteadyAdvice(), Advice("threads", "more"), Advice("profile cpu", "fewer")
    assert [steady.update(now, more, 20.0) for now in (100.0, 105.0, 119.0)] == [None] * 3
    assert steady.update(120.0, more, 20.0) == more
    assert steady.update(125.0, Advice("threads", "other words"), 20.0) is None
    assert steady.update(130.0, cpu, 180.0) == Advice("", "")
    assert steady.update(135.0, more, 20.0) is None
    assert steady.update(140.0, cpu, 180.0) is None
    assert steady.update(319.0, cpu, 180.0) is None
    assert steady.update(320.0, cpu, 180.0) == cpu


# What the counters of six kinds of traffic are in each second, on 2 CPUs, and the right advice. They were
# recorded on real servers, each with a client on the same machine.


@dataclass(frozen=True)
class Traffic:
    """What happens in one second: sums over all workers."""

    kind: str
    """Of the right advice; FITS also stands for none."""
    plan: Plan
    _: KW_ONLY
    ended: int
    running: float
    waiting: float = 0.0
    latency: float
    queued: float = 0.0
    cpu: tuple[float, ...] = (0.1, 0.1)
    """Of each worker."""
    others: float = 0.1
    refused: int = 0
    throttled: int = 0
    """Of ten periods."""
    hold: str = ""


FIXED, GIL = plan(threads="16"), plan(workers="1", threads="4")
DATABASE = plan(project_=project(databases=[postgresql()]), db_connections="40")
KINDS = {
    "computes": Traffic(
        "cpu", plan(), ended=90, running=5.0, waiting=7.0, latency=4.8, queued=7.2, cpu=(0.87, 0.88)
    ),
    "short": Traffic(
        FITS, plan(), ended=900, running=0.7, latency=0.6, queued=0.03, cpu=(0.35, 0.4), others=0.5
    ),
    "waits": Traffic(FITS, plan(), ended=150, running=15.0, latency=15.0, queued=0.1),
    "waits, few threads": Traffic(
        "threads", FIXED, ended=400, running=31.5, waiting=9.0, latency=31.5, queued=8.0, refused=80
    ),
    "waits, few connections": Traffic(
        "db", DATABASE, ended=380, running=37.6, waiting=12.0, latency=37.0, queued=11.0, hold="maximum"
    ),
    "throttled": Traffic(
        "quota",
        plan(machine(0.5)),
        ended=22,
        running=3.8,
        waiting=4.0,
        latency=4.0,
        queued=4.1,
        cpu=(0.25, 0.24),
        others=0.0,
        throttled=9,
    ),
    "one GIL": Traffic(
        "gil", GIL, ended=45, running=3.0, waiting=5.0, latency=3.0, queued=4.8, cpu=(0.96,), others=0.2
    ),
}


class Site:
    """The counters of a server under such traffic, which varies by a fifth."""

    def __init__(self, tmp_path: Path) -> None:
        self.board = Scoreboard.create(None, slots=4, rows=4, now=1.0)
        self.pool, self.dice, self.now = WorkerPool(), random.Random(19), 1000.0
        self.sampler = TrafficSampler(self.board, self.pool, plan(), tmp_path)
        self.sums = dict.fromkeys(
            ("ended", "refused", "latency", "queued", "used", "periods", "throttled"), 0.0
        )
        self.cpu = {1: 0.0, 2: 0.0}
        self.told: list[tuple[float, str]] = []

    def run(self, traffic: Traffic, seconds: int) -> list[tuple[int, str]]:
        """Return the second of each change of the advice with its kind; the first one is what is shown."""
        self._size(traffic)
        changes = [(0, self.sampler.steady.told.kind)]
        for second in range(1, seconds + 1):
            self._pass_second(traffic)
            if second % SURVEY_SECONDS == 0 and (advice := self.sampler.evaluate(self._mark(traffic))):
                changes.append((second, advice.kind))
        return changes

    def _size(self, traffic: Traffic) -> None:
        self.sampler.plan, self.pool.members = traffic.plan, {}
        for pid, _ in enumerate(traffic.cpu, 1):
            slot = self.board.slots[pid]
            slot.start(pid, 1, traffic.plan.threads.value, self.now)
            slot.max_threads = traffic.plan.max_threads.value
            slot.growth_hold = [*GROWTH_HOLDS].index(traffic.hold)
            self.pool.members[pid] = WorkerHandle(SimpleNamespace(pid=pid), slot, born=0.0)

    def _pass_second(self, traffic: Traffic) -> None:
        self.now += 1.0
        rush = self.dice.uniform(0.8, 1.2)
        for name in ("ended", "refused", "latency", "queued"):
            self.sums[name] += getattr(traffic, name) * rush
        for pid, cpu in enumerate(traffic.cpu, 1):
            self.cpu[pid] += min(1.0, cpu * self.dice.uniform(0.95, 1.05))
        self.sums["used"] += sum(traffic.cpu) + traffic.others
        self.sums["periods"] += 10 * (traffic.throttled > 0)
        self.sums["throttled"] += traffic.throttled
        load = {"busy": round(traffic.running), "waiting": round(traffic.waiting * rush)}
        sample = replace(self.board.sample(self.now, self.now, self.board.totals()), **load)
        history.write(self.board.history, sample)

    def _mark(self, traffic: Traffic) -> CounterSnapshot:
        counts = {name: int(value) for name, value in self.sums.items()}
        tally = replace(
            self.board.totals(),
            answers=(counts["ended"],),
            refused=counts["refused"],
            latency_sum=self.sums["latency"],
            queued_sum=self.sums["queued"],
        )
        cpu = {member.pid: self.cpu[member.pid] for member in self.pool}
        return CounterSnapshot(
            self.now, tally, cpu, self.sums["used"], counts["periods"], counts["throttled"]
        )


def shown(kind: str) -> str:
    return "" if kind == FITS else kind


@pytest.mark.parametrize("name", KINDS)
def test_known_traffic_gets_the_right_advice_within_a_minute_and_keeps_it(name: str, tmp_path: Path) -> None:
    traffic = KINDS[name]
    changes = Site(tmp_path).run(traffic, 600)
    assert [kind for _, kind in changes] == ["", traffic.kind]
    assert changes[-1][0] <= 60


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(KINDS, 2)])
def test_after_a_shift_the_advice_is_right_within_a_minute(first: str, second: str, tmp_path: Path) -> None:
    """The old advice goes, the new one comes, and nothing else is said."""
    site, before, after = Site(tmp_path), KINDS[first], KINDS[second]
    site.run(before, 180)
    changes = [(second, shown(kind)) for second, kind in site.run(after, 300)]
    kinds = [kind for kind, _ in itertools.groupby(kind for _, kind in changes)]
    assert kinds[-1] == shown(after.kind)
    assert set(kinds) <= {"", shown(before.kind), shown(after.kind)}
    assert len(kinds) == len(set(kinds))  # none comes twice
    assert changes[-1][0] <= 60
    if before.kind != after.kind and shown(before.kind):
        assert changes[1] == (changes[1][0], "")
        assert changes[1][0] <= 20


def test_a_profile_that_suits_the_traffic_better_is_told_after_minutes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.sampler.computing = 0.9
    one = Traffic(FITS, plan(), ended=40, running=0.9, latency=0.9, queued=0.0, cpu=(0.4, 0.4))
    changes = site.run(one, 400)
    assert [kind for _, kind in changes] == ["", "profile cpu"]
    assert changes[-1][0] >= 180
    assert [kind for _, kind in site.run(KINDS["waits"], 60)] == ["profile cpu", "", FITS]
