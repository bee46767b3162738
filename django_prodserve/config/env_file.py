"""``--env-file``: lines of KEY=VALUE that become environment variables before settings are read.

Standard library alone. Read by ``python -m django_prodserve`` before Django is set up, and by the supervisor
for every generation. The management command reads it, too, and then restarts itself.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, MutableMapping

from ..errors import Problem, UsageError
from .parse_errors import ParseError, ParseErrors

APPLIED = "_PRODSERVE_ENV_FILE"
"""Names the variables from the file with their earlier values, so that a removed line is undone, too."""

LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def parse(text: str) -> dict[str, str]:
    """Return the variables of such a file; raise ParseErrors with the number of each wrong line.

    Quotes around a value are removed. ``#`` starts a comment at the start of a line or behind a space, and
    ``export`` in front is allowed. Nothing is expanded.
    """
    found: dict[str, str] = {}
    errors: list[ParseError] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = LINE.fullmatch(line)
        try:
            if parts is None:
                raise ParseError("expected KEY=VALUE")
            found[parts[1]] = _value(parts[2])
        except ParseError as error:
            errors.append(ParseError(f"line {number}: {error}"))
    if errors:
        raise ParseErrors(errors)
    return found


def _value(raw: str) -> str:
    if raw[:1] not in {"'", '"'}:
        return re.split(r"\s#", raw, maxsplit=1)[0].strip()
    try:
        words = shlex.split(raw, comments=True)
    except ValueError:
        raise ParseError("a quote is not closed") from None
    if len(words) != 1:
        raise ParseError("text after the closing quote")
    return words[0]


def apply(path: str, environ: MutableMapping[str, str]) -> None:
    """Put the file's values into an environment, and record the old ones; raise OSError or ValueError."""
    with open(path, encoding="utf-8") as file:
        values = parse(file.read())
    before = {name: environ.get(name) for name in values}
    environ.update(values)
    environ[APPLIED] = json.dumps(before)


def without(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment as it was before a file was applied to it."""
    original = dict(environ)
    for name, value in json.loads(original.pop(APPLIED, "{}")).items():
        if value is None:
            original.pop(name, None)
        else:
            original[name] = value
    return original


def refusal(path: str, error: OSError | ValueError, *, source: str = "--env-file") -> UsageError:
    """Return the error that explains why a file cannot be used."""
    full = f"{source} {os.path.abspath(path)}"
    if isinstance(error, UnicodeError):
        message, fix = f"{full} is not UTF-8 text.", "Save it as UTF-8."
    elif isinstance(error, OSError):
        message, fix = (
            f"{full} cannot be read: {error.strerror}.",
            "Name a file that exists and that this user may read.",
        )
    else:
        lines = error.errors if isinstance(error, ParseErrors) else (error,)
        fix = "Write one KEY=VALUE a line; # starts a comment."
        return UsageError.of(_problem(f"{full}, {line}.", fix if line is lines[-1] else "") for line in lines)
    return UsageError.of([_problem(message, fix)])


def _problem(message: str, fix: str) -> Problem:
    return Problem(message, fix, code="env-file", topic="env-file")
