"""The last requests that ended with a server error (5xx) or were aborted: what failed and where.

A worker writes a small ring in the thread that ran the request, under its slot's lock. The arbiter copies it
when the worker is gone (board.py). A request that succeeds costs nothing here. Pure but for the shared
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .ring import Entry, Ring

ENTRIES, WORKER_ENTRIES = 32, 8
SIZE = 512
"""Bytes of an error: every field below has its share."""
SHOWN = 20


class RequestError(NamedTuple):
    """A request that failed; a text is empty if unknown."""

    time: float
    """Seconds since 1970; when the request ended."""
    status: int
    method: str
    path: str
    """As the client sent it, without the query."""
    route: str
    """The name of the view, as in the access log."""
    exception: str
    """The class of the exception."""
    id: str

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def write(ring: Ring, error: RequestError) -> None:
    """Record an error for readers; texts that are too long are truncated."""
    parts = (
        str(error.status),
        error.method[:16],
        error.route[:100],
        error.exception[:80],
        error.id[:64],
        error.path[:200],
    )
    text = "\0".join(part.replace("\0", " ") for part in parts)
    ring.add(error.time, text.encode("utf-8", "replace"))


def read(rings: Iterable[Ring], last: int = SHOWN) -> list[RequestError]:
    """Return the last few errors of all these rings, the oldest first; an error in two rings appears once."""
    found = {_error(entry): None for ring in rings for entry in ring.read()}
    return sorted(found, key=lambda error: error.time)[-last:]


def _error(entry: Entry) -> RequestError:
    status, method, route, exception, name, path = entry.text.decode("utf-8", "ignore").split("\0", 5)
    return RequestError(entry.time, int(status), method, path, route, exception, name)
