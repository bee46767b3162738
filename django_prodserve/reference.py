"""Every option as text, for ``--help`` and the README. Standard library alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Any

from .options import env_name, flag_name, rows


def reference() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield flag, variable, settings key, default and help of every option, for docs."""
    for row in rows():
        yield (
            flag_name(row.name),
            env_name(row.name),
            row.name.upper(),
            _default_text(row),
            row.metadata["help"],
        )


def _default_text(row: Field[Any]) -> str:
    if row.default is MISSING or row.default is None:
        return "computed" if row.name in COMPUTED else "none"
    if isinstance(row.default, bool):
        return "on" if row.default else "off"
    if isinstance(row.default, tuple):
        return ", ".join(row.default) or "none"
    if row.name == "umask":
        return f"{row.default:04o}"
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


COMPUTED = {
    "bind",
    "workers",
    "threads",
    "cpus",
    "memory",
    "max_requests_jitter",
    "preload",
    "warmup",
    "trusted_hops",
    "keeper",
}
"""Options whose default is worked out by the plan."""
