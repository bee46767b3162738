"""Whether output is coloured, and how wide it may be: one rule for every command. Standard library alone.

``--no-color`` and ``--force-color`` come first, then NO_COLOR, then FORCE_COLOR (https://no-color.org,
https://force-color.org), then whether a terminal reads it.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import Any

STYLES = {
    **{"error": "1;31", "warning": "33", "ok": "32", "quiet": "2", "bold": "1", "note": "1"},
    **{"bad": "1;31", "warn": "33"},
}


class _Wanted:
    flag: bool | None = None


def choose(*, no_color: bool = False, force_color: bool = False) -> None:
    """Store the choice of the flags on the command line."""
    _Wanted.flag = False if no_color else True if force_color else None


def colours(stream: Any) -> bool:
    """Return whether text written there is coloured."""
    if _Wanted.flag is not None:
        return _Wanted.flag
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, *, on: bool) -> str:
    """Return a text in a style of STYLES, or unchanged."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if on and style and text else text


def is_terminal(stream: Any) -> bool:
    """Return whether a person reads it; a closed stream has no reader."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def width(stream: Any) -> int:
    """Return the columns of the terminal that shows it; 0 if lines need no wrapping."""
    return max(40, shutil.get_terminal_size().columns) if is_terminal(stream) else 0


def wrapped(text: str, columns: int, indent: str, *, whole_words: bool = True) -> list[str]:
    """Return a line in lines that fit, each but the first behind ``indent``; 0 columns wrap nothing.

    A word that is longer than a line, such as a path, stays whole or is broken.
    """
    if not columns or not text:
        return [text]
    return textwrap.wrap(
        text, columns, subsequent_indent=indent, break_long_words=not whole_words, break_on_hyphens=False
    )
