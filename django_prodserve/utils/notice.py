"""A line of the server: its text for people, the same facts as fields for programs.

Used in the command's process, and in the forks that it starts.
"""

from __future__ import annotations

from typing import Any

from ..errors import Problem


class Notice(str):
    """A line that ``say`` accepts like any other. cli/messages.py writes its problem and fields as JSON.

    Its text also identifies it: a later generation does not repeat a line of the one before.
    """

    level = "info"
    """info, note or warning."""
    problem: Problem
    """The message, with its fix and code if it has them."""
    fields: dict[str, Any]
    """Further fields for programs."""

    def __new__(cls, text: str, **fields: Any) -> Notice:
        line = super().__new__(cls, text)
        line.problem, line.fields = Problem(text), fields
        return line


def part(name: str, text: str) -> Notice:
    """Return a line on a part of the server; its name is a field for programs, and padded for people."""
    line = Notice(f"{name:<10}{text}", event="start", part=name)
    line.problem = Problem(f"{name}: {text}")
    return line


def note(text: str, **fields: Any) -> Notice:
    """Return a fact that the operator should know, with nothing to do."""
    return _levelled("note", Problem(text), fields)


def warning(found: Problem | str) -> Notice:
    """Return a warning; the server serves all the same."""
    return _levelled("warning", Problem(found) if isinstance(found, str) else found, {})


def _levelled(level: str, problem: Problem, fields: dict[str, Any]) -> Notice:
    line = Notice(f"{level}: {problem}", **fields)
    line.level, line.problem = level, problem
    return line
