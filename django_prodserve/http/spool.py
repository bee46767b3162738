"""Store bytes in memory while they are few, and in an unnamed file beyond that.

Lives in a worker, in the thread that owns the connection. The file is in the temporary directory (TMPDIR).
Its file system may be small, full, read-only, or memory: then the request is refused.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from typing import IO

from ..utils.units import format_size
from . import limits
from .exceptions import DiskShortError

COPIES = 2
"""Django writes an upload to a file of its own while ours still exists, or reads it into memory."""


class FileSpace:
    """The space that files in the temporary directory may take; a worker has one."""

    def __init__(self) -> None:
        self.memory_left: Callable[[], int] | None = None
        """Bytes that files may still take, if the temporary directory is memory."""
        self.kind = ""
        self._before = 0

    def limit_memory(self, left: Callable[[], int], kind: str) -> None:
        """Count files against the memory from now on; ``kind`` is the reason, such as tmpfs."""
        self.memory_left, self.kind = left, kind
        try:
            disk = os.statvfs(tempfile.gettempdir())
        except OSError:  # no directory can be written: the first body is refused, with a line in the log
            return
        self._before = _used(disk)

    def check(self, descriptor: int, written: int = 0, coming: int = 0) -> None:
        """Raise DiskShortError if a file may not grow: ``written`` bytes are in it, ``coming`` will be."""
        disk = os.fstatvfs(descriptor)
        whole, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        reserve = min(limits.DISK_RESERVE, int(whole * limits.DISK_RESERVE_SHARE))
        if free - coming < reserve:  # never on a file system without a size, such as ramfs
            wants = f", a body of {format_size(coming)} is coming" if coming else ""
            raise DiskShortError(
                f"TMPDIR has {format_size(free)} of {format_size(whole)} free{wants}, "
                f"and {format_size(reserve)} stay free"
            )
        if self.memory_left is None:
            return
        # Of all workers' bodies together: each may need a copy.
        waiting = max(written, _used(disk) - self._before)
        left = self.memory_left()
        if left < waiting + COPIES * coming:
            wants = f"a body of {format_size(coming)} may need twice its size"
            if not coming:
                wants = f"Django may copy {format_size(waiting)} of bodies"
            raise DiskShortError(
                f"TMPDIR is memory ({self.kind}) with {format_size(left)} left, and {wants}. "
                "Set --max-body, or TMPDIR to a disk"
            )


SPACE = FileSpace()


class Spool:
    """A file-like object that is written first and read afterwards."""

    __slots__ = ("_checked", "expected", "file", "in_memory", "size")

    def __init__(self, in_memory: int, expected: int = 0) -> None:
        self.in_memory = in_memory
        self.expected = expected
        """The size that the client has announced; 0 if it is unknown."""
        self.file: IO[bytes] = io.BytesIO()
        self.size = 0
        self._checked = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append; raise DiskShortError instead of filling the disk."""
        self.size += len(data)
        if self.size <= self.in_memory or not isinstance(self.file, io.BytesIO):
            self._append(data)
            return
        before, self.file = self.file.getvalue(), open_file(max(self.size, self.expected))
        self._append(before)
        self._append(data)

    def _append(self, data: bytes | memoryview) -> None:
        if isinstance(self.file, io.BytesIO):
            self.file.write(data)
            return
        try:
            if self.size - self._checked > limits.MIB:
                SPACE.check(self.file.fileno(), written=self.size)
                self._checked = self.size
            view = memoryview(data)
            while view:  # a file system that becomes full takes a part
                view = view[self.file.write(view) :]
        except DiskShortError:
            self.file.close()
            raise
        except OSError as error:  # a quota, a limit of the process, a disk that broke
            self.file.close()
            raise DiskShortError(f"TMPDIR takes no more bytes: {error.strerror}") from error

    def rewound(self) -> IO[bytes]:
        """Return the file, at its start."""
        self.file.seek(0)
        return self.file


def open_file(coming: int = 0) -> IO[bytes]:
    """Return an unnamed empty file; raise DiskShortError without room or a usable directory."""
    try:
        file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, the connection closes it
    except OSError as error:
        raise DiskShortError(f"TMPDIR takes no file: {error.strerror}") from error
    try:
        SPACE.check(file.fileno(), coming=coming)
    except DiskShortError:
        file.close()
        raise
    return file


def _used(disk: os.statvfs_result) -> int:
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
