from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View

from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import Slot
from django_prodserve.timeouts import RequestTimeout, request_timeout
from django_prodserve.worker.watchdog import HUNG, RequestWatchdog, ThreadRequests, find_route, interrupt

LOG = logging.getLogger("watched")


@request_timeout(300)
def report(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@method_decorator(request_timeout(0), name="dispatch")
class Endless(View):
    pass


urlpatterns = [
    path("report/<int:year>/", report),
    path("endless/", Endless.as_view()),
    path("short/", request_timeout(1.5)(View.as_view())),
    path("plain/", lambda request: HttpResponse()),
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("/report/2026/", ("report/<int:year>/", 300.0)),
        ("/report%2F2026/", ("report/<int:year>/", 300.0)),
        ("/endless/", ("endless/", 0.0)),
        ("/short/", ("short/", 1.5)),
        ("/plain/", ("plain/", None)),
        ("/nowhere/", ("", None)),
    ],
)
def test_a_view_says_how_long_it_may_run(where: str, expected: tuple[str, float | None]) -> None:
    with override_settings(ROOT_URLCONF=__name__):
        assert find_route(where) == expected


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        request_timeout(-1)


def spinning() -> None:
    while True:
        time.sleep(0.001)


@contextmanager
def running(slot: Slot, view: Callable[[], None], start: float) -> Iterator[list[BaseException]]:
    """Run a view in a thread as a worker does; the list holds what ended it."""
    ended: list[BaseException] = []

    def work() -> None:
        slot.thread(0, threading.get_ident())
        slot.request_started(0, start, "GET", "/plain/", "the-id")
        try:
            view()
        except BaseException as error:
            ended.append(error)
        slot.request_finished(0, time.monotonic(), 504, start, 0.0)

    thread = threading.Thread(target=work)
    thread.start()
    while not slot.running() and thread.is_alive():
        time.sleep(0.001)
    yield ended
    thread.join()


@pytest.fixture
def slot() -> Slot:
    return Scoreboard.create(None, slots=1, rows=2, now=0.0).claim()


def test_a_slow_request_is_told_once_with_its_stack(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def waits_for_somebody() -> None:
        over.wait()

    watch = RequestWatchdog(slot, ThreadRequests(slot), timeout=0, slow=10, log=LOG)
    with override_settings(ROOT_URLCONF=__name__), running(slot, waits_for_somebody, start=100.0):
        watch.tick(now=109.0)
        assert caplog.records == []
        watch.tick(now=110.5)
        watch.tick(now=1000.0)
        over.set()
    (record,) = caplog.records
    assert "Slow request: GET /plain/ running for 10.5 s (id the-id, route plain/). Stack:" in record.message
    assert "in waits_for_somebody\n    over.wait()" in record.message


def test_a_request_past_its_timeout_is_interrupted(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    watch = RequestWatchdog(slot, ThreadRequests(slot), timeout=30, slow=0, log=LOG)
    with running(slot, spinning, start=100.0) as ended:
        watch.tick(now=129.0)
        watch.tick(now=130.0)
    assert [type(error) for error in ended] == [RequestTimeout]
    assert "Request timed out after 30 s, interrupting it: GET " in caplog.text
    watch.tick(now=200.0)
    assert slot.replacement_reason == 0
    assert slot.counters().classes[4] == 1


def test_one_that_cannot_be_interrupted_costs_the_worker(slot: Slot) -> None:
    lock = threading.Lock()
    lock.acquire()
    watch = RequestWatchdog(slot, ThreadRequests(slot), timeout=30, slow=0, log=LOG)
    with running(slot, lambda: lock.acquire() and None, start=100.0) as ended:
        watch.tick(now=130.0)
        watch.tick(now=131.0)
        assert slot.replacement_reason == 0
        watch.tick(now=133.0)
        assert slot.replacement_reason == HUNG
        lock.release()
    assert [type(error) for error in ended] in ([RequestTimeout], [])


def test_a_stream_that_moves_is_not_stuck(slot: Slot, caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()
    watch = RequestWatchdog(slot, ThreadRequests(slot), timeout=30, slow=10, log=LOG)
    with running(slot, lambda: over.wait() and None, start=100.0):
        for second in range(101, 200):
            slot.progress(0, second - 0.5)
            watch.tick(now=float(second))
        assert caplog.records == []
        watch.tick(now=240.0)
        over.set()
    assert "Request timed out" in caplog.text


def test_a_request_that_has_ended_leaves_the_next_one_alone(slot: Slot) -> None:
    over = threading.Event()
    with running(slot, lambda: over.wait() and None, start=100.0) as ended:
        (request,) = slot.running()
        slot.request_finished(0, 101.0, 200, 100.0, 0.0)
        slot.request_started(0, 102.0, "GET", "/next", "")
        interrupt(slot, request)
        over.set()
    assert ended == []


def test_who_is_traced_or_profiled_goes_on_beside_one_that_is_interrupted_and_waits(slot: Slot) -> None:
    lock, went_on = threading.Lock(), threading.Event()
    lock.acquire()

    def traced() -> None:
        sys.settrace(lambda *event: None)
        for _ in range(10):
            enter()
        went_on.set()

    with running(slot, lambda: lock.acquire() and None, start=100.0) as ended:
        interrupt(slot, slot.running()[0])
        threading.Thread(target=traced, daemon=True).start()
        assert went_on.wait(10)
        lock.release()
    assert [type(error) for error in ended] == [RequestTimeout]


def enter() -> None:
    """A function of Python's: on entering one, Python 3.11 looks for exceptions again and again."""
