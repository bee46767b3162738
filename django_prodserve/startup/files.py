"""Files that options name, checked before anything starts. Runs in the command's process."""

from __future__ import annotations

import os
import ssl

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


def check_certificate(certfile: str | None, keyfile: str | None) -> None:
    """Load the certificate once, so that a wrong one is reported before anything starts."""
    if certfile is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        pair = f"{certfile} and {keyfile}" if keyfile else certfile
        raise UsageError(
            f"{pair} cannot be used for TLS: {error.reason or error}.",
            "Name a certificate in PEM format, and the key that belongs to it.",
            code="tls",
            topic="certfile",
        ) from error
    except OSError as error:
        named = (("--certfile", certfile), ("--keyfile", keyfile))
        flag, file = next(
            (candidate for candidate in named if candidate[1] and not os.access(candidate[1], os.R_OK)),
            ("--certfile", certfile),
        )
        raise UsageError(
            f"{flag} {file} cannot be read: {error.strerror}.",
            f"Name a file that exists and that this user may read: {flag} PATH",
            code="tls",
            topic=flag.removeprefix("--"),
        ) from error
