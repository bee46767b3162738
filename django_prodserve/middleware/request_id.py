"""Identify each request by an id for the client, the log and the project, and measure how long it waited.

Lives in every worker, on the thread that runs the request, as the outermost middleware: it reads the peer's
headers before proxy_headers.py removes them. O(1), no lock. Our worker does without the middleware, and
writes the headers with all others (worker/request_handler.py).
"""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..logs import request_id
from ..logs.environ_keys import ID, QUEUE
from .proxy_protocol import Introductions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


VALID_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+/@-]{0,63}", re.ASCII)
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
NUMBER = re.compile(r"(?:t=)?(\d{1,20}(?:\.\d{1,9})?)", re.ASCII)
MAX_WAIT_SECONDS = 3600.0
"""Maximum wait in seconds; if more seem to have passed, the proxy's clock or unit differs from ours."""


class _Made:
    """Ids of this process: a random prefix, and a number."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Choose a new prefix: a fork must not repeat its parent's."""
        self.prefix, self.numbers = os.urandom(6).hex(), itertools.count(1)

    def next(self) -> str:
        return f"{self.prefix}{next(self.numbers):08x}"


ID_GENERATOR = _Made()
os.register_at_fork(after_in_child=ID_GENERATOR.renew)


class RequestIDs:
    """Gives a request its id, and its waiting time if a trusted proxy reports when the request arrived."""

    def __init__(self, believes: Callable[[WSGIEnvironment], bool]) -> None:
        self.believes = believes

    def __call__(self, environ: WSGIEnvironment) -> str:
        """Store both in the environ, which has the peer's headers; return the id."""
        found = environ.get(ID)
        if found is None:
            found = self._told(environ) or ID_GENERATOR.next()
            environ[ID] = found
        return str(found)

    def _told(self, environ: WSGIEnvironment) -> str:
        """Return the id from a trusted peer; empty if there is none."""
        get = environ.get
        named, trace, started = get("HTTP_X_REQUEST_ID"), get("HTTP_TRACEPARENT"), get("HTTP_X_REQUEST_START")
        if not (named or trace or started) or not self.believes(environ):
            return ""
        if started and (waited := seconds_since(started, time.time())) is not None:
            environ[QUEUE] = waited
        if named and VALID_ID.fullmatch(named):
            return str(named)
        match = TRACEPARENT.fullmatch(trace.strip()) if trace else None
        return match[1] if match else ""


def seconds_since(text: str, now: float) -> float | None:
    """Parse X-Request-Start: ``t=`` or not; seconds, milli-, micro- or nanoseconds. None if invalid."""
    match = NUMBER.fullmatch(text.rpartition(",")[2].strip())
    if not match:
        return None
    then = float(match[1])
    while then > 1e11:  # no time in seconds is that late, and none in milliseconds that early
        then /= 1000
    waited = now - then
    return max(0.0, waited) if abs(waited) < MAX_WAIT_SECONDS else None


class RequestIDMiddleware:
    """Give application, log and client the request's id; with ``timing``, report where the time went."""

    def __init__(self, application: WSGIApplication, identity: RequestIDs, *, timing: bool) -> None:
        self.application, self.identity, self.timing = application, identity, timing
        self.introductions = Introductions()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.introductions.hold(environ)
        name = self.identity(environ)
        request_id.set(name)
        started = time.monotonic() if self.timing else math.nan

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            more = [] if _names_one(headers) else [("X-Request-ID", name)]
            if self.timing:
                more.append(("Server-Timing", timing(environ, time.monotonic() - started)))
            return start_response(status, [*headers, *more], exc_info)

        return self.application(environ, start)


def _names_one(headers: list[tuple[str, str]]) -> bool:
    """Return whether the project adds its own id to the response."""
    return any(len(name) == 12 and name.lower() == "x-request-id" for name, _ in headers)


def timing(environ: WSGIEnvironment, seconds: float) -> str:
    """Return the entries for the browser's network panel, in milliseconds."""
    waited = environ.get(QUEUE)
    queue = "" if waited is None else f"queue;dur={waited * 1000:.1f}, "
    return f"{queue}app;dur={seconds * 1000:.1f}"
