"""The file that keeps what was learned about a project (learned.py), from one deployment to the next.

It belongs to the settings module and to the directory by its lasting name: a ``current`` link, not the
present release. New code of the same project starts with it. Unlike the footprint, it may be of older code.

Read by the command before it plans; written by the arbiter, and by ``prodserve tune``.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from ..utils import private_files, working_directory
from ..utils.private_directory import is_writable
from .learned import Kept, Learned, TrafficSpan, from_text, to_text

FOLDER = "learned"
UNWRITABLE = "no private directory can be written; set XDG_CACHE_HOME to a directory for it"


def read(now: float | None = None) -> Kept:
    """Return what was learned; ``Kept.problem`` is why the file cannot be used."""
    for path, text in private_files.found(FOLDER, _name()):
        kept = from_text(text, time.time() if now is None else now)
        return replace(kept, problem=f"{path} {kept.problem}") if kept.problem else kept
    return Kept() if is_writable() else Kept(problem=UNWRITABLE)


def write(learned: Learned | None, spans: Sequence[TrafficSpan] | None = None) -> None:
    """Write what was learned; without ``spans`` the traffic of the last day is kept. May raise OSError.

    ``prodserve tune`` writes its result so: ``write(Learned(source="tune", ...))``.
    """
    private_files.write(FOLDER, _name(), to_text(learned, read().spans if spans is None else spans))


def _name() -> str:
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    key = f"{module}\0{working_directory.here().name}".encode("utf-8", "surrogateescape")
    return f"{hashlib.blake2b(key, digest_size=8).hexdigest()}.json"
