"""Lines for people: the verdict, and text wrapped for a terminal without control characters. Pure.

Used by ``status`` and ``status --watch``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..utils import terminal

Line = tuple[str, str]
"""A style, or none, and a text."""


def verdict(findings: Sequence[dict[str, Any]]) -> str:
    """Return ``bad``, ``warn`` or ``ok``: the level of the worst finding."""
    levels = {finding["level"] for finding in findings}
    return next((level for level in ("bad", "warn") if level in levels), "ok")


def verdict_lines(findings: Sequence[dict[str, Any]]) -> list[Line]:
    """Return a line for each finding, the worst first; or one line if there is none."""
    found = [
        (finding["level"], f"{'!!' if finding['level'] == 'bad' else '! '} {finding['text']}")
        for finding in findings
    ]
    return found or [("ok", "Serving normally")]


def wrapped(line: str, columns: int) -> list[str]:
    """Return a line in parts that fit, all but the first indented below the text; long words are split."""
    if not columns or len(line) <= columns:
        return [line]
    indent = " " * (3 if line.startswith("!") else 10)
    return terminal.wrapped(line, columns, indent, whole_words=False)


def printable(text: str) -> str:
    """Return a text without terminal control characters: a path comes from a client."""
    return "".join(character if character.isprintable() else "?" for character in text)


def clock(seconds: float) -> str:
    """Write a time of day as the log does, from seconds since 1970: ``14:03:22Z``."""
    return time.strftime("%H:%M:%SZ", time.gmtime(seconds))
