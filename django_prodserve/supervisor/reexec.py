"""How this command was started, and how to start it once more: as it was typed, in the environment of then.

Lives in the command, before anything is loaded.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

from ..config import env_file
from ..errors import ProdserveError, UsageError
from ..project import static_root
from ..utils import command_line, outlet, standard_streams, working_directory

PREPARED = "_PRODSERVE_PREPARED"
"""The variable that says that startup/prepare.py's steps are done, and when the command began (monotonic)."""


OURS = {PREPARED, static_root.SHOWN}


def original_environment() -> dict[str, str]:
    """Return the environment as it was when this process started: settings and .env loaders change it later.

    With it an edited .env counts in the next generation.
    """
    environ = env_file.without(_first_environment())
    return {name: value for name, value in environ.items() if name not in OURS}


def _first_environment() -> dict[str, str]:
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if b"=" in pair]
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    except OSError:
        return dict(os.environ)


def arguments(directory: str) -> list[str]:
    """Return what was typed; ``sys.executable`` follows links, so it would name one release for ever."""
    typed = sys.orig_argv[0]
    interpreter = os.path.join(directory, typed) if os.sep in typed else sys.executable
    return [interpreter, *sys.orig_argv[1:]]


def with_env_file(typed: str | None, environ: Mapping[str, str]) -> None:
    """Replace this process by the same command with the file's values; return where that has been done.

    Under manage.py settings have been read when this is called. ``python -m django_prodserve`` reads the file
    before settings, and a supervisor does for each generation; then there is nothing to do.
    """
    path = typed or environ.get("PRODSERVE_ENV_FILE")
    if not path or env_file.APPLIED in environ:
        return
    if not _is_command_line():
        raise UsageError(
            "--env-file is for the command line: settings have been read already.", code="env-file"
        )
    fresh = original_environment()
    try:
        env_file.apply(path, fresh)
    except (OSError, ValueError) as error:
        raise env_file.refusal(path, error) from error
    try:
        _execute(fresh)
    except (OSError, IndexError) as error:  # no memory, or Python is embedded in a program
        raise ProdserveError(
            f"--env-file: this program cannot be started again: {error}.",
            "Put its values into the environment before it starts.",
        ) from error


def prepared(began: float, given: Mapping[str, str]) -> None:
    """Replace this process by the same command, which loads the project anew and prepares nothing.

    What was read while it was loaded may have been made since. ``given`` are variables that the new program
    needs. Return where this process was not started by a command line, or cannot start a program.
    """
    if not _is_command_line():
        return
    stopping = {signal.SIGTERM, signal.SIGINT}
    # PID 1 loses a signal that comes while there is no handler: it waits until there is one.
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    try:
        _execute({**_first_environment(), **given, PREPARED: repr(began)})
    except (OSError, IndexError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)


def take_prepared(environ: MutableMapping[str, str]) -> float:
    """Return when the command began that has prepared everything for this one; 0 where there was none."""
    began = float(environ.pop(PREPARED, "0"))
    if began:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    return began


def _is_command_line() -> bool:
    """Say whether somebody typed this command; call_command in a shell is none."""
    return command_line.is_ours(sys.orig_argv)


def _execute(environ: Mapping[str, str]) -> None:
    standard_streams.flush()
    outlet.drain()
    start, here = working_directory.start(), os.getcwd()
    os.chdir(start.real)  # --chdir is said once more
    try:
        command = arguments(start.real)
        os.execve(command[0], command, environ)
    finally:
        os.chdir(here)
