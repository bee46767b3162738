"""Find the files that the kernel may send: those whose ``read()`` provably returns their descriptor's bytes.

Lives in a worker, in the thread that runs the request. Objects that decrypt, decompress or truncate have a
``fileno()``, too, that of the file they read. So the type counts, and that no method has been replaced.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from tempfile import _TemporaryFileWrapper
from types import FunctionType
from typing import Any

from django.core.files.utils import FileProxyMixin
from whitenoise.responders import SlicedFile

DEEPEST = 5
"""Maximum nesting of files: an upload's field, Django's file, a temporary one, and Python's."""
READS = {"read", "readall", "readinto", "seek", "tell", "fileno"}
"""Methods that code may have replaced in a single object."""
BUFFERED = io.BufferedReader, io.BufferedRandom


def find(file: Any) -> tuple[int, int, int] | None:
    """Return the descriptor, the position of ``read()``, and the bytes left; None if Python must read."""
    most = sys.maxsize
    for _ in range(DEEPEST):
        kind: Any = type(file)
        if kind in BUFFERED or kind is io.FileIO:
            return _measured(file, kind, most)
        if kind is Slice:
            file, most = file.fileobj, min(most, file.remaining)
        elif _delegates(kind) or (kind is _TemporaryFileWrapper and _is_as_made(file)):
            file = file.file
        else:
            return None
    return None


def _measured(file: Any, kind: Any, most: int) -> tuple[int, int, int] | None:
    """Call the types' own methods: attributes that a caller set do not describe the descriptor."""
    try:
        raw = file if kind is io.FileIO else file.raw
        if type(raw) is not io.FileIO or not raw.readable() or READS & {*vars(raw), *vars(file)}:
            return None
        descriptor = io.FileIO.fileno(raw)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if kind is io.BufferedRandom:
            file.flush()  # the reader must get the written bytes, too
            status = os.fstat(descriptor)
        offset = kind.tell(file)  # the reader's position, not that of its read-ahead buffer
        return descriptor, offset, min(most, status.st_size - offset)
    except (OSError, ValueError):  # closed, or on a full disk
        return None


def _delegates(kind: Any) -> bool:
    """Return whether ``read`` of this type is that of its ``file``: Django's files, and their subclasses."""
    found = next((vars(base)["read"] for base in kind.__mro__ if "read" in vars(base)), None)
    return found is vars(FileProxyMixin)["read"] and kind.__getattribute__ is object.__getattribute__


def _is_as_made(wrapper: Any) -> bool:
    """Return whether a temporary file has its own ``read``; it stores each method used in the object."""
    kept = vars(wrapper).get("read")
    if kept is None:
        return True
    made = type(kept) is FunctionType and kept.__code__ in type(wrapper).__getattr__.__code__.co_consts
    return made and vars(kept).get("__wrapped__") == wrapper.file.read


class Slice(SlicedFile):  # type: ignore[misc]  # WhiteNoise has no types
    """A part of a file that the kernel can send: its descriptor's position is the first byte of the part.

    Gunicorn sends Content-Length bytes from there; ``socket.sendfile`` seeks afterwards.
    """

    def fileno(self) -> int:
        return int(self.fileobj.fileno())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self.fileobj.seek(offset, whence))
