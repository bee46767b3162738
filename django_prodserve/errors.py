"""Errors for the operator, each with its fix; the codes that programs read; the exit codes.

Used in every process. Standard library alone. cli/messages.py writes errors as text or as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple, TypeVar

E = TypeVar("E", bound="ProdserveError")


class ExitCode(IntEnum):
    """How the command ends. Scripts and service managers rely on these numbers."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_WORKER = 3
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.DONE: "The action is done, or the server was stopped on request.",
    ExitCode.FAILED: "The project or the machine: an app that cannot be loaded, a port in use, no server; "
    "with `prodserve status` also a server with a problem.",
    ExitCode.USAGE: "Usage error: an action, an option, a variable or a settings key is wrong.",
    ExitCode.NO_WORKER: "No worker could start, so the server gave up.",
    ExitCode.INTERRUPTED: "Ctrl-C ended the command before the server was ready.",
    ExitCode.READER_GONE: "The reader of the output has gone, as in `prodserve status | head -1`.",
    ExitCode.TERMINATED: "SIGTERM ended the command before the server was ready.",
}
"""The meaning of each exit code, for the documentation."""


CODES: Mapping[str, str] = {
    "address-unknown": "The host of an address cannot be resolved.",
    "app-not-loaded": "An app of INSTALLED_APPS cannot be loaded.",
    "bad-address": "A value is not an address, or not one of this machine.",
    "bad-value": "An option, a variable or a settings key has a value that it does not take.",
    "config-file": "The file of --config cannot be used.",
    "certificate": "A certificate or a key cannot be used.",
    "conflict": "Two settings contradict each other.",
    "directory": "The directory of --chdir, or the one that the command runs in, cannot be entered.",
    "env-file": "The file of --env-file cannot be used.",
    "failed": "An error without a specific code.",
    "file": "A file that an option names cannot be read or written.",
    "gunicorn-setting": "A setting in Gunicorn's own words is unknown, refused or wrong.",
    "interrupted": "Ctrl-C ended the command.",
    "local-only": "--local was given where others could reach the server.",
    "no-permission": "This user may not use a port, a path or a server.",
    "no-server": "No server runs for this project, or more than one does.",
    "no-settings": "No settings module was named, and none was found.",
    "not-on-windows": "prodserve runs on Linux and macOS.",
    "port-in-use": "Another process listens on the address.",
    "project": "Code or settings of the project raised an error.",
    "reload-failed": "The new release could not start; the old one keeps serving.",
    "settings-not-loaded": "The settings module cannot be loaded.",
    "side-process": 'The command of a process in PRODSERVE["PROCESSES"] cannot work.',
    "starting": "The running server is starting or stopping.",
    "system-check": "Django's system checks found an error.",
    "unknown-action": "There is no such action.",
    "unknown-key": "PRODSERVE has no such key.",
    "unknown-option": "There is no such option.",
    "unknown-topic": "`prodserve help` has no entry of this name.",
    "unknown-variable": "There is no such PRODSERVE_* variable.",
    "usage": "The command line is not complete, or its parts do not go together.",
}
"""The meaning of each error code; checks have their ids instead (W005). For the documentation."""


class Problem(NamedTuple):
    """One problem."""

    message: str
    fix: str = ""
    """The fix."""
    where: str = ""
    """The location: a file with its line, or a setting."""
    code: str = ""
    """The identifier for programs: a key of CODES, or the id of a check."""
    topic: str = ""
    """The topic in ``prodserve help``, if it differs from the code."""
    check: str = ""
    """The full id of the check that found it, as SILENCED_SYSTEM_CHECKS names it."""

    @property
    def headline(self) -> str:
        """The message for people, with the id of the check."""
        return f"{self.message} ({self.check})" if self.check else self.message

    def __str__(self) -> str:
        return "\n  ".join(filter(None, (self.headline, self.where, self.fix)))


class ProdserveError(Exception):
    """An error the operator can fix; ``hint`` is the fix. The command prints it and exits with its code."""

    exit_code = ExitCode.FAILED
    default_code = "failed"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        where: str = "",
        code: str = "",
        topic: str = "",
        check: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.code = code or self.default_code
        self.topic = topic
        self.check = check
        self.others: tuple[Problem, ...] = ()

    @classmethod
    def of(cls: type[E], problems: Iterable[Problem]) -> E:
        """Return one error that lists every problem."""
        first, *others = problems
        error = cls(
            first.message,
            first.fix,
            where=first.where,
            code=first.code,
            topic=first.topic,
            check=first.check,
        )
        error.others = tuple(others)
        return error

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, most important first."""
        first = Problem(self.message, self.hint, self.where, self.code, self.topic, self.check)
        return (first, *self.others)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Interrupted(ProdserveError):
    """Ctrl-C ended the command."""

    exit_code = ExitCode.INTERRUPTED
    default_code = "interrupted"


class UsageError(ProdserveError):
    """The command line or a setting is wrong."""

    exit_code = ExitCode.USAGE
    default_code = "usage"
