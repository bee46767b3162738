"""Turn an exception of the project's own code into one message: the reason once, and the line to look at."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback

from .errors import ProdserveError

_FOREIGN = tuple(
    {
        os.path.realpath(path) + os.sep
        for path in (
            *site.getsitepackages(),
            *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            os.path.dirname(__file__),
        )
    }
)


def failure(what: str, error: BaseException) -> ProdserveError:
    """Return ``what`` with the error's reason and the last line of the project's own that led to it."""
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, SyntaxError):
        reason = error.msg
    name = type(error).__name__
    return ProdserveError(f"{what}: {name}: {reason}" if reason else f"{what}: {name}", project_line(error))


def project_line(error: BaseException) -> str:
    """Return ``file, line N: code`` of the project's own; the innermost line of all where none is."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{short(error.filename)}, line {error.lineno}: {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if is_own(frame.filename)]
    if not own:
        return ""
    last = own[-1]
    return f"{short(last.filename)}, line {last.lineno}: {last.line or ''}".rstrip(": ")


def is_own(filename: str) -> bool:
    """Say whether a file is the project's, and neither Python's, a package's nor ours."""
    if filename.startswith(("<", *_FOREIGN)):  # resolving each of a thousand files takes 15 ms
        return False
    return not os.path.realpath(filename).startswith(_FOREIGN)


def short(filename: str) -> str:
    """Return a path as seen from here, where it lies below."""
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
