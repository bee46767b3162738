"""The single form of a message: text for people, JSON for programs. Runs in the process of every command.

    prodserve: error: 127.0.0.1:8000 is already in use by "python manage.py prodserve" (pid 4711).
      Fix:  Stop that process, or choose another port: --bind 127.0.0.1:8001
      More: prodserve help port-in-use

The form is the same from manage.py and from the script. Needs neither Django nor settings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ..config.options import option_field
from ..config.parsers import one_of
from ..errors import Problem, ProdserveError
from ..utils import log_lines, manual, terminal
from ..utils.notice import Notice

NAME = "prodserve"
LABELS = ("See", "Fix", "More")
STYLES = {"error": "error", "warning": "warning"}


def write_error(error: ProdserveError, stream: Any, *, as_json: bool) -> None:
    """Write every problem of an error."""
    for problem in error.problems:
        line = problem_as_json(problem, "error") if as_json else problem_as_text(problem, "error", stream)
        stream.write(f"{line}\n")
    stream.flush()


def problem_as_text(problem: Problem, level: str, stream: Any, *, prefix: str = f"{NAME}: ") -> str:
    """Return a problem for people: wrapped and coloured if a terminal shows it."""
    colour, columns = terminal.colours(stream), terminal.width(stream)
    head = f"{prefix}{level}: "
    message = _wrapped(f"{head}{problem.headline}", columns, "  ")
    lines = [head[: len(prefix)] + terminal.styled(f"{level}:", level, on=colour) + message[len(head) - 1 :]]
    for label, text in zip(LABELS, (problem.where, problem.fix, more(problem)), strict=True):
        if text:
            lines.append(_wrapped(f"  {label + ':':<5} {text}", columns, " " * 8))
    return "\n".join(lines)


def _wrapped(text: str, columns: int, indent: str) -> str:
    """Return a text in lines that fit; a word longer than a line, such as a path, is not split."""
    lines = text.split("\n")
    lines[1:] = [line if line.startswith(indent) else f"{indent}{line.strip()}" for line in lines[1:]]
    return "\n".join(part for line in lines for part in terminal.wrapped(line, columns, indent) or [""])


def problem_as_json(problem: Problem, level: str, **fields: Any) -> str:
    """Return a problem for programs."""
    known = {"code": problem.code, "fix": problem.fix, "where": problem.where, "more": more(problem)}
    fields = {name: text for name, text in known.items() if text} | fields
    return log_lines.as_json(time.time(), level, NAME, problem.message, **fields)


def more(problem: Problem) -> str:
    """Return the command that explains a problem; empty if no page explains it."""
    for name in (problem.topic, problem.code):
        if name in ("", ProdserveError.default_code):  # "failed" is a kind of event, too
            continue
        if manual.has(name) or option_field(name.replace("-", "_")) is not None:
            return f"{NAME} help {name}"
    return ""


def said_as_json(line: str) -> str:
    """Return a line of the server for programs."""
    if not isinstance(line, Notice):
        return problem_as_json(Problem(line), "info")
    level = "warning" if line.level == "warning" else "info"
    return problem_as_json(line.problem, level, **line.fields)


def said_as_text(line: str, stream: Any) -> str:
    """Return a line of the server for people."""
    if not isinstance(line, Notice) or line.level == "info":
        return str(line)
    return problem_as_text(line.problem, line.level, stream, prefix="")


def is_json(stream: Any, *layers: Mapping[str, Any]) -> bool:
    """Return whether messages there are JSON, according to the first layer that sets the log format."""
    stated = next(filter(None, (layer.get(name) for layer in layers for name in FORMAT_NAMES)), "auto")
    try:
        form = FORMATS(stated)
    except ValueError:  # the parser reports it soon, and in this form
        form = "auto"
    try:
        return log_lines.wants_json(form, stream.fileno())
    except (OSError, ValueError, AttributeError):  # not a file: call_command captures it
        return form == "json"


FORMATS = one_of("text", "json", "auto")
FORMAT_NAMES = ("log_format", "PRODSERVE_LOG_FORMAT", "LOG_FORMAT")
"""The flag, the variable and the key of --log-format."""


def typed_format(words: Sequence[str]) -> dict[str, str]:
    """Return the log format that the unparsed command line gives."""
    return dict(_formats(words))


def _formats(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        flag, equals, value = word.partition("=")
        if flag == "--log-format":
            yield "log_format", value if equals else following
