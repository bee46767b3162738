"""Collect complete requests, with headers and body, before a thread runs them.

Lives in a worker, in the thread that owns the connection, most often the one that waits for events.
"""

from __future__ import annotations

from contextlib import suppress

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException

from ..http import limits
from ..http.body import ChunkedReceiver, FixedLengthReceiver
from ..http.exceptions import BodyTooLargeError, NeedMoreError
from ..http.parser import ParserSettings, RequestParser
from ..http.proxy_protocol import IncompleteError, Preface
from ..middleware.proxy_headers import NAMELESS
from .connection import BODY, HEAD, IDLE, Connection

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
STRANGER = ("", 0)
"""An address that is in none of Gunicorn's lists of trusted peers."""


OPTIONS = {
    "fields": "limit_request_fields",
    "size": "limit_request_field_size",
    "line": "limit_request_line",
}


def naming(error: LimitRequestLine | LimitRequestHeaders, settings: ParserSettings) -> Exception:
    """Return this error with the option that raises the limit; the two parsers word it differently."""
    said = str(error).lower()
    if isinstance(error, LimitRequestLine):
        names = ["line"]
    elif "number of" in said or said.endswith("fields"):
        names = ["fields"]
    elif "section" in said or "buffer" in said:  # the limit for all fields together
        names = ["fields", "size"]
    else:
        names = ["size"]
    now = [(OPTIONS[name], getattr(settings, OPTIONS[name])) for name in names]
    flags = " or ".join(f"--{name.replace('_', '-')} (now {value})" for name, value in now)
    told: Exception = type(error)(f"{error}. To take such requests, raise {flags}")
    return told


class RequestReceiver:
    """Collects bytes as they arrive, and reports when a request is complete."""

    def __init__(self, settings: ParserSettings, *, max_body: int) -> None:
        self._settings, self._reader, self._max_body = settings, RequestParser(settings), max_body
        self._preface = Preface(settings) if settings.proxy_protocol != "off" else None

    def feed(self, connection: Connection, data: bytes, now: float) -> bool:
        """Return whether these bytes complete a request. Raises the parser's errors, and ours."""
        try:
            return self._feed(connection, data, now)
        except (LimitRequestLine, LimitRequestHeaders) as error:
            raise naming(error, self._settings) from None

    def read_head(self, connection: Connection, data: bytes) -> None:
        """Read request line and headers of a request that is refused, for the log; they may be incomplete."""
        with suppress(NeedMoreError, ParseException):
            connection.request = self._reader.read(data, 0, connection.peer, 1)

    def _feed(self, connection: Connection, data: bytes, now: float) -> bool:
        if connection.arriving is None:
            behind = self._head(connection, data, now)
            if connection.arriving is None:
                return behind is not None
            data = behind or b""
        if not data:
            return False
        rest = connection.arriving.feed(data)
        if self._max_body and connection.arriving.size > self._max_body:
            raise BodyTooLargeError
        if rest is None:
            return False
        connection.buffer = rest
        connection.body = connection.arriving.content()
        connection.arriving = None
        if self._max_body and connection.body[1] > self._max_body:
            raise BodyTooLargeError
        return True

    def _head(self, connection: Connection, data: bytes, now: float) -> bytes | None:
        """Add bytes of the request line and headers; return the bytes behind them, or None if incomplete."""
        seen = len(connection.buffer)
        if seen:
            data = connection.buffer + data
        try:
            if self._preface is not None and connection.introduced is None:
                said, data = self._preface.take(data, connection.peer)
                connection.introduced, seen = said.environ, 0
                connection.peer = said.client or connection.peer
            peer = connection.peer
            if connection.introduced and connection.introduced["PROXY_PROTOCOL"] in NAMELESS:
                peer = STRANGER
            request = self._reader.read(data, seen, peer, connection.number + 1)
        except (NeedMoreError, IncompleteError):
            connection.buffer = data
            if data and connection.state == IDLE:
                connection.state, connection.deadline = HEAD, now + limits.HEAD_SECONDS
            return None
        connection.number += 1
        connection.request = request
        needs_no_body = request.length == 0
        if connection.environs.otherwise is not None and not needs_no_body:
            needs_no_body = True
            request.force_close()  # the next request would begin behind the body
        if needs_no_body:
            connection.buffer = request.rest
            return request.rest
        connection.buffer = b""
        if self._max_body and (request.length or 0) > self._max_body:
            raise BodyTooLargeError
        connection.arriving = (
            ChunkedReceiver(request) if request.length is None else FixedLengthReceiver(request.length)
        )
        connection.state, connection.deadline, connection.bytes_since_check = (
            BODY,
            now + limits.STALL_SECONDS,
            0,
        )
        if request._expected_100_continue and not request.rest:
            connection.send_interim(CONTINUE)
        return request.rest
