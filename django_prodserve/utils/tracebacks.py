"""Turn an exception from project code into one message: the reason once, and the line at fault."""

from __future__ import annotations

import errno
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from ..errors import ProdserveError
from .setting_faults import blamed


def _directories(*paths: str | None) -> tuple[str, ...]:
    return tuple({os.path.realpath(path) + os.sep for path in paths if path})  # embedded, some are unknown


_SITE = (
    *getattr(site, "getsitepackages", list)(),
    *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
)
_PACKAGES = _directories(*_SITE)
_STANDARD = _directories(*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")))
_FOREIGN = (*_PACKAGES, *_STANDARD, *_directories(os.path.dirname(os.path.dirname(__file__))))


def project_error(what: str, error: BaseException, code: str = "project") -> ProdserveError:
    """Return ``what`` with the error's reason and the line of the project, or the setting, that led to it."""
    reason, name = reason_of(error), type(error).__name__
    message = f"{what}: {name}: {reason}" if reason else f"{what}: {name}"
    return ProdserveError(message, fix_of(error), where=place(error), code=code)


def fix_of(error: BaseException) -> str:
    """Return what the operator can do about an error of the project; empty if only the traceback helps."""
    behind = _bottom(error)
    if isinstance(behind, ModuleNotFoundError) and behind.name:
        package = behind.name.partition(".")[0]
        if package in sys.modules:
            return f"Correct the name: {package} has no module {behind.name}."
        return f"Install {package} for {sys.executable}, or correct the name."
    if isinstance(behind, OSError) and behind.errno == errno.ENOSPC:
        return "Free space on that disk, or name a directory on another one."
    if variable := _missing_variable(behind):
        return f"Set the environment variable {variable}, for example in the file of --env-file."
    if project_line(error):
        return "Correct that line; --traceback shows how it was reached."
    return "Correct the setting." if blamed(error, short) else ""


def _missing_variable(error: BaseException) -> str:
    """Return the variable that ``os.environ`` does not have; empty for any other error."""
    frames = traceback.extract_tb(error.__traceback__)
    last = (frames[-1].filename, frames[-1].name) if frames else ("", "")
    is_environ = last in ((os.__file__, "__getitem__"), ("<frozen os>", "__getitem__"))
    return str(error.args[0]) if isinstance(error, KeyError) and is_environ else ""


def _bottom(error: BaseException) -> BaseException:
    """Return the root cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, and of the message of its root cause."""
    reason = error.msg if isinstance(error, SyntaxError) else str(error).strip().partition("\n")[0]
    bottom = _bottom(error)
    if bottom is error:
        return reason
    more = str(bottom).strip().partition("\n")[0]
    return reason if not more or more in reason else f"{reason} ({type(bottom).__name__}: {more})"


@contextmanager
def during(what: str) -> Iterator[None]:
    """Report which step an exception in this block has stopped; leave exceptions that are reports already."""
    try:
        yield
    except (ProdserveError, CommandError):
        raise
    except Exception as error:  # a project may raise any exception
        raise project_error(what, error) from error


def cannot_start(error: Exception) -> ProdserveError:
    """Return the report of an unexplained error; Gunicorn is named only if Gunicorn raised it."""
    innermost = _innermost(error)
    if innermost and not project_line(error) and _package(innermost.filename) == "gunicorn":
        reason = reason_of(error).removeprefix("Error: ") or type(error).__name__
        return ProdserveError(f"Gunicorn cannot start: {reason}")
    return project_error("The server cannot start", error)


def place(error: BaseException) -> str:
    """Return the location: a line of the project, else a setting, else the innermost line of a package."""
    if found := project_line(error) or blamed(error, short):
        return found
    last = _innermost(error)
    if last is None:
        return ""
    where = f"{short(last.filename)}, line {last.lineno}: {last.line or ''}".rstrip(": ")
    return f"{where} (--traceback shows the whole traceback)"


def _innermost(error: BaseException) -> traceback.FrameSummary | None:
    """Return the innermost frame that is not of Python's own library."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if _package(frame.filename)), None)


def _package(filename: str) -> str:
    """Return the package that a file belongs to; empty for Python's own library."""
    path = os.path.realpath(filename)
    for directory in _PACKAGES:
        if path.startswith(directory):
            return path[len(directory) :].partition(os.sep)[0]
    return "" if path.startswith(_STANDARD) or filename.startswith("<") else os.path.dirname(path)


def project_line(error: BaseException) -> str:
    """Return ``file, line N: code`` of the project, also of the error's cause; empty without one."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, SyntaxError) and behind.filename:
            return f"{short(behind.filename)}, line {behind.lineno}: {(behind.text or '').strip()}"
        own = [frame for frame in traceback.extract_tb(behind.__traceback__) if is_own(frame.filename)]
        if own:
            last = own[-1]
            return f"{short(last.filename)}, line {last.lineno}: {last.line or ''}".rstrip(": ")
        behind = behind.__cause__ or behind.__context__
    return ""


def app_at_fault(error: BaseException) -> str:
    """Return the app of INSTALLED_APPS that raised an error while Django loaded it; else nothing."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        code, known = step.tb_frame.f_code, step.tb_frame.f_locals
        if code.co_name == "populate" and code.co_filename.endswith(os.path.join("apps", "registry.py")):
            if step.tb_next.tb_frame.f_code.co_name == "create":
                return str(known.get("entry", ""))
            return str(getattr(known.get("app_config"), "name", ""))
        step = step.tb_next
    return ""


def is_own(filename: str) -> bool:
    """Return whether a file is the project's, and neither Python's, a package's nor ours."""
    if filename.startswith(("<", *_FOREIGN)):  # resolving each of a thousand files takes 15 ms
        return False
    return not os.path.realpath(filename).startswith(_FOREIGN)


def short(filename: str) -> str:
    """Return a path relative to the working directory, if it is below it."""
    relative = os.path.relpath(filename)
    return filename if relative.startswith("..") else relative
