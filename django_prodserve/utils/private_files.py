"""Small files that prodserve keeps between two starts, in a private directory.

Used by the command before the fork, and by the arbiter in its loop.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .private_directory import PRIVATE, bases, is_ours, make_project

STALE = 30 * 86400.0  # seconds; nothing has written a file for so long if its project has gone


def found(folder: str, name: str) -> Iterator[tuple[Path, str]]:
    """Yield path and content of this file in each private directory, best first.

    A directory that others can change is skipped.
    """
    for base in bases():
        with contextlib.suppress(OSError, ValueError):
            if is_ours(base) and is_ours(base / folder):
                path = base / folder / name
                yield path, path.read_text(encoding="utf-8", errors="surrogateescape")


def write(folder: str, name: str, text: str) -> None:
    """Write a file into the best directory that allows it; raise the last OSError if none does.

    This removes the files of projects that no longer exist.
    """
    failure: OSError | None = None
    for base in bases():
        try:
            place = make_project(base, base / folder, mode=PRIVATE)
            _replace(place / name, text)
        except OSError as error:
            failure = error
            continue
        with contextlib.suppress(OSError):
            _prune(place)
        return
    assert failure is not None  # there is always a base
    raise failure


def _replace(path: Path, text: str) -> None:
    """Write a file so that readers never see it half written."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _prune(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another server prunes at the same moment
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
