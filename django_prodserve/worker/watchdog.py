"""A worker's eye on its own requests: which are slow, and which have had their time.

Lives in a worker, in the thread that looks around once a second; it runs no user code but the URLconf's
patterns. A thread that holds the GIL stops this one too: the arbiter sees that its heartbeat stands still.
"""

from __future__ import annotations

import _thread
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..scoreboard.board import REASONS
from ..scoreboard.events import Event, innermost, write
from ..scoreboard.slot import Request, Slot
from ..scoreboard.stacks import format_request
from ..timeouts import MARK, RequestTimeout
from ..utils.units import format_duration

STUCK = REASONS.index("stuck") + 1
LOOKED_UP = 1.0
"""Seconds after which a request's route is looked up; nearly all have ended by then."""


@dataclass
class TrackedRequest:
    """What is known of a request that runs for long."""

    start: float
    route: str
    limit: float
    told: bool = False
    interrupted: float = 0.0
    """When it was asked to end; 0.0 if it was not."""


class RequestWatchdog:
    """Looks at the requests of one worker."""

    def __init__(self, slot: Slot, *, timeout: float, slow: float, log: Any) -> None:
        self.slot, self.timeout, self.slow, self.log = slot, timeout, slow, log
        self.cases: dict[int, TrackedRequest] = {}

    def tick(self, now: float) -> None:
        """Look at every request that runs; about once a second."""
        for request in self.slot.running():
            if now - request.start >= LOOKED_UP:
                self._check(request, self._case(request), now)

    def _case(self, request: Request) -> TrackedRequest:
        case = self.cases.get(request.row)
        if case is None or case.start != request.start:
            route, limit = find_route(request.path)
            case = TrackedRequest(request.start, route, self.timeout if limit is None else limit)
            self.cases[request.row] = case
        return case

    def _check(self, request: Request, case: TrackedRequest, now: float) -> None:
        age = now - request.progress  # a stream that moves is young
        if case.interrupted:
            if now - case.interrupted > LEAVES_WITHIN and self.slot.replacement_reason != STUCK:
                self.slot.replacement_reason = STUCK
                text = f"Request does not end, replacing its worker: {title(request, case, now)}"
                self.log.error("%s.", text)
                self._record_event("stuck", text)
        elif case.limit and age >= case.limit:
            case.interrupted = now
            limit = format_duration(case.limit)
            self._log("timeout", request, case, now, f"Request timed out after {limit}, interrupting it")
            interrupt(self.slot, request)
        elif self.slow and age >= self.slow and not case.told:
            case.told = True
            self._log("slow", request, case, now, "Slow request")

    def _log(self, kind: str, request: Request, case: TrackedRequest, now: float, what: str) -> None:
        stack = stack_of(request.ident)
        text = f"{what}: {title(request, case, now)}"
        self.log.warning("%s. Stack:\n%s", text, stack)
        self._record_event(kind, text, stack)

    def _record_event(self, kind: str, text: str, stack: str = "") -> None:
        """Leave it on the scoreboard, where it outlives this worker."""
        write(self.slot.events, Event(time.time(), kind, text, innermost(stack)))


def title(request: Request, case: TrackedRequest, now: float) -> str:
    """Return what a request is: ``GET /report/ running for 10.7 s (id 5f2c, route report/)``."""
    parts = [f"id {request.id}"] if request.id else []
    parts += [f"route {case.route}"] if case.route else []
    name = format_request(request.method, request.path, "")
    details = f" ({', '.join(parts)})" if parts else ""
    return f"{name} running for {now - request.start:.1f} s{details}"


def find_route(path: str) -> tuple[str, float | None]:
    """Return the route of a path and how long its view may run; empty and None where nobody says."""
    from django.urls import resolve

    with suppress(Exception):  # no such route, or a converter that raises: then it has none
        match = resolve(unquote(path))
        return match.route, getattr(match.func, MARK, None)
    return "", None


def stack_of(ident: int) -> str:
    """Return the stack of a thread as Python prints it."""
    frame = sys._current_frames().get(ident)
    return "".join(traceback.format_stack(frame)).rstrip() if frame else "(it has ended)"


def interrupt(slot: Slot, request: Request) -> None:
    """Raise RequestTimeout in the thread of a request; it arrives when that thread runs Python again."""
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    send = _send_and_settle if SPINS else raise_in
    ident = ctypes.c_ulong(request.ident)
    if _runs(slot, request):
        send(ident, ctypes.py_object(RequestTimeout))
        if not _runs(slot, request):  # it has just ended: the next one in this thread is not meant
            send(ident, None)


SPINS = sys.version_info[:2] == (3, 11)
"""Python 3.11 tells all threads to look for an exception until it has arrived, and one that is traced or
profiled looks again and again: with a request that waits in C none of them would go on."""


class _SettledError(BaseException):
    """Raised in a thread that has nothing else to do."""


def _send_and_settle(ident: Any, error: Any) -> None:
    """Raise in a thread, then have the others look no more: that it has arrived in one is what ends it.

    Who is meant looks once more when it takes the GIL. A thread of its own, because what is raised in the
    main thread could cut short a signal's handler.
    """
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    settled = ctypes.py_object(_SettledError)
    done = _thread.allocate_lock()

    def send() -> None:
        own = ctypes.c_ulong(_thread.get_ident())
        try:  # no function of Python's may be called from the first to the second
            raise_in(ident, error)
            raise_in(own, settled)
            while True:
                pass
        except _SettledError:
            done.release()

    done.acquire()
    _thread.start_new_thread(send, ())
    done.acquire()


def _runs(slot: Slot, request: Request) -> bool:
    found = slot.request(request.row)
    return found is not None and found.start == request.start


def clean_up() -> None:
    """Close this thread's database connections: an interrupted one may be in the middle of a message."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        with suppress(Exception):  # whatever a driver says that was interrupted
            connection.close()


LEAVES_WITHIN = 2.0
"""Seconds that an interrupted request may take to leave its view."""
