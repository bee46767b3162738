"""What to measure: the paths and flags of the command line. Pure; standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import parsers
from ..errors import Problem, UsageError

SECONDS, LEAST_SECONDS = 60.0, 10.0
"""How long the command may take, and what its steps need at least: a start, each path, four runs."""
MAX_PATHS = 20
"""Paths that are measured: more leave too little time to each."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A path, or the addresses of a route, and its share of all requests."""

    targets: tuple[str, ...]
    share: float

    @property
    def name(self) -> str:
        """Return the address that names them all."""
        return self.targets[0]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the operator has asked for."""

    paths: tuple[str, ...] = ()
    log: str = ""
    seconds: float = SECONDS
    html: str = ""
    force: bool = False
    may_load_others: bool = False
    """Whether a database on another host may get the load."""
    as_json: bool = False

    @classmethod
    def parse(cls, words: Sequence[str], flags: Mapping[str, Any]) -> Choices:
        """Return the choices; raise one error that lists everything that is wrong."""
        problems = [problem for word in words if (problem := _wrong_path(word)) is not None]
        log, seconds = flags.get("from") or "", SECONDS
        if words and log:
            fix = f"prodserve tune --from {log}"
            problems.append(Problem("Paths and --from cannot be used together: both name the paths.", fix))
        if (text := flags.get("seconds")) is not None:
            try:
                seconds = parsers.duration(text)
            except (ValueError, TypeError):
                message = f"--seconds is {text!r}, but must be a number of seconds."
                problems.append(Problem(message, "For example: --seconds 30", code="bad-value"))
            else:
                if seconds < LEAST_SECONDS:
                    message = f"--seconds {text} is too short: the measurement needs {LEAST_SECONDS:g} s."
                    problems.append(Problem(message, f"--seconds {LEAST_SECONDS:g}", code="bad-value"))
        if problems:
            raise UsageError.of(problems)
        return cls(
            paths=tuple(dict.fromkeys(words)),
            log=log,
            seconds=seconds,
            html=flags.get("html") or "",
            force=bool(flags.get("force")),
            may_load_others=bool(flags.get("yes")),
            as_json=bool(flags.get("json")),
        )


def _wrong_path(word: str) -> Problem | None:
    if word.startswith("/") and word.isascii() and word.isprintable() and " " not in word and "#" not in word:
        return None
    if "://" in word:
        path = "/" + word.partition("://")[2].partition("/")[2]
        fix = f"The server of tune has an address of its own. Write the path: {path}"
    elif word.startswith("/"):
        fix = "Write it as a client sends it: other characters as %XX, without spaces and without #."
    else:
        fix = f"Write /{word.lstrip('.')}"
    return Problem(f"{word!r} is not a path: a path begins with / and has no spaces.", fix, code="bad-value")


def evenly(paths: Sequence[str]) -> list[Choice]:
    """Return paths with equal shares."""
    return [Choice(targets=(path,), share=1 / len(paths)) for path in paths]
