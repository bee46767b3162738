from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from django_prodserve.scoreboard import events, history
from django_prodserve.scoreboard.board import Scoreboard, last_board
from django_prodserve.scoreboard.events import ENTRIES, SIZE, WORKER_ENTRIES, Event, innermost
from django_prodserve.scoreboard.stacks import only_busy_threads


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(None, slots=3, rows=2, now=1.0)


def test_events_of_the_arbiter_and_the_workers_are_told_in_their_order(board: Scoreboard) -> None:
    slot = board.claim()
    events.write(slot.events, Event(2.0, "slow", "GET /straße\udc80 is slow", "the stack\nof it"))
    board.record_event(Event(1.0, "start", "Generation 1 serves"))
    board.record_event(Event(3.0, "crashed", "Worker 12 crashed"))
    assert board.read_events() == [
        Event(1.0, "start", "Generation 1 serves"),
        Event(2.0, "slow", "GET /straße? is slow", "the stack\nof it"),
        Event(3.0, "crashed", "Worker 12 crashed"),
    ]


def test_only_the_last_are_kept(board: Scoreboard) -> None:
    slot = board.claim()
    for number in range(200):
        board.record_event(Event(number, "crashed", f"Worker {number} crashed"))
        events.write(slot.events, Event(1000 + number, "slow", f"GET /{number} is slow"))
    told = board.read_events()
    assert [event.time for event in told] == [
        *range(200 - ENTRIES, 200),
        *range(1200 - WORKER_ENTRIES, 1200),
    ]


def test_what_is_too_long_is_cut_and_harms_no_neighbour(board: Scoreboard) -> None:
    board.record_event(Event(1.0, "slow", "ü\0" * 10_000, "é" * 10_000))
    board.record_event(Event(2.0, "slow", "", "\0"))
    first, second = board.read_events()
    assert first.text == "ü " * 250
    assert first.stack == "é" * len(first.stack)
    assert SIZE - 800 < len(first.stack.encode()) < SIZE
    assert second == Event(2.0, "slow", "", "\0")


def test_the_events_of_a_worker_outlive_it(board: Scoreboard) -> None:
    slot = board.claim()
    child = os.fork()
    if not child:
        events.write(slot.events, Event(5.0, "slow", "GET / is slow", "stack"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    board.release(slot)
    assert slot.events.read() == []
    assert board.read_events() == [Event(5.0, "slow", "GET / is slow", "stack")]
    assert board.claim(slot.index).events.read() == []


def test_an_entry_that_its_writer_did_not_finish_is_left_out(board: Scoreboard) -> None:
    for number in range(1, ENTRIES + 1):
        board.record_event(Event(float(number), "slow", f"{number}"))
    ring = board.events
    ring.whole[ring._entry(ENTRIES + 1)] = 0  # what a writer does first; then it was killed
    assert [event.time for event in board.read_events()] == [*range(2, ENTRIES + 1)]
    board.record_event(Event(99.0, "slow", "the next one takes its place"))
    assert [event.time for event in board.read_events()] == [*range(2, ENTRIES + 1), 99.0]


def test_a_reader_never_sees_half_an_event(board: Scoreboard) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            board.record_event(Event(float(number), "slow", f"{number}" * 20, f"{number}" * 50))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = 0
        while seen < 500:
            for event in board.read_events():
                number = f"{event.time:.0f}"
                assert (event.text, event.stack) == (number * 20, number * 50)
                seen += 1
    finally:
        sys.setswitchinterval(before)
        stop.set()
        thread.join()


def test_a_sample_is_read_as_it_was_written(board: Scoreboard) -> None:
    slot = board.claim()
    slot.start(4711, 1, 2, now=2.0)
    slot.request_started(0, 2.0, "GET", "/", "")
    slot.request_finished(0, 2.3, 404, 2.0, 0.004)
    slot.request_started(1, 3.0, "GET", "/", "")
    slot.refused, slot.queue = 3, 5
    board.count_memory(2**34, 2**32)
    board.count_waiting(5)
    sample = board.sample(1e9, 9.5, board.totals())
    assert (sample.busy, sample.waiting, sample.memory, sample.refused) == (1, 9, 2**32, 3)
    assert sample.classes == (0, 0, 0, 1, 0)
    assert sum(sample.latency) == sum(sample.queued) == 1
    for _ in range(history.ENTRIES + 5):
        history.write(board.history, sample)
    assert [*history.read(board.history)] == [sample] * history.ENTRIES


def test_another_process_reads_document_and_events(tmp_path: Path) -> None:
    document = {"plan": {"workers": "ü" * 5001}}
    board = Scoreboard.create(tmp_path / "board-3", slots=2, rows=2, now=5.0, document=document)
    board.record_event(Event(1.0, "start", "Generation 3 serves"))
    for number in (1, 2):
        (tmp_path / f"board-{number}").write_bytes(b"cut short")
    (tmp_path / "board-3-stacks-0").touch()
    assert last_board(tmp_path, 3) is None
    before = last_board(tmp_path, 4)
    assert before is not None
    assert before.static_info == document
    assert before.read_events() == [Event(1.0, "start", "Generation 3 serves")]
    assert Scoreboard.create(None, slots=1, rows=1, now=5.0).static_info == {}


def test_of_a_long_stack_the_innermost_calls_are_kept() -> None:
    assert innermost("  File one\n    call()") == "  File one\n    call()"
    calls = [f"  File {number}\n    call()" for number in range(1000)]
    kept = innermost("\n".join(calls))
    assert kept.startswith("  ...\n")
    assert kept.endswith(calls[-1])
    assert len(kept) < SIZE - 600
    assert "\n".join(calls).endswith(kept.removeprefix("  ...\n"))


def test_of_a_dump_the_threads_with_a_request_are_kept() -> None:
    deep = "\n".join(f"  File {number}" for number in range(100))
    busy = f"GET / [id] for 3.0 s\nThread 0x0001 (most recent call first):\n{deep}"
    idle = f"Current thread 0x0002 (most recent call first):\n{deep}"
    assert only_busy_threads(f"{idle}\n\n{busy}").splitlines() == busy.splitlines()[:14]
    assert only_busy_threads(idle).splitlines() == idle.splitlines()[:14]
    assert only_busy_threads("") == ""
