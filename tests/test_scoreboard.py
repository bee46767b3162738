from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import timeit
from pathlib import Path

import pytest

from django_prodserve.scoreboard.board import _NOTE_SEQUENCE, Scoreboard
from django_prodserve.scoreboard.slot import BOOTING, BOUNDS, CLASSES, FREE, METHODS, RETIRING, SERVING, Slot


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(None, slots=4, rows=3, now=1.0)


def claim(board: Scoreboard) -> Slot:
    """Claim a slot whose rows all have a thread."""
    slot = board.claim()
    for row in range(len(slot.rows)):
        slot.thread(row, 1)
    return slot


def test_a_request_is_seen_while_it_runs_and_counted_when_it_ends(board: Scoreboard) -> None:
    slot = claim(board)
    slot.start(4711, 2, 3, now=10.0)
    slot.thread(1, ident=99, native_id=98)
    slot.request_started(1, 11.0, "GET", "/straße", "some-id")
    (request,) = slot.running()
    assert (request.row, request.ident, request.native_id) == (1, 99, 98)
    assert (request.method, request.path, request.id) == ("GET", "/straße", "some-id")
    assert (request.start, request.progress) == (11.0, 11.0)
    slot.progress(1, 12.0)
    assert slot.running()[0].progress == 12.0
    slot.request_finished(1, 13.5, 503, 11.0, 0.002, "POST")
    assert slot.running() == []
    assert slot.last_end() == 13.5
    tally = slot.counters()
    assert tally.classes == (0, 0, 0, 0, 1)
    assert tally.answers[METHODS.index("POST") * CLASSES + 4] == 1
    assert tally.requests == 1
    assert tally.latency[BOUNDS.index(2.5)] == tally.queued[BOUNDS.index(0.0025)] == 1
    assert (tally.latency_sum, tally.queued_sum) == (2.5, 0.002)


def test_what_took_longer_than_every_bound_is_counted_too(board: Scoreboard) -> None:
    slot = claim(board)
    slot.request_finished(0, 1000.0, 200, 1.0, 999.0)
    assert slot.counters().latency[-1] == slot.counters().queued[-1] == 1
    assert sum(slot.counters().latency) == 1


def test_texts_that_are_too_long_or_odd_do_no_harm(board: Scoreboard) -> None:
    slot = claim(board)
    slot.request_started(0, 1.0, "X" * 1000, "/\0\n\udc80" + "ü" * 5000, "i" * 1000)
    slot.request_started(1, 2.0, "GET", "/next", "")
    first, second = slot.running()
    assert first.path.startswith("/\0\n?ü")
    assert len(first.path) < 500
    assert (second.method, second.path, second.id) == ("GET", "/next", "")


