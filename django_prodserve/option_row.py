"""How an option is declared. Standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any


def option(
    default: Any,
    parse: Callable[[Any], Any],
    help: str,
    *,
    metavar: str = "",
    why: str = "",
    gunicorn: str = "",
    short: str = "",
) -> Any:
    """Declare one option. ``why`` defends the default; ``gunicorn`` is the name of its setting there."""
    metadata = {
        "parse": parse,
        "help": help,
        "metavar": metavar,
        "why": why,
        "gunicorn": gunicorn,
        "short": short,
    }
    return field(default=default, metadata=metadata)
