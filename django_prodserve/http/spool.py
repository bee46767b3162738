"""Store bytes in memory while they are few, and in an unnamed file beyond that.

Lives in a worker, in the thread that owns the connection. The file is in the temporary directory (TMPDIR).
"""

from __future__ import annotations

import io
import os
import tempfile
from typing import IO

from . import limits
from .exceptions import DiskShortError


class Spool:
    """A file-like object that is written first and read afterwards."""

    __slots__ = ("_checked", "file", "in_memory", "size")

    def __init__(self, in_memory: int) -> None:
        self.in_memory = in_memory
        self.file: IO[bytes] = io.BytesIO()
        self.size = 0
        self._checked = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append; raise DiskShortError instead of filling the disk."""
        self.size += len(data)
        if self.size > self.in_memory and isinstance(self.file, io.BytesIO):
            before, self.file = self.file.getvalue(), open_file()
            self.file.write(before)
        if self.size - self._checked > limits.MIB and not isinstance(self.file, io.BytesIO):
            check_room(self.file.fileno())
            self._checked = self.size
        self.file.write(data)

    def rewound(self) -> IO[bytes]:
        """Return the file, at its start."""
        self.file.seek(0)
        return self.file


def open_file() -> IO[bytes]:
    """Return an unnamed empty file; raise DiskShortError without room or a usable directory."""
    try:
        file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, the connection closes it
    except OSError as error:
        raise DiskShortError(*error.args) from error
    try:
        check_room(file.fileno())
    except DiskShortError:
        file.close()
        raise
    return file


def check_room(descriptor: int) -> None:
    """Raise DiskShortError if the disk of an open file is nearly full."""
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < limits.DISK_RESERVE:
        raise DiskShortError("the disk of the temporary directory is nearly full")
