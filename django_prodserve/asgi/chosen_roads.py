"""The roads that a project has chosen for single views: by a decorator, or in ``PRODSERVE["ROADS"]``.

Read once, after the URLconf is loaded. ``of`` is asked for each route then, and later for each path that may
lead to such a view.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from django.urls import ResolverMatch

from ..errors import Problem, UsageError
from ..roads import MARK

Road = Literal["sync", "async"]

ROADS: dict[str, Road] = {"threads": "sync", "loop": "async"}
"""The words of the setting and of the decorators."""
VARIABLE = re.compile(r"[<(\[\\.*+?^$|{]")
"""What begins the part of a route that is not the same in each path."""


class ChosenRoads:
    """The choices of one project."""

    def __init__(self, entries: Iterable[str] = (), source: str = "") -> None:
        """``entries`` are of the form ``shop:report=threads``."""
        pairs = [(name, ROADS[word]) for name, _, word in (entry.rpartition("=") for entry in entries)]
        self._source = source
        self._names = {name: road for name, road in pairs if not name.startswith("/")}
        self.paths = sorted((pair for pair in pairs if pair[0].startswith("/")), key=_longest_first)
        """The beginnings of paths, the longest first."""

    def of(self, view: Any, path: str, names: Callable[[], tuple[str, ...]]) -> Road | None:
        """Return the road that is chosen for a view: for one of its names, its path, or by its decorator."""
        if self._names:
            for name in names():
                if name in self._names:
                    return self._names[name]
        if self.paths and (road := self.of_path(path)) is not None:
            return road
        word = getattr(view, MARK, None) or getattr(getattr(view, "view_class", None), MARK, None)
        return None if word is None else ROADS[word]

    def of_path(self, path: str) -> Road | None:
        """Return the road that is chosen for the paths with this beginning."""
        return next((road for beginning, road in self.paths if path.startswith(beginning)), None)

    def check(self, resolver: Any) -> None:
        """Raise UsageError for entries that name no route."""
        if not self._names and not self.paths:
            return
        routes = [*routes_of(resolver)]
        names = {name for route in routes for name in route.names}
        problems = [
            Problem(
                f"{self._source} has {name!r}, but no route or view has this name.",
                _guess(name, names) or "Write the name of a route as for reverse(), or how paths begin.",
                code="bad-value",
                topic="roads",
            )
            for name in self._names
            if name not in names
        ]
        beginnings = {route.fixed for route in routes}
        problems += [
            Problem(
                f"{self._source} has {path!r}, but no route begins so.",
                _guess(path, beginnings) or "Write how paths begin, or the name of a route.",
                code="bad-value",
                topic="roads",
            )
            for path, _ in self.paths
            if not any(route.may_begin(path) for route in routes)
        ]
        if problems:
            raise UsageError.of(problems)


class NoChoice(ChosenRoads):
    """For a project in which one road is right for all views: decorators choose nothing."""

    def of(self, view: Any, path: str, names: Callable[[], tuple[str, ...]]) -> Road | None:
        """Return None."""
        return None


def _longest_first(pair: tuple[str, Road]) -> int:
    return -len(pair[0])


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


class Route:
    """A route with its names, and the part of its address that is the same in each path."""

    __slots__ = ("fixed", "is_open", "names")

    def __init__(self, names: tuple[str, ...], address: str) -> None:
        variable = VARIABLE.search(address)
        self.names, self.is_open = names, variable is not None
        self.fixed = address[: variable.start()] if variable is not None else address

    def may_begin(self, path: str) -> bool:
        """Return whether a path of this route may begin with this text."""
        return self.fixed.startswith(path) or (self.is_open and path.startswith(self.fixed))


def routes_of(entry: Any, namespaces: tuple[str, ...] = (), before: str = "") -> Iterator[Route]:
    """Yield the routes of a URLconf."""
    address = before + text_of(getattr(entry, "pattern", None))
    if hasattr(entry, "url_patterns"):
        own = namespaces_of(entry, namespaces)
        for each in entry.url_patterns:
            yield from routes_of(each, own, address)
    elif callable(getattr(entry, "callback", None)):
        yield Route(names_of(entry, namespaces), address)


def text_of(pattern: Any) -> str:
    """Return what a pattern adds to an address; a variable part if that depends on the language."""
    text = getattr(pattern, "_route", None) or getattr(pattern, "_regex", None)
    return text.removeprefix("^") if isinstance(text, str) else "<"


def namespaces_of(resolver: Any, outer: tuple[str, ...]) -> tuple[str, ...]:
    """Return the namespaces of the routes below a resolver."""
    return (*outer, *filter(None, [getattr(resolver, "namespace", None)]))


def names_of(entry: Any, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a route: its own, and the one of its view."""
    name = getattr(entry, "name", None)
    return names_in(ResolverMatch(entry.callback, (), {}, name, namespaces=[*namespaces]))


def names_in(match: Any) -> tuple[str, ...]:
    """Return the same for what Django has found."""
    return match.view_name, match._func_path
