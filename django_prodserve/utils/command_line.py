"""Which processes run our command, and by which entry it was started. Standard library alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

SCRIPT = "prodserve"
MODULE = "django_prodserve"


def is_ours(words: Sequence[str]) -> bool:
    """Say whether a command line is one of ours: the script, ``-m``, or ``manage.py prodserve``."""
    return any(word in (SCRIPT, MODULE) or word.endswith(f"/bin/{SCRIPT}") for word in words)


def is_script(program: str) -> bool:
    """Say whether a program is the ``prodserve`` script, which pip puts beside Python."""
    return os.path.basename(program) == SCRIPT


def is_own_entry(program: str) -> bool:
    """Say whether ``sys.argv[0]`` is an entry of ours, which says nothing of where the project is."""
    return os.path.basename(program) == "__main__.py" or is_script(program)


def name(program: str) -> str:
    """Return how the command was typed, for usage lines."""
    return SCRIPT if is_script(program) else f"python -m {MODULE}"