def test_threads_of_a_worker_never_lose_each_others_counts(board: Scoreboard) -> None:
    slot = claim(board)

    def work(row: int) -> None:
        for _ in range(20_000):
            slot.request_started(row, 1.0, "GET", "/", "")
            slot.request_finished(row, 2.0, 200, 1.0, 0.0)

    threads = [threading.Thread(target=work, args=[row]) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slot.counters().requests == sum(slot.counters().latency) == 60_000


def test_a_reader_never_takes_one_requests_text_for_anothers(board: Scoreboard) -> None:
    slot = claim(board)
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            slot.request_started(0, float(number), "GET", f"/{number}", str(number))
            slot.request_finished(0, 0.0, 200, 0.0, 0.0)

    thread = threading.Thread(target=work)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        seen = 0
        while seen < 300:
            for request in slot.running():
                assert request.path == f"/{request.id}" == f"/{request.start:.0f}"
                seen += 1
    finally:
        sys.setswitchinterval(before)
        stop.set()
        thread.join()


def test_workers_see_the_others_of_their_generation_that_serve(board: Scoreboard) -> None:
    slots = [claim(board) for _ in range(4)]
    for slot, generation in zip(slots, [0, 0, 1, 0], strict=True):
        slot.start(1, generation, 3, now=1.0)
        assert slot.state == BOOTING
        slot.connections, slot.work, slot.queue = 10 + slot.index, slot.index, 100
    assert board.peers(slots[0]) == []
    for slot in slots:
        slot.state = SERVING
    assert board.peers(slots[0]) == [(11, 1), (13, 3)]
    assert board.peers(slots[2]) == []
    slots[3].state = RETIRING
    assert board.peers(slots[0]) == [(11, 1)]


def test_what_a_worker_wrote_survives_its_death_in_the_totals(board: Scoreboard) -> None:
    slot = claim(board)
    child = os.fork()
    if not child:
        slot.start(os.getpid(), 0, 3, now=1.0)
        slot.request_started(0, 1.0, "GET", "/", "")
        slot.request_finished(0, 2.0, 200, 1.0, 0.5)
        slot.sample(0, 0.25, 0.5, 0.25)
        slot.refused, slot.aborted = 7, 1
        slot.request_started(0, 3.0, "GET", "/deadly", "")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert slot.pid == child
    assert [request.path for request in slot.running()] == ["/deadly"]
    before = board.totals()
    board.release(slot)
    board.count_restart("killed")
    assert slot.state == FREE
    assert slot.running() == []
    assert board.totals() == before
    assert (before.requests, before.latency_sum, before.refused, before.aborted) == (1, 1.0, 7, 1)
    assert (before.samples, before.cpu_sum, before.wait_sum, before.delay_sum) == (1, 0.25, 0.5, 0.25)
    assert board.restarts() == {"killed": 1}
    assert board.claim().counters().requests == 0


def test_a_request_waits_unless_a_thread_may_run_it(board: Scoreboard) -> None:
    slot = claim(board)
    slot.start(1, 1, 3, 5.0)
    slot.request_started(0, 5.0, "GET", "/", "")
    slot.queue = 2
    assert slot.waiting() == 0, "two free threads are about to run them"
    slot.concurrency_limit = 1
    assert slot.waiting() == 2, "one may run at a time"
    slot.concurrency_limit, slot.lane = 3, 1
    assert slot.waiting() == 2, "free threads are for other routes"


def test_slots_are_given_once(board: Scoreboard) -> None:
    assert [board.claim().index for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        board.claim()
    board.release(board.slots[2])
    assert board.claim().index == 2


def test_another_process_reads_the_file_and_only_its_user_may(tmp_path: Path) -> None:
    path = tmp_path / "board"
    board = Scoreboard.create(path, slots=2, rows=2, now=5.0)
    board.write_summary({"profile": "io"})
    slot = claim(board)
    slot.start(12, 0, 1, now=6.0)
    slot.request_started(1, 7.0, "POST", "/pay", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code = (
        "import sys; from pathlib import Path; from django_prodserve.scoreboard.board import Scoreboard\n"
        "board = Scoreboard.open(Path(sys.argv[1]))\n"
        "slot, = board.active_slots(); request, = slot.running()\n"
        "print(board.pid, board.started, board.summary()['profile'], end=' ')\n"
        "print(slot.pid, request.method, request.path)\n"
        "try: slot.busy = 1\n"
        "except TypeError: print('read only')\n"
    )
    read = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=30
    )
    assert read.stdout.split("\n")[:2] == [f"{os.getpid()} 5.0 io 12 POST /pay", "read only"]
    with pytest.raises(FileExistsError):
        Scoreboard.create(path, slots=2, rows=2, now=5.0)
    board.remove()
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100_000])
def test_a_file_that_is_no_board_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "board"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"board|empty"):
        Scoreboard.open(path)


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    path = tmp_path / "board"
    Scoreboard.create(path, slots=2, rows=2, now=5.0)
    os.truncate(path, 4096)
    with pytest.raises(ValueError, match="not a scoreboard"):
        Scoreboard.open(path)


def test_a_note_is_whole_or_absent(board: Scoreboard) -> None:
    assert board.summary() == {}
    board.write_summary({"advice": "x" * 1000})
    board.write_summary({"advice": "short"})
    assert board.summary() == {"advice": "short"}
    with pytest.raises(ValueError, match="4096"):
        board.write_summary({"advice": "x" * 5000})
    assert board.summary() == {"advice": "short"}


def test_it_costs_microseconds(board: Scoreboard) -> None:
    slot = claim(board)

    def request() -> None:
        slot.busy = 1
        slot.request_started(0, 1.0, "GET", "/some/path", "0123456789abcdef")
        slot.request_finished(0, 1.5, 200, 1.0, 0.0)
        slot.busy = 0

    # About 1.7 us each; the bound leaves room for a machine that does other things too.
    assert min(timeit.repeat(request, number=1000, repeat=20)) / 1000 < 20e-6


def test_a_reader_waits_for_an_arbiter_that_has_no_cpu_during_a_write(board: Scoreboard) -> None:
    board.write_summary({"room": 1})
    board.whole[_NOTE_SEQUENCE] += 1
    found: list[dict[str, object]] = []
    reader = threading.Thread(target=lambda: found.append(board.summary()))
    reader.start()
    reader.join(0.01)
    board.whole[_NOTE_SEQUENCE] += 1
    reader.join()
    assert found == [{"room": 1}]
