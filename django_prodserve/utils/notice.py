"""A line of the server for people, with the same facts as fields for programs. Standard library alone."""

from __future__ import annotations

from typing import Any


class Notice(str):
    """A line that ``say`` accepts like any other. If lines are JSON, its fields are written, too.

    A field ``message`` replaces the text there: padding and hints are for people.
    """

    fields: dict[str, Any]

    def __new__(cls, text: str, **fields: Any) -> Notice:
        line = super().__new__(cls, text)
        line.fields = fields
        return line


def part(name: str, text: str) -> Notice:
    """Return a line on a part of the server; its name is a field for programs, and padded for people."""
    return Notice(f"{name:<10}{text}", message=f"{name}: {text}", event="start", part=name)
