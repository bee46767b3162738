"""The result of ``prodserve check``: lines and a summary for people, one document for CI.

Runs in the command's process. Needs neither Django nor settings, so it can also report a project that fails
to load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import Problem, ProdserveError
from ..utils.notice import Notice
from ..utils.units import counted
from . import messages


class CheckReport:
    """Counts warnings as they are printed; with ``as_json`` it prints nothing before the end."""

    def __init__(self, say: Callable[[str], object], *, as_json: bool) -> None:
        self._say, self._as_json = say, as_json
        self.warnings: list[Problem] = []
        self.notes: list[str] = []

    def say(self, line: str) -> None:
        """Receive a line of the checks."""
        if isinstance(line, Notice) and line.level == "warning":
            self.warnings.append(line.problem)
        elif isinstance(line, Notice) and line.level == "note":
            self.notes.append(line.problem.message)
        if not self._as_json:
            self._say(line)

    def summary(self) -> str:
        """Return the last line of a check that found no error."""
        if self._as_json:
            return document(warnings=self.warnings, notes=self.notes)
        count = len(self.warnings)
        return f"{counted(count, 'warning') if count else 'no warnings'}, ready to serve"


def document(
    *, errors: Sequence[Problem] = (), warnings: Sequence[Problem] = (), notes: Sequence[str] = ()
) -> str:
    """Return everything that a check found as JSON; ``ready`` is true if the server would start."""
    found = {
        "ready": not errors,
        "errors": [_fields(problem) for problem in errors],
        "warnings": [_fields(problem) for problem in warnings],
        "notes": list(notes),
    }
    return json.dumps(found, indent=2)


def is_wanted(words: Sequence[str], flags: Mapping[str, Any] | None = None) -> bool:
    """Return whether a command line asks for the document: ``check --json``."""
    return "check" in words and ("--json" in words or bool(flags and flags.get("json")))


def of_error(error: ProdserveError) -> str:
    """Return the document of a check that an error ended."""
    return document(errors=error.problems)


def _fields(problem: Problem) -> dict[str, str]:
    known = {
        "code": problem.code,
        "message": problem.message,
        "fix": problem.fix,
        "where": problem.where,
    }
    return {name: text for name, text in (known | {"more": messages.more(problem)}).items() if text}
