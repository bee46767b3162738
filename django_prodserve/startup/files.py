"""Files that options name, checked before anything starts. Runs in the command's process."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import Problem, UsageError

if TYPE_CHECKING:
    from ..plan.plan import Plan


def check_files(plan: Plan) -> None:
    """Raise one UsageError that lists every file that cannot be used."""
    problems = [*certificate_problems(plan.certfile.value, plan.keyfile.value)]
    problems += log_problems(plan.access_log.value, plan.access_log.source, "access-log")
    if log := plan.gunicorn.get("errorlog"):
        problems += log_problems(str(log.value), log.source, "logs")
    if problems:
        raise UsageError.of(problems)


def certificate_problems(certfile: str | None, keyfile: str | None) -> Iterator[Problem]:
    """Yield what is wrong with the certificate and its key: load them once."""
    if certfile is None:
        return
    readable = True
    for flag, file in (("--certfile", certfile), ("--keyfile", keyfile)):
        if file and (why := _why_unreadable(file)):
            readable = False
            fix = f"Name a file that exists and that this user may read: {flag} PATH"
            yield Problem(f"{flag} {file} cannot be read: {why}.", fix, "", "tls", flag[2:])
    if not readable:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        pair = f"{certfile} and {keyfile}" if keyfile else certfile
        fix = "Name a certificate in PEM format, and the key that belongs to it."
        yield Problem(f"{pair} cannot be used for TLS: {error.reason or error}.", fix, "", "tls", "certfile")


def _why_unreadable(path: str) -> str:
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def log_problems(path: str | None, source: str, topic: str) -> Iterator[Problem]:
    """Yield why a log cannot be written."""
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
    yield Problem(f"{source} {path} cannot be written: {why}.", fix, "", "file", topic)
