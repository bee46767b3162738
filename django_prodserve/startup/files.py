"""Files that options name, checked before anything starts. Runs in the command's process."""

from __future__ import annotations

import os

from ..errors import UsageError


def check_access_log(path: str | None, source: str) -> None:
    """Raise UsageError if the access log cannot be written."""
    if path is None or path == "-":
        return
    directory = os.path.dirname(os.path.abspath(path))
    fix = "Name a file that this user may write, or - for standard output."
    if not os.path.isdir(directory):
        why, fix = (
            f"the directory {directory} does not exist",
            f"mkdir -p {directory}, or - for standard output",
        )
    elif os.path.isdir(path):
        why = "it is a directory"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        why = (
            "this user may not write it"
            if os.path.exists(path)
            else f"this user may not write to {directory}"
        )
    else:
        return
    raise UsageError(f"{source} {path} cannot be written: {why}.", fix, code="file", topic="access-log")
