"""Programs next to this interpreter, and whether it can start a second one: frozen Pythons cannot."""

from __future__ import annotations

import os
import re
import shutil
import sys


def why_no_supervisor() -> tuple[str, bool]:
    """Return why no interpreter can be started from here, mostly empty; and whether that is certain.

    Inspects and starts nothing: a program that is not an interpreter would start another server.
    """
    if getattr(sys, "frozen", False):
        return "this program is frozen: it has no Python interpreter to start", True
    if not sys.executable or not sys.orig_argv:
        return "Python is embedded here and names no interpreter (sys.executable is empty)", True
    if not os.path.isfile(sys.executable) or not os.access(sys.executable, os.X_OK):
        return f"{sys.executable} (sys.executable) cannot be executed", True
    if not INTERPRETER.match(os.path.basename(sys.executable)):
        return f"{sys.executable} (sys.executable) does not look like a Python interpreter", False
    return "", False


INTERPRETER = re.compile(r"\.?(python|pypy|graalpy)", re.IGNORECASE)


def find_program(name: str) -> str:
    """Return the path of a program: next to the interpreter first, for an environment that is not active."""
    if os.sep in name:
        return name
    here = os.path.join(os.path.dirname(sys.executable), name)
    return here if is_program(here) else shutil.which(name) or name


def is_program(path: str) -> bool:
    """Return whether this user may run a file."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
