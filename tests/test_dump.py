"""What ``dump`` makes of the stacks that faulthandler writes."""

from __future__ import annotations

from django_prodserve.cli.dump import arranged, idle_place
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
