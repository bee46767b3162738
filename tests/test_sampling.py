from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import Slot
from django_prodserve.worker.sampling import MIN_INTERVAL, Sampler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells the run delay")


@pytest.fixture
def slot() -> Slot:
    slot = Scoreboard.create(None, slots=1, rows=2, now=0.0).claim()
    for row in range(2):
        slot.thread(row, 1)
    return slot


def compute() -> None:
    until = time.thread_time() + 0.01
    while time.thread_time() < until:
        pass


def request(sampler: Sampler, work: object) -> None:
    token = sampler.begin(1, time.monotonic())
    assert callable(work)
    work()
    if token:
        sampler.end(0, token, time.monotonic())


def test_of_quick_requests_few_are_measured(slot: Slot) -> None:
    sampler = Sampler(slot)
    for number in range(30):
        started = 100.0 + number * MIN_INTERVAL / 8
        if token := sampler.begin(1, started):
            sampler.end(0, token, started)
    assert slot.counters().samples == 4


@pytest.mark.parametrize(
    ("work", "least", "most"), [(compute, 0.7, 1.01), (lambda: time.sleep(0.01), 0.0, 0.3)]
)
def test_computing_is_told_from_waiting(slot: Slot, work: object, least: float, most: float) -> None:
    sampler = Sampler(slot)
    for _ in range(3):
        request(sampler, work)
    tally = slot.counters()
    assert tally.samples == 3
    share = tally.cpu_sum / (tally.cpu_sum + tally.wait_sum)
    assert least <= share <= most
    assert tally.delay_sum >= 0


def test_who_gets_no_cpu_is_told_from_who_waits(slot: Slot) -> None:
    """More processes than CPUs compute, so each is kept from one for a while."""
    sampler = Sampler(slot)
    sampler.open()
    with ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        started, spent, late = time.monotonic(), time.thread_time(), sampler.run_delay()
        while sampler.run_delay() - late < 0.05:
            compute()
            assert time.monotonic() - started < 30
        took, spent = time.monotonic() - started, time.thread_time() - spent
    assert spent < 0.95 * took
    late = sampler.run_delay()
    time.sleep(0.1)
    assert sampler.run_delay() - late < 0.09


def test_requests_beside_others_are_not_measured(slot: Slot) -> None:
    sampler = Sampler(slot)
    assert not any(sampler.begin(2, float(number)) for number in range(16))
    token = sampler.begin(1, 100.0)
    assert token
    sampler.begin(2, 100.0)  # another one begins while it runs
    sampler.end(0, token, 101.0)
    assert slot.counters().samples == 0
