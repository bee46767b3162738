"""What the rules of ``export --check`` share: a finding, and how a setting is searched. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import Problem
from .facts import Facts
from .reading import seconds, values

Rule = Callable[[str, str, Facts], Iterator[Problem]]
"""Yields what contradicts the plan, from the kind of a file and its text without comments."""


class Must(NamedTuple):
    """A pattern that must be in a file, with what is wrong without it and how to correct it."""

    pattern: str
    message: str
    fix: str


class Never(Must):
    """A pattern that must not be in a file."""


def found(message: str, fix: str) -> Problem:
    """Return a contradiction with its fix."""
    return Problem(message, fix, code="conflict", topic="export")


def judged(code: str, *rules: Must) -> Iterator[Problem]:
    """Yield what is wrong according to these patterns."""
    for rule in rules:
        if bool(re.search(rule.pattern, code, re.MULTILINE)) == isinstance(rule, Never):
            yield found(rule.message, rule.fix)


def absent(code: str, pattern: str, message: str, fix: str) -> Iterator[Problem]:
    """Yield a contradiction if the pattern is not in the file."""
    yield from judged(code, Must(pattern, message, fix))


def present(code: str, pattern: str, message: str, fix: str) -> Iterator[Problem]:
    """Yield a contradiction if the pattern is in the file."""
    yield from judged(code, Never(pattern, message, fix))


def number(code: str, row: tuple[str, str, float]) -> tuple[float, str]:
    """Return the smallest number that a file sets, with its text; else the default."""
    pattern, name, default = row
    numbers = {seconds(text): f"{name} {text.strip()}" for text in values(code, pattern)}
    return min(numbers.items()) if numbers else (default, f"{name}, by default {default:g} s,")


def is_late(limit: float, start: float) -> bool:
    """Return whether a limit is too short for a start; a start of minutes is rare, but a migration is not."""
    return limit < min(start, 60 if start < 600 else 600)
