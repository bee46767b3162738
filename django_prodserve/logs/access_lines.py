"""What the access log says of one request, as text or as JSON, and of which ones it says anything.

Lives in every worker: ``entry`` in the thread that ran the request, as little as can be; the line itself is
made with many others, which costs a third of what it costs among other work.
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
from typing import Any

from ..utils.log_lines import quoted, utc
from .environ_keys import ID, QUEUE, ROUTE
from .redaction import Redaction

Entry = tuple[Any, ...]
"""What a line is made of."""

MOST_KNOWN, LONGEST_KNOWN = 1024, 300
UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
MILLISECONDS = [f".{number:03d}Z" for number in range(1000)]


def entry(environ: dict[str, Any], status: int, sent: int, seconds: float) -> Entry:
    """Take what the line of this request needs; without a method it was none."""
    get = environ.get
    return (
        *(time.time(), status, sent, seconds, get(QUEUE, 0.0), get(ID), get(ROUTE), get("REMOTE_ADDR")),
        *(get("REQUEST_METHOD"), get("RAW_URI", ""), get("SERVER_PROTOCOL")),
        *(get("HTTP_REFERER"), get("HTTP_USER_AGENT"), get("HTTP_AUTHORIZATION")),
    )


class Choice:
    """Which requests are logged: those that failed, those that were slow, and a share of the others."""

    def __init__(self, share: float, slow: float) -> None:
        self.slow = slow or float("inf")
        self.share = share if share < 1 or not slow else 0.0
        self.is_all = self.share >= 1

    def keeps(self, status: int, seconds: float) -> bool:
        """Say whether this request is logged."""
        return self.is_all or status >= 500 or seconds >= self.slow or random.random() < self.share


class Clock:
    """The time as lines tell it, made once a second."""

    def __init__(self, form: Callable[[int], str]) -> None:
        self._form, self._second, self._text = form, 0, ""

    def __call__(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._text, self._second = self._form(second), second
        return self._text


def _common(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


class Known(dict[Any, str]):
    """Texts that come again and again, as lines have them; None is a text too."""

    def __init__(self, write: Callable[[str], str], absent: str) -> None:
        super().__init__()
        self._write, self._absent = write, absent

    def __missing__(self, text: str | None) -> str:
        found = self._write(text) if text else self._absent
        if text is None or len(text) < LONGEST_KNOWN:
            if len(self) >= MOST_KNOWN:
                self.clear()
            self[text] = found
        return found


class TextLines:
    """Lines in Gunicorn's default format, with more behind it."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction, self._clock = redaction, Clock(_common)
        self._known = Known(_safe, "-")

    def __call__(self, entry: Entry) -> str:
        """Return the line of one request."""
        now, status, sent, seconds, queued, name, route, client, *rest = entry
        method, target, version, referer, agent, authorization = rest
        user, known = _user(authorization) if authorization else "-", self._known
        if self._redaction.is_on:
            target, referer = self._redaction.url(target), referer and self._redaction.url(referer)
        request = f"{method} {_safe(target)} {version}" if method else "-"
        return (
            f'{client or "-"} - {user} [{self._clock(now)}] "{request}" {status} {sent} '
            f'"{known[referer]}" "{known[agent]}" '
            f"{name or '-'} {known[route]} {seconds * 1000:.1f}ms {queued * 1000:.1f}ms"
        )


class JSONLines:
    """Lines that are one object each, in ASCII: no byte of a client's can end a field or a line."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._clock = Clock(utc)
        self._known = Known(as_text, "null")

    def __call__(self, entry: Entry) -> str:
        """Return the line of one request; absent is null."""
        now, status, sent, seconds, queued, name, route, client, method, target, _, referer, agent, _ = entry
        known = self._known
        path, _, query = target.partition("?")
        if self._redaction.is_on:
            query, referer = self._redaction.query(query), referer and self._redaction.url(referer)
        return (
            f'{{"time": "{self._clock(now)}{MILLISECONDS[int(now * 1000) % 1000]}", "level": "info", '
            f'"logger": "gunicorn.access", "method": {known[method]}, '
            f'"path": {quoted(path)}, "query": {as_text(query) if query else "null"}, '
            f'"route": {quoted(route) if route else "null"}, "status": {status}, "bytes": {sent}, '
            f'"duration_ms": {seconds * 1000:.1f}, "queue_ms": {queued * 1000:.1f}, '
            f'"client": {known[client]}, "request_id": {quoted(name) if name else "null"}, '
            f'"user_agent": {known[agent]}, "referer": {known[referer]}, "pid": {os.getpid()}}}'
        )


def as_text(text: str) -> str:
    """Write a string of WSGI's, whose characters are bytes, as JSON."""
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
