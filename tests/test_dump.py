"""What ``dump`` makes of the stacks that faulthandler writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from django_prodserve.cli.dump import arranged, idle_place, on_loop
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import Request

OURS = "/venv/lib/django_prodserve/worker"
PYTHON = "/usr/lib/python3.13"
IDLE = f"""Thread 0x00000001 (most recent call first):
  File "{OURS}/thread_pool.py", line 138 in _thread
  File "{PYTHON}/threading.py", line 994 in run
"""
VIEW = f"""Thread 0x00000002 (most recent call first):
  File "/srv/shop/views.py", line 7 in pay
  File "{OURS}/thread_pool.py", line 140 in _thread
"""
QUICK = VIEW.replace("00000002", "00000003").replace("pay", "look")
OWN = f"""Thread 0x00000004 [mailer] (most recent call first):
  File "{PYTHON}/threading.py", line 359 in wait
  File "{PYTHON}/queue.py", line 202 in get
  File "/srv/shop/mail.py", line 3 in send
"""
POOL = f"""Thread 0x00000005 (most recent call first):
  File "{PYTHON}/concurrent/futures/thread.py", line 90 in _worker
  File "{PYTHON}/threading.py", line 994 in run
"""


def request(ident: int, start: float, path: str) -> Request:
    times = {"start": start, "progress": start}
    return Request(row=0, ident=ident, native_id=ident, method="GET", path=path, id="abc", **times)


def test_threads_with_a_request_come_first_the_oldest_before_the_others() -> None:
    text = "\n".join([IDLE, QUICK, OWN, VIEW, IDLE.replace("00000001", "00000006"), POOL])
    lines = arranged(text, [request(3, 9.0, "/look/"), request(2, 4.0, "/pay/")], 10.0)
    assert lines[0].startswith("GET /pay/ [abc] for 6.0 s\nThread 0x00000002")
    assert lines[1].startswith("GET /look/ [abc] for 1.0 s\nThread 0x00000003")
    assert lines[2].strip() == OWN.strip()
    assert lines[3:] == ["3 idle threads of the server: thread_pool.py:138 _thread (2), thread.py:90 _worker"]


def test_a_thread_of_the_project_that_waits_is_shown() -> None:
    assert idle_place(OWN) == ""
    assert idle_place(IDLE) == "thread_pool.py:138 _thread"
    assert idle_place(VIEW) == ""


def test_no_answer_has_no_threads() -> None:
    assert arranged("", [], 1.0) == []


def test_more_tasks_than_rows_are_counted_and_the_oldest_are_shown_by_their_worker() -> None:
    slot = Scoreboard.create(None, slots=1, rows=1, now=0.0).claim()
    assert [*on_loop(slot, "", 1.0)] == []
    slot.tasks = 17
    slot.write_request(slot.task_rows[0], 4.0, "GET", "/feed/", "abc")
    first = "17 async requests on the asyncio loop; the oldest 16 are"
    assert [*on_loop(slot, "GET /feed/\n  File", 10.0)] == [first, "GET /feed/\n  File"]
    assert [*on_loop(slot, "", 10.0)] == [first, "GET /feed/ [abc] for 6.0 s\n(no answer)"]
    slot.websockets = 3
    assert next(on_loop(slot, "x", 1.0)).startswith("17 async requests and 3 websockets on the asyncio loop;")
    slot.tasks = 0
    assert next(on_loop(slot, "x", 1.0)) == "3 websockets on the asyncio loop"


ASKED = """
import os, signal, sys, threading, time
from pathlib import Path
from django_prodserve.scoreboard.stacks import Stacks, dump_now

board = Path(sys.argv[1])
stacks = Stacks(1, board)
stacks.register(0)
stacks.add_tasks(0, lambda: "GET /feed/" if len(sys.argv) == 2 else 1 / 0)
found = []
ask = lambda: found.append(dump_now(board, 0, os.getpid(), tasks=True, patience=30))
asking = threading.Thread(target=ask)
asking.start()
while asking.is_alive():
    time.sleep(0.01)  # the main thread runs the handler
print("in <module>" in found[0][0] and "in dump_now" in found[0][0], found[0][1])
print("Tasks" in stacks.read(0), stacks.crash(0) == "")
"""


@pytest.mark.parametrize(
    ("arguments", "tasks"), [([], "GET /feed/"), (["broken"], "(ZeroDivisionError('division by zero'))")]
)
def test_the_main_thread_adds_its_tasks_behind_the_stacks_of_threads(
    tmp_path: Path, arguments: list[str], tasks: str
) -> None:
    command = [sys.executable, "-c", ASKED, str(tmp_path / "board"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == [f"True {tasks}", "False True"], ended.stderr
