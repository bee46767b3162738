"""The program and the arguments of a process alongside the workers.

Runs in the command's process before it binds, so that a wrong command is one line and nothing serves; then in
the arbiter. Starts nothing.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

from django.core.management import get_commands
from django.db import DEFAULT_DB_ALIAS, connections

from ..config.side_processes import VARIABLE, SideProcess
from ..errors import Problem, UsageError
from ..plan.plan import Plan
from ..project.interpreter import find_program, is_program
from ..startup.files import check_files
from ..supervisor import reexec
from ..supervisor.protocol import GENERATION
from ..supervisor.sd_notify import VARIABLES
from ..utils import working_directory

PYTHON = re.compile(r"python(3(\.\d+)?)?")
"""Names of an interpreter that mean the one that serves."""
OURS = (GENERATION, reexec.PREPARED, *VARIABLES, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables that are for this server alone."""
LOCKABLE = ("postgresql", "mysql", "sqlite")
"""Databases with a lock among hosts; a file of SQLite has no other host."""


def check_start(plan: Plan) -> None:
    """Raise UsageError if a file of the plan or the command of a process cannot work: nothing listens yet."""
    check_files(plan)
    problems = [problem for process in plan.inputs.options.beside for problem in _problems(process)]
    if problems:
        raise UsageError.of(problems)


def _problems(process: SideProcess) -> Iterator[Problem]:
    words = process.command
    program = arguments(words)[0]
    if not is_program(program):
        if os.sep not in program:
            what = f"there is no program {program}, neither next to {sys.executable} nor in PATH"
        elif os.path.exists(program):
            what = f"{program} is not a program that this user may run"
        else:
            what = f"there is no {program}"
        yield _problem(f"{process.source}: {what}.", "Install it, or correct the command.")
    yield from _about_manage(process, words)
    vendor = connections[DEFAULT_DB_ALIAS].vendor
    if process.one_host and vendor not in LOCKABLE:
        what = f"the default database is {vendor}" if vendor != "unknown" else "there is no default database"
        yield _problem(
            f"{process.source}: one_host needs a lock in PostgreSQL, MySQL or SQLite, and {what}.",
            f"Remove one_host, and start {process.name} on one host only.",
        )


def _about_manage(process: SideProcess, words: Sequence[str]) -> Iterator[Problem]:
    """Yield what is wrong with a command of Django."""
    script = next((n for n, word in enumerate(words[:2]) if os.path.basename(word) == "manage.py"), None)
    if script is None:
        return
    rest = [word for word in words[script + 1 :] if not word.startswith("-")]
    known = get_commands()
    if not rest:
        yield _problem(f"{process.source} names no command behind manage.py.", "manage.py db_worker")
    elif rest[0] == "prodserve":
        yield _problem(f"{process.source} would start this server again.", "Name another command.")
    elif words[script + 1] == rest[0] and rest[0] not in known:
        close = difflib.get_close_matches(rest[0], known, n=1)
        fix = f"Did you mean {close[0]!r}?" if close else "Add its app to INSTALLED_APPS."
        yield _problem(f"{process.source}: this project has no command {rest[0]!r}.", fix)


def _problem(message: str, fix: str) -> Problem:
    return Problem(message, fix, "", "side-process", "with")


def arguments(words: Sequence[str]) -> list[str]:
    """Return the command line; ``manage.py`` and ``python`` mean this project and this interpreter."""
    first, *rest = words
    python = reexec.arguments(working_directory.start().name)[0]
    if PYTHON.fullmatch(first):
        return [python, *rest]
    if os.path.basename(first) == "manage.py":
        return [python, *_script(first), *rest]
    return [find_program(first), *rest]


def _script(named: str) -> list[str]:
    """Return the words that run a command of this project, which may have no manage.py here."""
    if os.path.isfile(named):
        return [named]
    return [sys.argv[0]] if os.path.basename(sys.argv[0]) == "manage.py" else ["-m", "django"]


def environment(name: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: that of the workers, with its name."""
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    return {"PYTHONUNBUFFERED": "1", **kept, **more, VARIABLE: name}
