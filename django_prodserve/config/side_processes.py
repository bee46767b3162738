"""``PRODSERVE["PROCESSES"]``: what a project needs alongside its web workers. Standard library alone.

    PRODSERVE = {
        "PROCESSES": {
            "tasks": "manage.py db_worker",
            "beat": {"command": "celery -A shop beat", "memory": "80m", "one_host": True},
        },
        "WITH": ["tasks", "beat"],
    }

This module reads the block, and which of its processes start. It starts nothing.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Problem
from . import parsers

ALL = "all"
"""The word for every process of the block."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
"""The exports use a name as the name of a unit, of a service or of a container."""
VARIABLE = "PRODSERVE_PROCESS"
"""The variable from which settings may read which process they are loaded in; not an option."""
KEYS = ("command", "memory", "one_host")
EXAMPLE = 'PRODSERVE["PROCESSES"] = {"tasks": "manage.py db_worker"}'
RESERVED = (ALL, "none", "off", "web", "release")
"""Words with a meaning of their own, in ``--with`` or in the files of a platform."""


@dataclass(frozen=True, kw_only=True)
class SideProcess:
    """A process alongside the web workers, as the settings state it."""

    name: str
    command: tuple[str, ...]
    """Its words; no shell reads them."""
    memory: int | None = None
    """Bytes that the operator expects it to use; None if the plan has to guess."""
    one_host: bool = False
    """Whether only one of the hosts that share a database runs it."""

    @property
    def source(self) -> str:
        """Return its place in the settings."""
        return source_of(self.name)


def source_of(name: object) -> str:
    """Return the place of a process in the settings."""
    return f"PRODSERVE['PROCESSES'][{name!r}]"


def read(block: object, problems: list[Problem]) -> dict[str, SideProcess]:
    """Return the processes of the block; everything wrong in it is a problem."""
    stated = block.get("PROCESSES") if isinstance(block, Mapping) else None
    if stated is None:
        return {}
    if not isinstance(stated, Mapping):
        what = "must be a dictionary of names and commands"
        problems.append(_problem(f"PRODSERVE['PROCESSES'] is {stated!r}, but {what}.", f"Write {EXAMPLE}"))
        return {}
    found: dict[str, SideProcess] = {}
    for name, value in stated.items():
        if wrong := [*_wrong_name(name), *_wrong_value(source_of(name), value)]:
            problems += wrong
        else:
            found[name] = _read(name, value if isinstance(value, Mapping) else {"command": value})
    return found


def _read(name: str, value: Mapping[str, Any]) -> SideProcess:
    memory, command = value.get("memory"), value["command"]
    return SideProcess(
        name=name,
        command=tuple(shlex.split(command) if isinstance(command, str) else command),
        memory=None if memory is None else parsers.size(memory),
        one_host=parsers.boolean(value.get("one_host", False)),
    )


def _wrong_name(name: object) -> Iterator[Problem]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        must = "lower-case letters, digits and -, at most 31, a letter first"
        yield _problem(f"PRODSERVE['PROCESSES'] has the name {name!r}, but a name must be {must}.", EXAMPLE)
    elif name in RESERVED:
        meaning = "every process" if name == ALL else "something else to prodserve or to a platform"
        yield _problem(
            f"PRODSERVE['PROCESSES'] has a process {name!r}, a word that means {meaning}.",
            "Choose another name, such as tasks.",
        )


def _wrong_value(source: str, value: object) -> Iterator[Problem]:
    """Yield everything that is wrong in one value."""
    if not isinstance(value, Mapping):
        yield from _wrong_command(source, value)
        return
    for key in value:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key).lower(), KEYS, n=1)
            fix = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(KEYS)}."
            yield Problem(f"{source} has no key {key!r}.", fix, "", "unknown-key", "with")
    if "command" in value:
        yield from _wrong_command(f"{source}['command']", value["command"])
    else:
        yield _problem(f"{source} has no command.", 'For example: "command": "manage.py db_worker"')
    parsed = {"memory": (parsers.size, '"256m"'), "one_host": (parsers.boolean, "True")}
    for key, (parse, example) in parsed.items():
        try:
            if value.get(key) is not None:
                parse(value[key])
        except (ValueError, TypeError):
            must = (parse.__doc__ or "").strip()
            fix = f'For example: "{key}": {example}'
            yield _problem(f"{source}[{key!r}] is {value[key]!r}, but must be {must}", fix)


def _wrong_command(source: str, command: object) -> Iterator[Problem]:
    fix = 'For example: "manage.py db_worker"'
    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            reason = str(error).lower().replace("no closing quotation", "a quotation mark is not closed")
            yield _problem(f"{source} is {command!r}, which cannot be split into words: {reason}.", fix)
            return
        if not words:
            yield _problem(f"{source} is empty.", fix)
        elif any("\0" in word for word in words):
            yield _problem(f"{source} contains a NUL character.", fix)
        elif shell := next((word for word in words if word in SHELL), ""):
            yield _problem(
                f"{source} contains {shell!r}, but no shell reads it.",
                f'For a shell: "sh -c {shlex.quote(command)}"',
            )
    elif not isinstance(command, (list, tuple)) or not all(isinstance(word, str) for word in command):
        yield _problem(f"{source} is {command!r}, but must be a command as text or a list of its words.", fix)
    elif not command or not command[0]:
        yield _problem(f"{source} is empty.", fix)


SHELL = ("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>")
"""Words that only a shell understands: a program would get them as arguments."""


def choose(
    names: Sequence[str], known: Mapping[str, SideProcess], source: str, problems: list[Problem]
) -> tuple[str, ...]:
    """Return the names of the processes to start, in the order of the block; an unknown one is a problem."""
    for name in dict.fromkeys(names):
        if name == ALL and not known:
            fix = f"Add {EXAMPLE}, or remove {source}."
            problems.append(_problem(f"{source} is all, but PRODSERVE['PROCESSES'] has none.", fix))
        elif name != ALL and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            fix = f"There are {', '.join(known)}." if known else f"Add it: {EXAMPLE}"
            fix = f"Did you mean {close[0]!r}?" if close else fix
            problems.append(_problem(f"{source}: PRODSERVE['PROCESSES'] has no {name!r}.", fix))
    return tuple(name for name in known if name in names or ALL in names)


def _problem(message: str, fix: str) -> Problem:
    return Problem(message, fix, "", "bad-value", "with")
