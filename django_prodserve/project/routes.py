"""A page that a browser can open, if ``/`` has no route. Runs in the command, after the project is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve
from django.urls.resolvers import LocalePrefixPattern, RoutePattern


def lacks_front_page() -> bool:
    """Return whether ``/`` has no route; with languages in the addresses it may lead to one."""
    patterns = get_resolver().url_patterns
    if any(isinstance(pattern.pattern, LocalePrefixPattern) for pattern in patterns):
        return False
    try:
        resolve("/")
    except Resolver404:
        return True
    return False


def first_page() -> str:
    """Return the path of the first route without parameters; empty if there is none."""
    return next((f"/{path}" for path in _paths(get_resolver().url_patterns) if path), "")


def _paths(patterns: Any, before: str = "") -> Iterator[str]:
    for pattern in patterns:
        if not isinstance(pattern.pattern, RoutePattern):
            continue  # a regular expression, or a language
        path = before + str(pattern.pattern)
        if "<" in path:
            continue
        if isinstance(pattern, URLPattern):
            yield path
        elif isinstance(pattern, URLResolver):
            yield from _paths(pattern.url_patterns, path)
