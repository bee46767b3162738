"""The access log: a cheap line for each request, written many at a time.

Lives in a worker: ``note`` in the thread that ran the request, ``flush`` there or in the main thread, once a
second. A format of the user's own, a logger class of theirs or StatsD get every request as Gunicorn does it.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import threading
import time
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from gunicorn.config import AccessLogFormat

from ..identity import ID, QUEUE
from ..routes import ROUTE, UNLOGGED
from ..runtime.logs import Logger

if TYPE_CHECKING:
    from .answer import Answer

AT_A_TIME = 128
UNSAFE = re.compile(r'[\x00-\x1f\x7f"\\]')


class Access:
    """The access log of one worker."""

    def __init__(self, log: Any, config: Any) -> None:
        self._log = log
        self.is_on = bool(log.access_log_enabled)
        plain = type(log) is Logger and config.access_log_format == AccessLogFormat.default
        self.is_gunicorns = (self.is_on and not plain) or config.statsd_host is not None
        """Whether Gunicorn's logger writes each line."""
        self._lines: deque[str] = deque()
        self._lock = threading.RLock()  # a signal may come while the main thread writes
        self._second, self._time = 0, ""

    def note(self, answer: Answer, environ: dict[str, Any], seconds: float) -> None:
        """Note one request."""
        if UNLOGGED in environ:
            return
        if self.is_gunicorns:
            self._log.access(answer, answer.request, environ, timedelta(seconds=seconds))
        elif self.is_on and environ:
            self.add(environ, answer.status_code, answer.sent, seconds)

    def add(self, environ: dict[str, Any], status: int, sent: int, seconds: float) -> None:
        """Note one request as a line in Gunicorn's default format, with more behind it."""
        get = environ.get
        authorization = get("HTTP_AUTHORIZATION")
        user = _user(authorization) if authorization else "-"
        line = (
            f'{environ["REMOTE_ADDR"] or "-"} - {user} {self._now()} "{environ["REQUEST_METHOD"]} '
            f'{_safe(environ["RAW_URI"])} {environ["SERVER_PROTOCOL"]}" {status} {sent} '
            f'"{_safe(get("HTTP_REFERER", "-"))}" "{_safe(get("HTTP_USER_AGENT", "-"))}" '
            f"{get(ID) or '-'} {get(ROUTE) or '-'} {seconds * 1000:.1f}ms {get(QUEUE, 0.0) * 1000:.1f}ms"
        )
        self._lines.append(line)
        if len(self._lines) >= AT_A_TIME:
            self.flush()

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._time, self._second = self._log.now(), second
        return self._time

    def flush(self) -> None:
        """Write what was noted."""
        if not self._lines:
            return
        with self._lock:
            lines = []
            with suppress(IndexError):
                while True:
                    lines.append(self._lines.popleft())
            logger = self._log.access_log
            if lines and not logger.propagate and all(map(_joins, logger.handlers)):
                lines = ["\n".join(lines)]  # one write, where that looks the same
            for line in lines:
                logger.info("%s", line)


def _joins(handler: logging.Handler) -> bool:
    """Say whether a handler writes several lines as if they had come one by one."""
    format_of = getattr(handler.formatter, "_fmt", None)
    return isinstance(handler, logging.StreamHandler) and format_of == "%(message)s"


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
