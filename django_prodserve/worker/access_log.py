"""The access log: a cheap line for each request, written in batches.

Lives in a worker: ``note`` in the thread that ran the request, ``flush`` in that thread or, once a second, in
the main thread. With a custom format, a custom logger class or StatsD, Gunicorn's logger writes each request.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ..http.response import Response, body_size
from ..logs.access_lines import AccessRecord, entry
from ..logs.environ_keys import UNLOGGED
from ..logs.gunicorn_logger import Logger
from ..logs.nonblocking import ConsoleHandler, FileHandler

if TYPE_CHECKING:
    from ..http.parser import RequestHead

LINES_AT_A_TIME = 128


class AccessLog:
    """The access log of one worker."""

    def __init__(self, log: Any, config: Any) -> None:
        self._log = log
        self.is_on = bool(log.access_log_enabled)
        plain = type(log) is Logger and log.is_plain
        self.is_gunicorns = (self.is_on and not plain) or config.statsd_host is not None
        """Whether Gunicorn's logger writes each line."""
        self._entries: deque[AccessRecord] = deque()
        self._lock = threading.RLock()  # a signal may arrive while the main thread writes
        if plain:
            self.configure()

    def configure(self) -> None:
        """Find out which logger writes the lines, now that LOGGING has been applied in this process."""
        if type(self._log) is Logger:
            self._line, self._choice = self._log.access_lines(), self._log.choice

    def note(self, answer: Response, environ: dict[str, Any], seconds: float) -> None:
        """Note one request."""
        if self.is_gunicorns:
            self._log.access(answer, answer.request, environ, timedelta(seconds=seconds))
        elif self.is_on and environ and UNLOGGED not in environ:
            self.add(environ, answer.status_code, answer.sent, seconds)

    def note_refused(
        self, head: RequestHead | None, environ: dict[str, Any], reply: bytes, seconds: float
    ) -> None:
        """Note a request that the server itself answered; ``head`` is None if none could be parsed."""
        if not self.is_on:
            return
        status = reply[9 : reply.index(b"\r\n")].decode()
        self._note_own(head, environ, status, body_size(reply), seconds)

    def note_websocket(
        self, head: RequestHead, environ: dict[str, Any], status: str, sent: int, seconds: float
    ) -> None:
        """Note a websocket that has ended, or whose handshake was refused."""
        if self.is_on and environ:
            self._note_own(head, environ, status, sent, seconds)

    def _note_own(
        self, head: RequestHead | None, environ: dict[str, Any], status: str, size: int, seconds: float
    ) -> None:
        if not self.is_gunicorns:
            self.add(environ, int(status[:3]), size, seconds)
        elif head is not None and isinstance(self._log, Logger):
            answer = Response(head, must_close=True)
            answer.status, answer.status_code, answer.sent = status, int(status[:3]), size
            self._log.access(answer, head, environ, timedelta(seconds=seconds))

    def add(self, environ: dict[str, Any], status: int, sent: int, seconds: float) -> None:
        """Note one request as a line in our format, if it is to be logged."""
        choice = self._choice
        if choice.is_all or choice.keeps(status, seconds):
            self._entries.append(entry(environ, status, sent, seconds))
            if len(self._entries) >= LINES_AT_A_TIME:
                self.flush()

    def flush(self) -> None:
        """Write the requests noted so far."""
        if not self._entries:
            return
        with self._lock:
            lines, line = [], self._line
            with suppress(IndexError):
                while True:
                    lines.append(line(self._entries.popleft()))
            if not lines:
                return
            logger = self._log.access_log
            if not logger.propagate and not logger.filters and all(map(_joins, logger.handlers)):
                data = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
                for handler in logger.handlers:
                    handler.put(data)
            else:
                for one in lines:
                    logger.info("%s", one)


def _joins(handler: logging.Handler) -> bool:
    """Return whether a handler writes several lines in one call as it would write them one by one."""
    format_of = getattr(handler.formatter, "_fmt", None)
    ours = isinstance(handler, (ConsoleHandler, FileHandler))
    return ours and format_of == "%(message)s" and not handler.filters and handler.level <= logging.INFO
