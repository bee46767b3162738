"""The command line: one flat parser, for manage.py, the script and ``python -m django_prodserve``.

The parser is flat because argparse's sub-parsers break repeated flags, ``call_command``, and ``--settings``
and ``-v`` behind the action. Values are text here. config/options.py parses them, so that one message lists
every wrong value. Runs in the process of every command.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from ..config import options, parsers
from ..config.option_groups import GROUPS
from ..config.renamed import hint, renamed_flag
from ..config.row import Row
from ..errors import Problem, UsageError
from ..utils import terminal
from . import actions
from .actions import ACTIONS

EPILOG = """\
examples:
  prodserve --local                              try a project on this machine
  prodserve 0.0.0.0:8000 --workers 4             serve on every interface
  prodserve plan --cpus 0.5 --memory 512m        what it would do in a small container
  prodserve reload                               serve new code without losing a request

Every option is also a variable (--keep-alive is PRODSERVE_KEEP_ALIVE) and a key in the settings
(PRODSERVE = {"KEEP_ALIVE": 75}). A flag wins over the variable, the variable over the settings.
prodserve help lists the documents; prodserve help workers explains one option, and what it is here.
"""


class Flag(NamedTuple):
    """A flag that is not an option of the server."""

    about: str
    value: str = ""
    """What the value is, such as DIR; empty for a flag without a value."""
    is_repeated: bool = False
    """Whether it may be given several times."""

    @property
    def is_path(self) -> bool:
        """Whether a shell completes the value as a path."""
        return self.value in ("DIR", "FILE")


def _with(flag: str, about: str, value: str = "") -> Flag:
    return Flag(f"With {actions.listed(actions.FLAGS[flag])}: {about}", value)


OWN_FLAGS = {
    "--json": _with("--json", "print JSON."),
    "--watch": _with("--watch", "refresh it every second."),
    "--gunicorn-conf": _with("--gunicorn-conf", "print a gunicorn.conf.py that serves the same way."),
    "--measure": _with("--measure", "load the project and measure the memory that it uses."),
    "--output": _with("--output", "write the files into this directory instead of printing them.", "DIR"),
    "--force": _with("--force", "replace files that exist."),
    "--check": _with(
        "--check", "compare a file that exists with the plan; exit 1 if they contradict each other.", "FILE"
    ),
    "--server": _with(
        "--server", "address of a machine that serves, repeatable: several machines behind one HAProxy."
    )._replace(value="HOST:PORT", is_repeated=True),
    "--from": _with("--from", "take paths and their shares from this access log.", "FILE"),
    "--seconds": _with("--seconds", "end after this time at the latest; 60 without it.", "N"),
    "--html": _with("--html", "write one page with charts into this file.", "FILE"),
    "--yes": _with("--yes", "send load although a database is on another host."),
    "--skip-checks": Flag("Skip the preflight and Django's checks."),
}
"""Flags of single actions."""
DJANGO_FLAGS = {
    "--settings": Flag("The settings module, such as mysite.settings.", "MODULE"),
    "--pythonpath": Flag("A directory to search for the project's modules.", "DIR"),
    "--verbosity": Flag("0 to 3; with plan, 2 also shows where each value comes from.", "N"),
    "--traceback": Flag("Show the traceback of an error."),
    "--no-color": Flag("No colours."),
    "--force-color": Flag("Colours also where no terminal reads them."),
}
"""Flags of every Django command that control commands accept too."""
OTHER_FLAGS = {
    **OWN_FLAGS,
    **DJANGO_FLAGS,
    "--version": Flag("Print the versions."),
    "--help": Flag("Print all options."),
}
"""Every flag without a row."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Prints options and their help texts in two columns, as wide as the terminal, at most 100 columns."""

    def __init__(self, prog: str, **more: Any) -> None:
        more["width"] = min(100, terminal.width(sys.stdout) or 80) - 2
        super().__init__(prog, max_help_position=30, **more)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and every option to a parser."""
    parser.prog = parser.prog.strip()
    parser.usage = "%(prog)s [ACTION] [options]"
    parser.formatter_class = Formatter
    parser.description = f"{parser.description or DESCRIPTION}\n\nactions:\n{_actions()}"
    parser.epilog = EPILOG
    parser.add_argument("action", nargs="*", default=[], metavar="ACTION", help=argparse.SUPPRESS)
    single = parser.add_argument_group("options of single actions")
    for flag, about in OWN_FLAGS.items():
        more: dict[str, Any] = {"action": "append" if about.is_repeated else "store"}
        more = {**more, "metavar": about.value} if about.value else {"action": "store_true"}
        default = False if flag == "--skip-checks" else argparse.SUPPRESS  # Django reads that one
        single.add_argument(flag, default=default, help=about.about, **more)
    parser._optionals.title = "options of every Django command"
    parser._action_groups.remove(parser._optionals)
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            row = options.option_field(name)
            assert row is not None, name
            _add_row(group, row)
    parser._action_groups.append(parser._optionals)  # last: operators look for the options of prodserve


DESCRIPTION = "Serve a Django project in production: sized for its machine, explained, with static files."


def _actions() -> str:
    width = max(map(len, ACTIONS)) + 2
    return "\n".join(f"  {name:<{width}}{text}" for name, text in ACTIONS.items())


def _add_row(parser: Any, row: Row) -> None:
    flags = [row.short, row.flag] if row.short else [row.flag]
    text = f"{row.help} Default: {row.default_text}.".replace("%", "%%")
    more: dict[str, Any] = {"dest": row.name, "default": argparse.SUPPRESS, "help": text}
    if row.kind.is_switch:
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **more)
    else:
        action = "append" if row.kind.is_repeated else "store"
        parser.add_argument(*flags, action=action, metavar=row.metavar, **more)


class FlatParser(argparse.ArgumentParser):
    """A parser that reports all errors in one message and accepts options on both sides of the action.

    Mixed into Django's CommandParser. An error message suggests the name that was probably meant.
    An address in place of an action is an address to serve on, as with runserver.
    """

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = self._spelt_out(sys.argv[1:] if args is None else args)
        parsed, unknown = self.parse_known_intermixed_args(words, namespace)
        if unknown:
            flags = [word for word in unknown if word.startswith("-")] or unknown
            raise UsageError.of(self._unknown(flag.partition("=")[0]) for flag in flags)
        action, addresses = actions.split(parsed.action)
        parsed.action = action
        if addresses:
            _refuse_file(parsed, addresses)
            parsed.bind = [*(getattr(parsed, "bind", None) or ()), *addresses]
        return parsed

    def _spelt_out(self, words: Sequence[str]) -> list[str]:
        """Return the command line with ``--static off`` and ``--static=off`` written as ``--no-static``."""
        spelt: list[str] = []
        for word in words:
            if spelt and self._is_switch(spelt[-1]) and (state := _state(word)) is not None:
                spelt[-1] = _switched(spelt[-1], state)
                continue
            if spelt and self._is_switch(spelt[-1]) and not actions.may_be_action(word):
                raise _wrong_switch(spelt[-1], word)
            flag, _, value = word.partition("=")
            if self._is_switch(flag) and (state := _state(value)) is not None:
                word = _switched(flag, state)
            elif self._is_switch(flag) and value:
                raise _wrong_switch(flag, value)
            spelt.append(word)
        return spelt

    def _is_switch(self, flag: str) -> bool:
        action = self._option_string_actions.get(flag)
        return isinstance(action, argparse.BooleanOptionalAction) and not flag.startswith("--no-")

    def _unknown(self, flag: str) -> Problem:
        renamed = renamed_flag(flag)
        fix = "" if renamed else actions.of_gunicorn(flag)
        fix = fix or hint(flag, self._option_string_actions, now=renamed)
        return Problem(f"Unknown option {flag}.", fix, code="unknown-option")

    def error(self, message: str) -> NoReturn:
        what, _, problem = re.sub("^argument ", "", message).partition(": ")
        flag = what.rpartition("/")[2]
        name = flag.lstrip("-")
        if "expected" in problem and (row := options.option_field(name.replace("-", "_"))):
            value = row.kind.example or row.metavar
            raise UsageError(f"{flag} needs a value.", f"For example: {flag} {value}", topic=name)
        if "expected" in problem and what in OWN_FLAGS:
            fix = f"For example: {flag} {OWN_FLAGS[flag].value}"
            raise UsageError(f"{flag} needs a value.", fix, topic=actions.FLAGS[flag][0])
        if "ignored explicit argument" in problem:
            raise UsageError(f"{flag} takes no value.", f"Write {what.replace('/', ' or ')}", topic=name[3:])
        raise UsageError(message[:1].upper() + message[1:], "prodserve --help lists all options.")


def _refuse_file(parsed: Any, addresses: Sequence[str]) -> None:
    """Raise UsageError if a path behind --gunicorn-conf is meant as a file: elsewhere it is a unix socket."""
    files = [address for address in addresses if address.startswith("/")]
    if files and getattr(parsed, "gunicorn_conf", False):
        fix = f"prodserve plan --gunicorn-conf > {files[0]}"
        raise UsageError("--gunicorn-conf takes no file: it prints to standard output.", fix)


def _state(word: str) -> bool | None:
    """Return the state that a word gives to a switch; None if it names no state."""
    try:
        return parsers.boolean(word)
    except ValueError:
        return None


def _wrong_switch(flag: str, value: str) -> UsageError:
    fix = f"Write {flag} or {flag.replace('--', '--no-', 1)}"
    return UsageError(
        f"{flag} is {value!r}, but must be {parsers.boolean.__doc__}", fix, code="bad-value", topic=flag[2:]
    )


def _switched(flag: str, state: bool) -> str:
    return flag if state else flag.replace("--", "--no-", 1)


def control_parser(program: str) -> argparse.ArgumentParser:
    """Return the same parser without Django, for actions that need no project. It accepts Django's flags."""
    parser = FlatParser(program, allow_abbrev=False)
    add_arguments(parser)
    for flag, about in DJANGO_FLAGS.items():
        names = ["-v", flag] if flag == "--verbosity" else [flag]
        parser.add_argument(*names, action="store" if about.value else "store_true", help=argparse.SUPPRESS)
    parser.add_argument("--configuration", help=argparse.SUPPRESS)  # of django-configurations
    return parser


def check_together(action: str, flags: Any) -> None:
    """Raise UsageError if a flag of one action was given with another action."""
    for flag, goes_with in actions.FLAGS.items():
        if flags.get(flag.lstrip("-").replace("-", "_")) and action not in goes_with:
            fix = f"prodserve {goes_with[0]} {flag}"
            raise UsageError(f"{flag} works with {actions.listed(goes_with)}, not with {action}.", fix)
    if flags.get("watch") and flags.get("json"):
        raise UsageError("--watch is for people and --json for scripts.", "Use one of them.")
