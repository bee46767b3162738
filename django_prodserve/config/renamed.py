"""Options that had other names before the first release: an error for the old name shows the current one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

RENAMED = {
    "keeper": "supervisor",
    "manage": "management_bind",
    "ready": "readiness_checks",
    "health": "health_paths",
    "slow": "slow_request",
    "log_slow": "access_log_min_duration",
    "log_sample": "access_log_sample",
    "collect": "private_static",
}
"""The current name of an option, by its old name."""


def renamed_flag(flag: str) -> str:
    """Return the current flag for an old one such as ``--manage`` or ``--no-keeper``; else nothing."""
    prefix = "--no-" if flag.startswith("--no-") else "--"
    name = RENAMED.get(flag.removeprefix(prefix).replace("-", "_"), "")
    return prefix + name.replace("_", "-") if name else ""


def renamed_variable(variable: str) -> str:
    """Return the current variable for an old one such as ``PRODSERVE_MANAGE``; else nothing."""
    name = RENAMED.get(variable.removeprefix("PRODSERVE_").lower(), "")
    return "PRODSERVE_" + name.upper() if name else ""


def renamed_key(key: object) -> str:
    """Return the current key for an old key of ``PRODSERVE``; else nothing."""
    return RENAMED.get(str(key).lower(), "").upper()


def hint(word: str, known: Iterable[str], *, now: str) -> str:
    """Return the fix for an unknown word: its current name, or the most similar known one."""
    if now:
        return f"It is called {now} now."
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {close[0]}?" if close else "prodserve --help lists all options."
