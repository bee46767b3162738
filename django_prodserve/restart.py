"""How this command was started, and how to start it once more: as it was typed, in the environment of then.

Lives in the command, before anything is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from . import env_file, streams, working_directory
from .errors import ProdserveError


def original_environment() -> dict[str, str]:
    """Return the environment as it was when this process started: settings and .env loaders change it later.

    With it an edited .env counts in the next generation.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if b"=" in pair]
        environ = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    except OSError:
        environ = dict(os.environ)
    return env_file.without(environ)


def arguments(directory: str) -> list[str]:
    """Return what was typed; ``sys.executable`` follows links, so it would name one release for ever."""
    typed = sys.orig_argv[0]
    interpreter = os.path.join(directory, typed) if os.sep in typed else sys.executable
    return [interpreter, *sys.orig_argv[1:]]


def with_env_file(typed: str | None, environ: Mapping[str, str]) -> None:
    """Replace this process by the same command with the file's values; return where that has been done.

    Under manage.py settings have been read when this is called. ``python -m django_prodserve`` reads the file
    before settings, and a keeper does for each generation; then there is nothing to do.
    """
    path = typed or environ.get("PRODSERVE_ENV_FILE")
    if not path or env_file.APPLIED in environ:
        return
    if not {"prodserve", "django_prodserve"} & set(sys.orig_argv):  # such as call_command in a shell
        raise ProdserveError("--env-file is for the command line: settings have been read already.")
    fresh = original_environment()
    try:
        env_file.apply(path, fresh)
    except (OSError, ValueError) as error:
        raise ProdserveError(env_file.complaint(path, error)) from error
    streams.flush()
    start = working_directory.start()
    os.chdir(start.real)  # --chdir is said once more
    command = arguments(start.real)
    os.execve(command[0], command, fresh)
