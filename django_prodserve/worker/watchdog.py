"""Watch a worker's own requests: report slow ones, and interrupt those that exceed their time limit.

Lives in a worker, in the thread that ticks once a second; it runs no code from your project but the patterns
of the URLconf. A thread that holds the GIL stops this one, too: then the arbiter sees that the heartbeat has
stopped.
"""

from __future__ import annotations

import _thread
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from ..scoreboard.board import REASONS
from ..scoreboard.events import Event, innermost, write
from ..scoreboard.slot import Request, Slot
from ..scoreboard.stacks import format_request
from ..timeouts import MARK, RequestTimeout
from ..utils.units import format_duration

HUNG = REASONS.index("hung") + 1
LOOKED_UP = 1.0
"""Seconds after which the watchdog looks up a request's route; nearly all requests have ended by then."""


@dataclass
class TrackedRequest:
    """State of a request that runs for long."""

    start: float
    route: str
    limit: float
    told: bool = False
    interrupted: float = 0.0
    """When it was interrupted; 0.0 if it was not."""


class RunningRequests(Protocol):
    """Requests that run in one way: in threads, or as tasks."""

    def requests(self) -> Iterable[Request]:
        """Return those that run now."""

    def stack(self, request: Request) -> str:
        """Return the stack of one as Python prints it."""

    def interrupt(self, request: Request) -> None:
        """End one that runs too long."""


class ThreadRequests:
    """The requests in the threads of the pool."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.requests = slot, slot.running

    def stack(self, request: Request) -> str:
        """Return the stack of the request's thread."""
        return stack_of(request.ident)

    def interrupt(self, request: Request) -> None:
        """Raise RequestTimeout in the request's thread."""
        interrupt(self.slot, request)


class RequestWatchdog:
    """Watches requests of one worker."""

    def __init__(self, slot: Slot, source: RunningRequests, *, timeout: float, slow: float, log: Any) -> None:
        self.slot, self.source, self.timeout, self.slow, self.log = slot, source, timeout, slow, log
        self.cases: dict[int, TrackedRequest] = {}

    def tick(self, now: float) -> None:
        """Check every request that runs; about once a second."""
        for request in self.source.requests():
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
        age = now - request.progress  # a stream that makes progress counts as young
        if case.interrupted:
            if now - case.interrupted > LEAVES_WITHIN and self.slot.replacement_reason != HUNG:
                self.slot.replacement_reason = HUNG
                text = f"Request does not end, replacing its worker: {title(request, case, now)}"
                self.log.error("%s.", text)
                self._record_event("hung", text)
        elif case.limit and age >= case.limit:
            case.interrupted = now
            limit = format_duration(case.limit)
            self._log("timeout", request, case, now, f"Request timed out after {limit}, interrupting it")
            self.source.interrupt(request)
        elif self.slow and age >= self.slow and not case.told:
            case.told = True
            self._log("slow", request, case, now, "Slow request")

    def _log(self, kind: str, request: Request, case: TrackedRequest, now: float, what: str) -> None:
        stack = self.source.stack(request)
        text = f"{what}: {title(request, case, now)}"
        self.log.warning("%s. Stack:\n%s", text, stack)
        self._record_event(kind, text, stack)

    def _record_event(self, kind: str, text: str, stack: str = "") -> None:
        """Record an event on the scoreboard, where it outlives this worker."""
        write(self.slot.events, Event(time.time(), kind, text, innermost(stack)))


def title(request: Request, case: TrackedRequest, now: float) -> str:
    """Describe a request: ``GET /report/ running for 10.7 s (id 5f2c, route report/)``."""
    parts = [f"id {request.id}"] if request.id else []
    parts += [f"route {case.route}"] if case.route else []
    name = format_request(request.method, request.path, "")
    details = f" ({', '.join(parts)})" if parts else ""
    return f"{name} running for {now - request.start:.1f} s{details}"


def find_route(path: str) -> tuple[str, float | None]:
    """Return the route of a path and how long its view may run; empty and None if the view sets no limit."""
    from django.urls import resolve

    with suppress(Exception):  # no route matches, or a converter raises
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
        if not _runs(slot, request):  # it has just ended: the thread's next one must not get the exception
            send(ident, None)


SPINS = sys.version_info[:2] == (3, 11)
"""Python 3.11 makes all threads check for an exception until it has arrived, and a traced or profiled thread
checks repeatedly. While a request waits in C, none of them would continue."""


class _SettledError(BaseException):
    """Raised in a thread that has no other work."""


def _send_and_settle(ident: Any, error: Any) -> None:
    """Raise in a thread, then end the other threads' checks: an exception that arrives anywhere does that.

    The interrupted thread checks once more when it takes the GIL. This uses an additional thread, because an
    exception in the main thread could abort a signal handler.
    """
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    settled = ctypes.py_object(_SettledError)
    done = _thread.allocate_lock()

    def send() -> None:
        own = ctypes.c_ulong(_thread.get_ident())
        try:  # between the two calls, no Python function may be called
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
        with suppress(Exception):  # a driver may raise anything after an interruption
            connection.close()


LEAVES_WITHIN = 2.0
"""Seconds that an interrupted request may take to leave its view."""
