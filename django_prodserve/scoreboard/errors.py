"""The last requests that were answered with an error of the server's (5xx), or broke off: what and where.

A worker writes a small ring in the thread that ran the request, under its slot's lock; the arbiter takes it
over when the worker is gone (board.py). A request that succeeds costs nothing here. Pure but for the shared
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .ring import Entry, Ring

ENTRIES, WORKER_ENTRIES = 32, 8
SIZE = 512
"""Bytes of an error: every part below has its share."""
SHOWN = 20


class RequestError(NamedTuple):
    """A request that failed; texts are empty where nothing is known."""

    time: float
    """Seconds since 1970; when it ended."""
    status: int
    method: str
    path: str
    """As the client sent it, without the query."""
    route: str
    """The name of the view, as in the access log."""
    exception: str
    """The class of what was raised."""
    id: str

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def write(ring: Ring, error: RequestError) -> None:
    """Leave an error for readers; texts that are too long are cut."""
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
    """Return the last few errors of all these rings, the oldest first; one that just moves is here once."""
    found = {_error(entry): None for ring in rings for entry in ring.read()}
    return sorted(found, key=lambda error: error.time)[-last:]


def move(source: Ring, to: Ring) -> None:
    """Take over the errors of a writer that is gone."""
    for entry in source.read():
        to.add(*entry)


def _error(entry: Entry) -> RequestError:
    status, method, route, exception, name, path = entry.text.decode("utf-8", "ignore").split("\0", 5)
    return RequestError(entry.time, int(status), method, path, route, exception, name)
