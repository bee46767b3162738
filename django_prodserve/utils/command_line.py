"""Which processes run our command, and through which entry point. Standard library alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

SCRIPT = "prodserve"
MODULE = "django_prodserve"


def is_ours(words: Sequence[str]) -> bool:
    """Return whether a command line runs prodserve: the script, ``-m``, or ``manage.py prodserve``."""
    return any(word in (SCRIPT, MODULE) or word.endswith(f"/bin/{SCRIPT}") for word in words)


def is_script(program: str) -> bool:
    """Return whether a program is the ``prodserve`` script, which pip puts next to Python."""
    return os.path.basename(program) == SCRIPT


def is_own_entry(program: str) -> bool:
    """Return whether ``sys.argv[0]`` is our own entry point, which does not show where the project is."""
    return os.path.basename(program) == "__main__.py" or is_script(program)


def name(program: str) -> str:
    """Return the command as the operator wrote it, for usage lines."""
    return SCRIPT if is_script(program) else f"python -m {MODULE}"
