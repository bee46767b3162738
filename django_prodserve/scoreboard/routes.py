"""Where requests spend their time: the routes of the last minutes, in memory that processes share.

A worker counts in the thread that ran the request, under the table's lock: 0.6 us. A row belongs to one
route until that route has rested for the length of the window. Then the next unknown route takes it. Any
number of names may come: those without a row share one. Readers, in any process, take no lock. Pure but for
the shared memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .memory import SharedMemory

ROUTES = 128
"""Rows of a table, which takes 32 KiB with them. More routes than this share one row, and lose no request."""
MINUTES = 6
"""Parts of the window, a minute each; the last one has just begun, so the window is longer than 5 minutes."""
NAME_BYTES = 96
OTHERS = "other routes"
"""The name for the routes without a row of their own."""
NO_ROUTE = "no route"
"""The name for requests that no URL pattern matched, and for those that a middleware answered."""

# A sequence number, odd while names or minutes change, and for each part the number of its minute + 1.
_SEQUENCE, _STAMPS = 0, 1
_NAMES = _STAMPS + MINUTES
_NAME = 1 + NAME_BYTES // 8  # a length, then the text
_COUNTS = _NAMES + ROUTES * _NAME
# For each part, for each row:
_REQUESTS, _SECONDS, _MAXIMUM = range(3)
_COUNT = 3
_PART = ROUTES * _COUNT
CELLS = _COUNTS + MINUTES * _PART


class RouteTime(NamedTuple):
    """What the requests of one route took."""

    route: str
    """The name of the view, as in the access log."""
    requests: int
    seconds: float
    """In Django, without the queue."""
    maximum: float

    @property
    def mean(self) -> float:
        return self.seconds / self.requests


class RouteTable:
    """A view of one table, for its writer, which is one process, and for readers."""

    __slots__ = ("_cells", "_ends", "_free", "_lock", "_minute", "_rows", "at", "bytes", "seconds", "whole")

    def __init__(self, memory: SharedMemory, at: int) -> None:
        self.bytes, self.whole, self.seconds = memory.bytes, memory.whole, memory.seconds
        self.at = at
        self._lock = threading.Lock()
        self._minute, self._ends = -1, 0.0
        self._rows: dict[str, int] = {}
        self._cells: dict[str, int] = {}
        """The first cell of each route in this minute's part."""
        self._free: list[int] = []

    # For the writer.

    def add(self, route: str, now: float, seconds: float) -> None:
        """Count a request that has ended; ``now`` is monotonic."""
        with self._lock:
            if now >= self._ends:
                self._begin(int(now // 60))
            at = self._cells.get(route) or self._cell(route)
            self.whole[at] += 1
            self.seconds[at + _SECONDS] += seconds
            if seconds > self.seconds[at + _MAXIMUM]:
                self.seconds[at + _MAXIMUM] = seconds

    def merge(self, other: RouteTable, now: float) -> None:
        """Add what another table holds of the window, such as one whose writer is gone."""
        minute = int(now // 60)
        if minute > self._minute:
            self._begin(minute)
        for past in range(minute - MINUTES + 1, minute + 1):
            for route, requests, seconds, maximum in other._read(past, past):
                self._open(past)
                at = self._at(past) + _COUNT * self._row(route)
                self.whole[at] += requests
                self.seconds[at + _SECONDS] += seconds
                self.seconds[at + _MAXIMUM] = max(maximum, self.seconds[at + _MAXIMUM])

    def clear(self) -> None:
        """Empty the table. Called by the writer, or by the arbiter when the writer is gone."""
        self.bytes[self.at * 8 : (self.at + CELLS) * 8] = bytes(CELLS * 8)
        self._minute, self._ends = -1, 0.0
        self._rows, self._cells, self._free = {}, {}, []

    def _begin(self, minute: int) -> None:
        """Begin a minute, and take the rows back from the routes that have rested since the window began."""
        self._open(minute)
        self._minute, self._ends = minute, 60.0 * (minute + 1)
        used = {row for row, _, _, _ in self._counts(minute - MINUTES + 1, minute)}
        self._rows = {route: row for route, row in self._rows.items() if row in used}
        self._cells = {route: self._at(minute) + row * _COUNT for route, row in self._rows.items()}
        self._free = [row for row in range(1, ROUTES) if row not in used]

    def _open(self, minute: int) -> None:
        """Empty the part of a minute, unless it is open already."""
        stamp = self.at + _STAMPS + minute % MINUTES
        if self.whole[stamp] == minute + 1:
            return
        first = self._at(minute) * 8
        self.whole[self.at] += 1
        self.bytes[first : first + _PART * 8] = bytes(_PART * 8)
        self.whole[stamp] = minute + 1
        self.whole[self.at] += 1

    def _cell(self, route: str) -> int:
        """Return the first cell of a route in this minute's part."""
        row = self._row(route)
        at = self._at(self._minute) + row * _COUNT
        if row:
            self._cells[route] = at
        return at

    def _row(self, route: str) -> int:
        """Return the row of a route; the first one, which all the others share, if none is left."""
        row = self._rows.get(route)
        if row is not None:
            return row
        if not self._free or route == OTHERS:
            return 0
        row = self._rows[route] = self._free.pop()
        text = route.encode("utf-8", "replace")[:NAME_BYTES]
        name = self.at + _NAMES + row * _NAME
        first = (name + 1) * 8
        self.whole[self.at] += 1
        self.bytes[first : first + len(text)] = text
        self.whole[name] = len(text)
        self.whole[self.at] += 1
        return row

    # For readers.

    def read(self, now: float, minutes: int = MINUTES) -> list[RouteTime]:
        """Return the routes of the last minutes, the present one included."""
        minute = int(now // 60)
        return self._read(minute - minutes + 1, minute)

    def _read(self, first: int, last: int) -> list[RouteTime]:
        """Return the routes from one minute to another; read again if the writer changed names."""
        found: list[RouteTime] = []
        for _ in range(100):
            before = self.whole[self.at]
            rows: dict[int, tuple[int, float, float]] = {}
            for row, requests, seconds, maximum in self._counts(first, last):
                known = rows.get(row, (0, 0.0, 0.0))
                rows[row] = requests + known[0], seconds + known[1], max(maximum, known[2])
            found = [RouteTime(self._name(row), *counts) for row, counts in rows.items()]
            if before == self.whole[self.at] and not before % 2:
                break
        return total(found)

    def _counts(self, first: int, last: int) -> Iterator[tuple[int, int, float, float]]:
        """Yield row, requests, seconds and the maximum of each row in each of these minutes."""
        for stamp in self.whole[self.at + _STAMPS : self.at + _NAMES].tolist():
            if not stamp or not first <= stamp - 1 <= last:
                continue
            begin = self._at(stamp - 1)
            counts = self.whole[begin : begin + _PART : _COUNT].tolist()
            seconds: list[float] = self.seconds[begin : begin + _PART].tolist()  # type: ignore[assignment]  # floats
            for row, count in enumerate(counts):
                if count:
                    yield row, count, seconds[row * _COUNT + _SECONDS], seconds[row * _COUNT + _MAXIMUM]

    def _at(self, minute: int) -> int:
        return self.at + _COUNTS + minute % MINUTES * _PART

    def _name(self, row: int) -> str:
        name = self.at + _NAMES + row * _NAME
        first = (name + 1) * 8
        text = bytes(self.bytes[first : first + min(self.whole[name], NAME_BYTES)])
        return text.decode("utf-8", "ignore") if row else OTHERS


def total(parts: Iterable[RouteTime]) -> list[RouteTime]:
    """Return one entry for each route, the one that took the most time first."""
    found: dict[str, RouteTime] = {}
    for part in parts:
        route, requests, seconds, maximum = found.get(part.route, (part.route, 0, 0.0, 0.0))
        found[route] = RouteTime(
            route, requests + part.requests, seconds + part.seconds, max(maximum, part.maximum)
        )
    return sorted(found.values(), key=lambda route: route.seconds, reverse=True)
