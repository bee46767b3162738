"""Format the access log's line of a request, as text or JSON, and choose the requests to log.

Lives in every worker. ``entry`` runs in the thread that ran the request and does as little as possible. The
lines are formatted in batches, which costs a third of formatting each among other work.
"""

from __future__ import annotations

import base64
import binascii
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ..utils.log_lines import quoted, utc
from .environ_keys import CLOSE_CODE, ID, QUEUE, ROUTE
from .redaction import Redaction

MAX_CACHED, MAX_CACHED_LENGTH = 1024, 300
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]


class AccessRecord(NamedTuple):
    """The data for one request's line. Texts are WSGI's: each character is a byte that the client sent."""

    time: float
    """When the request ended; seconds since 1970."""
    status: int
    sent: int
    """Bytes of the body."""
    seconds: float
    queued: float
    """Seconds that the request waited for a thread."""
    request_id: str | None
    route: str | None
    client: str | None
    method: str | None
    """None if no request could be parsed."""
    target: str
    protocol: str | None
    referer: str | None
    agent: str | None
    authorization: str | None
    close_code: int | None = None
    """Of a websocket."""


def entry(environ: dict[str, Any], status: int, sent: int, seconds: float) -> AccessRecord:
    """Collect the data for this request's line; a missing method means that no request was parsed."""
    get = environ.get
    return AccessRecord(
        time.time(),
        status,
        sent,
        seconds,
        get(QUEUE, 0.0),
        get(ID),
        get(ROUTE),
        get("REMOTE_ADDR"),
        get("REQUEST_METHOD"),
        get("RAW_URI", ""),
        get("SERVER_PROTOCOL"),
        get("HTTP_REFERER"),
        get("HTTP_USER_AGENT"),
        get("HTTP_AUTHORIZATION"),
        get(CLOSE_CODE),
    )


class AccessFilter:
    """Chooses the requests to log: failed ones, slow ones, and a share of the others."""

    def __init__(self, share: float, slow: float) -> None:
        self.slow = slow or float("inf")
        self.share = share if share < 1 or not slow else 0.0
        self.is_all = self.share >= 1

    def keeps(self, status: int, seconds: float) -> bool:
        """Return whether this request is logged."""
        return self.is_all or status >= 500 or seconds >= self.slow or random.random() < self.share


class Clock:
    """The time as log lines show it, formatted once a second."""

    def __init__(self, form: Callable[[int], str]) -> None:
        self._form, self._second, self._text = form, 0, ""

    def __call__(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._text, self._second = self._form(second), second
        return self._text


def _common(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


class EscapedText(dict[Any, str]):
    """Cache of texts that recur in lines, already escaped; None is a text, too."""

    def __init__(self, write: Callable[[str], str], absent: str) -> None:
        super().__init__()
        self._write, self._absent = write, absent

    def __missing__(self, text: str | None) -> str:
        found = self._write(text) if text else self._absent
        if text is None or len(text) < MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[text] = found
        return found


class TextLines:
    """Lines in Gunicorn's default format, with additional fields at the end."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction, self._clock = redaction, Clock(_common)
        self._known = EscapedText(_safe, "-")

    def __call__(self, record: AccessRecord) -> str:
        """Return the line of one request."""
        known, target, referer = self._known, record.target, record.referer
        user = _user(record.authorization) if record.authorization else "-"
        if self._redaction.is_on:
            target, referer = self._redaction.url(target), referer and self._redaction.url(referer)
        request = f"{record.method} {_safe(target)} {record.protocol}" if record.method else "-"
        return (
            f'{record.client or "-"} - {user} [{self._clock(record.time)}] "{request}" '
            f'{record.status} {record.sent} "{known[referer]}" "{known[record.agent]}" '
            f"{record.request_id or '-'} {known[record.route]} "
            f"{record.seconds * 1000:.1f}ms {record.queued * 1000:.1f}ms{_closed(record)}"
        )


class ShortLines:
    """Method, target, status and time: for a developer who has the page open at the same time."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    def __call__(self, record: AccessRecord) -> str:
        """Return the line of one request."""
        target = self._redaction.url(record.target) if self._redaction.is_on else record.target
        request = f"{record.method} {_safe(target)}" if record.method else "-"
        return f"{request} {record.status} {record.seconds * 1000:.1f} ms{_closed(record)}"


class JSONLines:
    """One JSON object per line, in ASCII: no byte of a client can end a field or a line."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._clock = Clock(utc)
        self._known = EscapedText(as_text, "null")

    def __call__(self, record: AccessRecord) -> str:
        """Return the line of one request; missing values are null."""
        known, now, referer = self._known, record.time, record.referer
        route, name = record.route, record.request_id
        path, _, query = record.target.partition("?")
        closed = "" if record.close_code is None else f'"close_code": {record.close_code}, '
        if self._redaction.is_on:
            query, referer = self._redaction.query(query), referer and self._redaction.url(referer)
        return (
            f'{{"time": "{self._clock(now)}{MILLISECONDS[int(now * 1000) % 1000]}", "level": "info", '
            f'"logger": "gunicorn.access", "method": {known[record.method]}, '
            f'"path": {quoted(path)}, "query": {as_text(query) if query else "null"}, '
            f'"route": {quoted(route) if route else "null"}, '
            f'"status": {record.status}, {closed}"bytes": {record.sent}, '
            f'"duration_ms": {record.seconds * 1000:.1f}, "queue_ms": {record.queued * 1000:.1f}, '
            f'"client": {known[record.client]}, "request_id": {quoted(name) if name else "null"}, '
            f'"user_agent": {known[record.agent]}, "referer": {known[referer]}, "pid": {os.getpid()}}}'
        )


def _closed(record: AccessRecord) -> str:
    """Return the end of a line: the close code of a websocket."""
    return "" if record.close_code is None else f" close={record.close_code}"


def as_text(text: str) -> str:
    """Encode a string of WSGI, whose characters are bytes, as JSON."""
    if not text.isascii():
        text = text.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")
    return quoted(text)


def _safe(text: str) -> str:
    """Return text that cannot end its field or its line."""
    return UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text) if UNSAFE.search(text) else text


def _user(authorization: str) -> str:
    """Return the name in a Basic Authorization header."""
    kind, _, credentials = authorization.partition(" ")
    if kind.lower() == "basic":
        with suppress(binascii.Error, ValueError):
            return _safe(base64.b64decode(credentials.strip()).split(b":", 1)[0].decode()) or "-"
    return "-"
