"""The routes of the project that need no arguments. Lives in the command; loads the URLconf."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import LocalePrefixPattern, RegexPattern, RoutePattern

from ..utils.tracebacks import during

LITERAL = re.compile(r"(?:[\w/~@:,;=!&'*%-]|\\[.\-/+])*", re.ASCII)
"""A regular expression that matches one text alone."""


def without_arguments() -> list[str]:
    """Return the paths of all routes without arguments, in the order of the URLconf."""
    with during("The URLconf cannot be loaded"):
        return [*dict.fromkeys(f"/{path}" for path in _walk(get_resolver().url_patterns))]


def _walk(patterns: Any, before: str = "") -> Iterator[str]:
    for pattern in patterns:
        text = _literal(pattern.pattern)
        if text is None:
            continue
        if isinstance(pattern, URLPattern):
            yield before + text
        elif isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, before + text)


def _literal(pattern: Any) -> str | None:
    """Return the part of a path that a pattern matches; None if it has arguments."""
    if isinstance(pattern, LocalePrefixPattern):
        return str(pattern.language_prefix)
    if isinstance(pattern, RoutePattern):
        text = str(pattern)
        return text if "<" not in text and text.isascii() and " " not in text else None
    if isinstance(pattern, RegexPattern):
        text = str(pattern).removeprefix("^")
        text = re.sub(r"(?<!\\)(\$|\\Z)$", "", text)
        return re.sub(r"\\(.)", r"\1", text) if LITERAL.fullmatch(text) else None
    return None
