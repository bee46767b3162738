"""One line of the server's log, as text or as JSON.

Uses only a small part of the standard library: the supervisor, which loads nothing else, writes its lines
with it.
"""

from __future__ import annotations

import json
import os
import select
import time
from json.encoder import encode_basestring_ascii
from typing import Any

quoted = encode_basestring_ascii
"""Returns a string as JSON: in ASCII, so that no byte from a client can end its field or its line."""

AT_ONCE = getattr(select, "PIPE_BUF", 512)
"""Bytes that a pipe with free space accepts as a whole, without blocking the writer."""


def wants_json(form: str, descriptor: int) -> bool:
    """Return whether lines there are JSON; ``auto`` checks whether a person reads them."""
    return form == "json" or (form == "auto" and not os.isatty(descriptor))


def utc(seconds: float) -> str:
    """Return a time in the form of RFC 3339, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def as_json(seconds: float, level: str, logger: str, message: str, /, **more: Any) -> str:
    """Return a line as one object: the same fields first in every line."""
    fields = {
        "time": f"{utc(seconds)}.{int(seconds % 1 * 1000):03d}Z",
        "level": level.lower(),
        "logger": logger,
        "message": message,
        **more,
    }
    fields["pid"] = fields.pop("pid", os.getpid())
    return json.dumps(fields)


def write_if_read(descriptor: int, data: bytes) -> bool:
    """Write, unless a pipe is full: the supervisor must not block. Return whether everything was written."""
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    try:
        while data and poller.poll(0):
            data = data[os.write(descriptor, data[:AT_ONCE]) :]
    except OSError:
        return False
    return not data


def others_lines(form: str, descriptor: int, level: str, text: str) -> str:
    """Return the output of another program; if lines are JSON, other text becomes one line of the log."""
    if not text.strip() or not wants_json(form, descriptor):
        return text
    lines = text.rstrip().splitlines()
    told = [line for line in lines if line.startswith("{")]
    if rest := "\n".join(line for line in lines if not line.startswith("{")).strip():
        told.append(as_json(time.time(), level, "prodserve", rest))
    return "\n".join(told) + "\n"


def server_line(form: str, descriptor: int, level: str, message: str) -> str:
    """Return a line of the server that goes through no logger."""
    now = time.time()
    if wants_json(form, descriptor):
        return as_json(now, level, "prodserve", message)
    return f"{utc(now)}Z [{os.getpid()}] [{level}] {message}"
