"""Keep threads for the other routes while one route with long waits would use them all.

Lives in a worker: ``update`` on its main thread, ``admits`` in the thread that waits for events, the others
in threads that run Django, under the pool's lock. While all threads are busy, one route may have half of them
or more. The requests of other routes then wait for its requests to end. So the worker limits that route to
half of its threads, and a free thread runs the oldest request of another route first. The limit ends when no
other route has asked for a while. It costs nothing until then.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import unquote

from django.urls import Resolver404, resolve

from .connection import Connection

SHARE = 0.5
"""Share of a worker's threads that one route may have while others wait."""
KEEP_SECONDS = 30.0
"""Seconds without a request of another route after which the limit ends."""
REMEMBERED = 1024
"""Paths whose routes are remembered: to resolve a path takes 20 to 50 us."""
VARIABLE = re.compile(r"[^/]*\d[^/]*")
"""A part of a path that is an identifier: it has a digit."""


@lru_cache(maxsize=REMEMBERED)
def route_of(path: str) -> str:
    """Return the name of a path's route; of a path without one, the path without its identifiers."""
    try:
        return str(resolve(unquote(path)).view_name)
    except Resolver404:
        return VARIABLE.sub("*", path)
    except Exception:  # a converter of the project may raise anything
        return ""


class Lanes:
    """The limit on one route of a worker, if there is one."""

    def __init__(self, ready: deque[Connection], route: Callable[[str], str] = route_of) -> None:
        self.limited = ""
        """The route that is limited; empty for none."""
        self.most = 0
        """How many threads it may have."""
        self._ready, self._route = ready, route
        self._running: dict[int, str] = {}  # routes of running requests, by row, while one is limited
        self._asked = 0.0  # when another route last asked

    def update(self, threads: int, running: Mapping[int, str], now: float) -> bool:
        """Limit a route, or end the limit; ``running``: the paths of the requests that run, by row.

        Return whether a route is limited that was not. The pool's lock must be held.
        """
        if self.limited:
            self.most = max(1, int(threads * SHARE))
            if now - self._asked >= KEEP_SECONDS:
                self.limited = ""
                self._running.clear()
            return False
        routes = {row: self._route(path) for row, path in running.items()}
        route, count = max(Counter(routes.values()).items(), key=lambda item: item[1], default=("", 0))
        if len(routes) < threads or count < SHARE * threads:
            return False
        if all(self._of(waiting) == route for waiting in [*self._ready]):
            return False
        self._running, self.limited = routes, route
        self.most, self._asked = max(1, int(threads * SHARE)), now
        return True

    def admits(self, connection: Connection, now: float, most: int) -> bool:
        """Return whether a request has another route, so that the queue of the limited one is not ahead.

        If ``most`` of other routes wait, they do not wait for the limited one: admission decides.
        """
        if self._of(connection) == self.limited:
            return False
        self._asked = now
        return sum(self._of(waiting) != self.limited for waiting in [*self._ready]) < most

    def take(self, row: int) -> Connection | None:
        """Return the request that this thread is to run next; None if none may run."""
        is_full = sum(route == self.limited for route in self._running.values()) >= self.most
        waiting = [*self._ready]
        for connection in self._first_others(waiting, is_full=is_full):
            try:
                self._ready.remove(connection)
            except ValueError:  # another thread has removed it
                continue
            self._running[row] = self._of(connection)
            return connection
        return None

    def ended(self, row: int) -> None:
        """Forget the request of this thread."""
        self._running.pop(row, None)

    def _first_others(self, waiting: list[Connection], *, is_full: bool) -> Iterable[Connection]:
        """Yield the oldest requests of other routes first, then those of the limited one, if one may run."""
        yield from (each for each in waiting if self._of(each) != self.limited)
        if not is_full:
            yield from waiting

    def _of(self, connection: Connection) -> str:
        request = connection.request
        return "" if request is None else self._route(request.path)
