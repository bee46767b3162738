"""What a start says: each line once, and how far a step is that takes long."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prodserve.startup import announcer as module
from django_prodserve.startup.announcer import Announcer, announcer
from django_prodserve.staticfiles.progress import COLLECT, COMPRESS, FileCount

pytestmark = pytest.mark.timeout(60, method="thread")  # else the timer that is tested is the timeout's


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_SECONDS", "NEXT_SECONDS", "REDRAW_SECONDS"):
        monkeypatch.setattr(module, name, 0.01)


def until_said(lines: list[str], number: int) -> None:
    deadline = time.monotonic() + 30
    while len(lines) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_step_is_said_now_and_then_and_nothing_is_left_of_it() -> None:
    lines: list[str] = []
    say = Announcer(lines.append)
    with say.step("loading the project"):
        until_said(lines, 2)
    assert {*lines} == {"loading the project (0 s)"}
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert say.lines == []


def test_a_step_says_how_far_it_is_and_a_step_in_it_takes_its_place() -> None:
    lines: list[str] = []
    say, count = Announcer(lines.append), FileCount()
    with say.step(count.__str__):
        until_said(lines, 1)
        count.begin(COLLECT, 130)
        count.advance(COLLECT)
        count.advance(COMPRESS)
        with say.step("asking"):
            until_said(lines, 2)
        until_said(lines, 3)
    assert lines[0] == "reading static files (0 s)"
    assert "asking (0 s)" in lines
    assert lines[-1] == "collecting static files: 1/130 (0 s)"


def test_a_child_counts_for_its_parent() -> None:
    count = FileCount()
    child = os.fork()
    if not child:
        count.begin(COMPRESS, 2)
        count.advance(COMPRESS)
        os._exit(0)
    os.waitpid(child, 0)
    assert str(count) == "compressing static files: 1/2"


def test_a_timer_of_the_project_is_left_alone() -> None:
    lines: list[str] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: lines.append("theirs"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with Announcer(lines.append).step("loading"):
            until_said(lines, 1)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert lines == ["theirs"]


@contextlib.contextmanager
def a_terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def test_on_a_terminal_a_step_is_written_over_and_gone_before_the_next_line() -> None:
    with a_terminal() as (ours, theirs):
        say = Announcer(lambda line: os.write(theirs, f"{line}\n".encode()), theirs)
        with say.step("loading the project"):
            assert select.select([ours], [], [], 30)[0]
            say("health    /livez/")
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        seen = ""
        while "/livez/" not in seen:
            seen += os.read(ours, 4096).decode()
    assert seen.startswith("\r\x1b[Kloading the project ... 0 s\r")
    assert "\r\x1b[Khealth    /livez/\r\n" in seen


def test_a_step_that_is_over_in_time_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 60.0)
    with a_terminal() as (ours, theirs):
        say = Announcer(str, theirs)
        with say.step("loading the project"):
            say("workers   2")
        assert not select.select([ours], [], [], 0)[0]


def test_a_later_generation_says_what_is_new(tmp_path: Path) -> None:
    lines: list[str] = []
    first = announcer(lines.append, text=True, place=tmp_path, number=1)
    for line in ("workers   2", "warning: root"):
        first(line)
    first.keep(tmp_path)
    second = announcer(lines.append, text=True, place=tmp_path, number=2)
    for line in ("workers   2", "warning: root", "warning: new"):
        second(line)
    second.keep(tmp_path)
    third = announcer(lines.append, text=True, place=tmp_path, number=3)
    third("warning: new")
    third("workers   2")
    assert lines == ["workers   2", "warning: root", "warning: new"]
    assert announcer(str, text=True, place=None, number=2).lines == []


def test_a_loop_that_waits_says_how_far_it_is_and_nothing_is_left_of_it() -> None:
    lines: list[str] = []
    say = Announcer(lines.append)
    deadline = time.monotonic() + 30
    while len(lines) < 4:
        say.poll(lambda: f"starting the workers: {len(lines) // 2}/2")
        assert time.monotonic() < deadline
    say.end_poll()
    assert lines == [f"starting the workers: {count}/2 (0 s)" for count in (0, 0, 1, 1)]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert say.lines == []


def test_a_wait_that_is_over_in_time_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 60.0)
    lines: list[str] = []
    say = Announcer(lines.append)
    for _ in range(3):
        say.poll(lambda: "starting the workers")
    say.end_poll()
    assert lines == []


def test_on_a_terminal_a_wait_is_cleared() -> None:
    with a_terminal() as (ours, theirs):
        say = Announcer(lambda line: os.write(theirs, f"{line}\n".encode()), theirs)
        while not select.select([ours], [], [], 0)[0]:
            say.poll(lambda: "starting the workers: 0/2")
        say.end_poll()
        say("ready")
        seen = ""
        while "ready" not in seen:
            seen += os.read(ours, 4096).decode()
    assert seen.startswith("\r\x1b[Kstarting the workers: 0/2 ... 0 s\r")
    assert seen.endswith("\r\x1b[Kready\r\n")
