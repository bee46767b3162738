"""How this command was started, and how to start it again: same command line, original environment.

Runs in the command, before anything is loaded.
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
"""If this is set, startup/prepare.py's steps are done; its value is the command's start (monotonic)."""


OURS = {PREPARED, static_root.SHOWN}


def original_environment() -> dict[str, str]:
    """Return the environment from the start of this process: settings and .env loaders change it later.

    With it, an edited .env takes effect in the next generation.
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
    """Return the command line; ``sys.executable`` resolves links, so it would name one release forever."""
    typed = sys.orig_argv[0]
    interpreter = os.path.join(directory, typed) if os.sep in typed else sys.executable
    return [interpreter, *sys.orig_argv[1:]]


def with_env_file(typed: str | None, environ: Mapping[str, str]) -> None:
    """Replace this process by the same command with the file's values; return if they are already set.

    Under manage.py, settings are already read at this point. ``python -m django_prodserve`` reads the file
    before settings, and a supervisor does so for each generation; then there is nothing to do.
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
    """Replace this process by the same command, which loads the project again and prepares nothing.

    The project may have read data that was created afterwards. ``given`` are variables that the new program
    needs. Return if this process has no command line, or cannot start a program.
    """
    if not _is_command_line():
        return
    stopping = {signal.SIGTERM, signal.SIGINT}
    # PID 1 loses a signal that arrives while there is no handler: block it until there is one.
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)
    try:
        _execute({**_first_environment(), **given, PREPARED: repr(began)})
    except (OSError, IndexError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)


def take_prepared(environ: MutableMapping[str, str]) -> float:
    """Return when the command began that has prepared everything for this one; 0 if there was none."""
    began = float(environ.pop(PREPARED, "0"))
    if began:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    return began


def _is_command_line() -> bool:
    """Return whether this command has a command line; call_command in a shell has none."""
    return command_line.is_ours(sys.orig_argv)


def _execute(environ: Mapping[str, str]) -> None:
    standard_streams.flush()
    outlet.drain()
    start, here = working_directory.start(), os.getcwd()
    os.chdir(start.real)  # the command applies --chdir again
    try:
        command = arguments(start.real)
        os.execve(command[0], command, environ)
    finally:
        os.chdir(here)
