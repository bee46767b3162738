"""The lines of a process alongside the workers, in the server's log, with its name.

Lives in the minder of that process, on its only thread. Bytes become lines: a line may be too long, not be
text, or lack its end.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

from ..utils.log_lines import as_json, utc

LONGEST = 32_768
"""Bytes of a line; the rest of a longer one is dropped, and counted."""
CONTROL = re.compile("[\0-\x08\x0b-\x1a\x1c-\x1f\x7f]")
"""Characters that would change what a terminal shows of other lines; a tab and colours are none."""


class LineSplitter:
    """Makes lines of the bytes of one pipe."""

    def __init__(self) -> None:
        self._begun = b""
        self._dropped = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the lines that these bytes complete."""
        *lines, last = data.split(b"\n")
        for line in lines:
            yield self._complete(line)
        self._keep(last)

    def end(self) -> Iterator[str]:
        """Yield the last line if it has no end."""
        if self._begun:
            yield self._complete(b"")

    def _keep(self, part: bytes) -> None:
        room = max(0, LONGEST - len(self._begun))
        self._begun += part[:room]
        self._dropped += len(part[room:])

    def _complete(self, part: bytes) -> str:
        self._keep(part)
        line, dropped = self._begun, self._dropped
        self._begun, self._dropped = b"", 0
        return text(line) + (f" ... ({dropped} bytes more)" if dropped else "")


def text(line: bytes) -> str:
    """Return a line as text: bytes that are not UTF-8, and control characters, as escapes."""
    read = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", read)


class SideLog:
    """Writes lines to wherever the server's own lines go."""

    def __init__(self, log: Any, name: str) -> None:
        self.log, self.name = log, name

    def write(self, lines: Iterator[str], pid: int) -> None:
        """Write the lines of the process with this pid; empty ones are left out."""
        for line in lines:
            if line.strip():
                self._write(line, pid)

    def _write(self, line: str, pid: int) -> None:
        now, found = time.time(), handlers(self.log)
        if not found:  # a logger class of the project, not a subclass of Gunicorn's
            self.log.info("%s: %s", self.name, line)
        for handler in found:
            put = getattr(handler, "put", None)
            if put is None:  # syslog, or one of the project
                record = logging.makeLogRecord(
                    {
                        "name": "gunicorn.error",
                        "msg": "%s: %s",
                        "args": (self.name, line),
                        "levelno": logging.INFO,
                        "levelname": "INFO",
                        "process": pid,
                    }
                )
                if record.levelno >= handler.level:
                    handler.handle(record)
            else:
                form = json_line if getattr(handler, "is_json", False) else text_line
                put(f"{form(now, self.name, line, pid)}\n".encode("utf-8", "backslashreplace"))


def handlers(log: Any) -> list[logging.Handler]:
    """Return every handler that shows the server's own lines."""
    found: list[logging.Handler] = []
    logger = getattr(log, "error_log", None)
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


def text_line(now: float, name: str, line: str, pid: int) -> str:
    return f"{utc(now)}Z [{pid}] [{name}] {line}"


def json_line(now: float, name: str, line: str, pid: int) -> str:
    """Return the line as one object; one that is an object already gets the name of its process."""
    if line.startswith("{"):
        try:
            known = json.loads(line)
        except ValueError:
            known = None
        if isinstance(known, dict):
            return json.dumps({**known, "process": name})
    return as_json(now, "info", "prodserve", line, process=name, pid=pid)
