"""The command line: one flat parser, for manage.py and for ``python -m django_prodserve``.

Flat, because argparse's sub-parsers break ``--settings`` and ``-v`` behind the action, repeated flags and
``call_command``. Values are text here; config/options.py parses them, so that one message lists all that is
wrong.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from ..config import options, parsers
from ..config.renamed import hint, renamed_flag
from ..errors import ProdserveError

ACTIONS = {
    "serve": "serve the project (what happens without an action)",
    "plan": "print every decision with its reason; nothing is started",
    "check": "load, warm up and try the address; exit 1 on what would stop serving",
    "reload": "serve new code, settings and environment without losing a request; exit 1 if they are broken",
    "stop": "let running requests finish and stop the server",
    "status": "what the running server does, worker by worker; --watch to look on, --json for scripts",
    "dump": "the stack of every thread of the running server with its request; nothing is stopped",
}
CONTROL_ACTIONS = ("reload", "stop")
STATUS_ACTIONS = ("status", "dump")
"""Actions on the running server; they need no project, only where it lies."""
LATER = {
    "export": "use `prodserve plan --gunicorn-conf`",
}

WINDOWS = (
    "prodserve runs on Linux and macOS: Gunicorn needs fork. On Windows use WSL, or a container "
    "(and runserver for development)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and every option to a parser."""
    parser.usage = "%(prog)s [ACTION] [options]"
    actions = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument("action", nargs="*", default=[], metavar="ACTION", help=actions)
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="With plan and status: print JSON."
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        default=argparse.SUPPRESS,
        help="With status: show it anew each second.",
    )
    parser.add_argument(
        "--gunicorn-conf",
        action="store_true",
        default=argparse.SUPPRESS,
        help="With plan: print a gunicorn.conf.py that serves the same way.",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        default=argparse.SUPPRESS,
        help="With plan: load the project and measure the memory that it takes.",
    )
    parser.add_argument(
        "--skip-checks", action="store_true", default=False, help="Skip Django's system checks."
    )
    for row in options.option_fields():
        _add_row(parser, row)


def _add_row(parser: argparse.ArgumentParser, row: options.Row) -> None:
    flags = [row.short, row.flag] if row.short else [row.flag]
    text = f"{row.help} Default: {row.default_text}.".replace("%", "%%")
    more: dict[str, Any] = {"dest": row.name, "default": argparse.SUPPRESS, "help": text}
    if row.kind.is_switch:
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **more)
    else:
        action = "append" if row.kind.is_repeated else "store"
        parser.add_argument(*flags, action=action, metavar=row.metavar, **more)


class FlatParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose options may stand on both sides of the action.

    Mixed into Django's CommandParser. A complaint says what was probably meant.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = self._spelt_out(sys.argv[1:] if args is None else args)
        parsed, unknown = self.parse_known_intermixed_args(words, namespace)
        if unknown:
            self.error(self._unknown([word for word in unknown if word.startswith("-")] or unknown))
        return parsed

    def _spelt_out(self, words: Sequence[str]) -> list[str]:
        """Return the command line with ``--static off`` and ``--static=off`` written as ``--no-static``."""
        spelt: list[str] = []
        for word in words:
            if spelt and self._is_switch(spelt[-1]) and (state := _state(word)) is not None:
                spelt[-1] = _switched(spelt[-1], state)
                continue
            flag, _, value = word.partition("=")
            if self._is_switch(flag) and (state := _state(value)) is not None:
                word = _switched(flag, state)
            spelt.append(word)
        return spelt

    def _is_switch(self, flag: str) -> bool:
        action = self._option_string_actions.get(flag)
        return isinstance(action, argparse.BooleanOptionalAction) and not flag.startswith("--no-")

    def _unknown(self, words: Sequence[str]) -> str:
        lines = []
        for word in words:
            flag = word.partition("=")[0]
            ending = hint(flag, self._option_string_actions, now=renamed_flag(flag))
            lines.append(f"unknown option {flag}{ending}")
        return " ".join(lines)

    def error(self, message: str) -> NoReturn:
        raise ProdserveError(re.sub("^argument ", "", message))


def _state(word: str) -> bool | None:
    """Return what a word says of a switch; None where it says nothing."""
    try:
        return parsers.boolean(word)
    except ValueError:
        return None


def _switched(flag: str, state: bool) -> str:
    return flag if state else flag.replace("--", "--no-", 1)


def control_parser(program: str) -> argparse.ArgumentParser:
    """Return the same parser without Django, for actions that need no project. Its flags are accepted."""
    parser = FlatParser(program, allow_abbrev=False)
    add_arguments(parser)
    for name in ("--settings", "--pythonpath", "--configuration", "-v", "--verbosity"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--traceback", "--no-color", "--force-color"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    return parser


def chosen_action(words: str | Sequence[str] | None) -> str:
    """Return the action, ``serve`` where none was typed; raise ProdserveError with what to write instead."""
    words = [words] if isinstance(words, str) else list(words or ["serve"])
    if len(words) > 1:
        raise ProdserveError(f"One action at a time; {' and '.join(words)} are {len(words)}.")
    word = words[0]
    if word in ACTIONS:
        return word
    if word in LATER:
        raise ProdserveError(f"prodserve {word} is not in this release; {LATER[word]}.")
    if re.fullmatch(r"[\w.\[\]:*-]*:\d+|\d+|\d+(\.\d+){3}|(unix:|/|fd://).*", word):
        raise ProdserveError(f"{word} is an address, not an action: write --bind {word}")
    close = difflib.get_close_matches(word, ACTIONS, n=1)
    guess = f"Did you mean {close[0]}?" if close else f"There are {', '.join(ACTIONS)}."
    raise ProdserveError(f"There is no action {word!r}. {guess}")
