"""Standard output and standard error of a server process: whatever they are, it starts and serves.

Runs in the command's process, main thread, from the import of the package on. The objects in ``sys`` stay the
same ones, because handlers of the project refer to them by then. Their data leaves through outlets, which
wait for no reader and count lost lines. Commands that only print keep ordinary streams: their reader wants
each line.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import ProdserveError
from .outlet import NonBlockingWriter, console

NAMES = {1: "stdout", 2: "stderr"}
TITLES = {1: "Standard output", 2: "Standard error"}
FOREIGN: set[int] = set()
"""Numbers of standard streams that were closed at the start, and that a file of this process now has."""
_REPLACED: list[Any] = []
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EBADF}


def complete() -> None:
    """Open closed streams: a socket must not get the number of a standard stream."""
    for number in (0, 1, 2):
        name = NAMES.get(number, "stdin")
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        else:
            if getattr(sys, f"__{name}__") is None:  # so Python reports that it was closed
                FOREIGN.add(number)
        if number and getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY) if number in FOREIGN else number
            writer = _writer(console(descriptor, TITLES[number]), descriptor, f"<{name}>")
            setattr(sys, name, io.TextIOWrapper(writer, "utf-8", "backslashreplace", line_buffering=True))


def encode_anything() -> None:
    """Make streams accept every character: one that the encoding lacks is written as an escape."""
    for name in NAMES.values():
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
            with suppress(OSError, ValueError):  # its buffered data cannot be written now
                stream.reconfigure(errors="backslashreplace")


def shield() -> None:
    """Let no write stop or block this process. Changes nothing when called again."""
    if signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL and _in_main_thread():
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    complete()
    for number, name in NAMES.items():
        for stream in (getattr(sys, name), getattr(sys, f"__{name}__")):
            # Another class belongs to code that captures the output: that code is responsible for it.
            if type(stream) is io.TextIOWrapper:
                with suppress(OSError, ValueError):  # it was detached or closed
                    if stream.fileno() == number and not isinstance(_raw(stream), _Shielded):
                        _divert(stream, number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _raw(stream: io.TextIOWrapper) -> Any:
    return getattr(stream.buffer, "raw", None)


def _divert(stream: io.TextIOWrapper, number: int) -> None:
    outlet = console(number, TITLES[number])
    outlet.put(_withdraw(stream, number))
    _REPLACED.append(stream.buffer)  # freed, it might close the descriptor
    stream.__init__(  # type: ignore[misc]  # the same object: others hold it
        _writer(outlet, number, str(stream.name)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _writer(outlet: NonBlockingWriter, number: int, name: str) -> io.BufferedWriter:
    return io.BufferedWriter(_Shielded(outlet, number, name))


def _withdraw(stream: io.TextIOWrapper, number: int) -> bytes:
    """Return the data in a stream's buffer: writing it could block forever, or fail."""
    if not hasattr(os, "memfd_create"):
        with suppress(OSError, ValueError):
            stream.flush()
        return b""
    kept, memory = os.dup(number), os.memfd_create("prodserve-output")
    try:
        os.dup2(memory, number)
        stream.flush()
    finally:
        os.dup2(kept, number)
        os.close(kept)
        size = os.fstat(memory).st_size
        left = os.pread(memory, size, 0)
        os.close(memory)
    return left


class _Shielded(io.RawIOBase):
    """A file whose writes always succeed immediately."""

    def __init__(self, outlet: NonBlockingWriter, number: int, name: str) -> None:
        self._outlet, self._number, self.name, self.mode = outlet, number, name, "wb"

    def write(self, data: Any) -> int:
        """Pass the data to the outlet, which follows a descriptor that was moved."""
        written = bytes(data)
        self._outlet.follow()
        if written:
            self._outlet.put(written)
        return len(written)

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True


def flush() -> None:
    """Write Python's buffers, as far as that is possible now."""
    for name in NAMES.values():
        with suppress(OSError, ValueError, AttributeError):
            getattr(sys, name).flush()


@contextmanager
def for_a_reader() -> Iterator[None]:
    """Run a command that prints: it ends quietly when its reader has gone, and reports a full disk.

    Its exit code without a reader is that of SIGPIPE, as for every other program in front of ``head``.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_broken, NAMES)):
            _discard()
            raise SystemExit(128 + signal.SIGPIPE) from None
        if isinstance(error, BrokenPipeError) or not is_of_the_output(error):
            raise
        _discard()
        raise ProdserveError(f"Standard output cannot be written: {error.strerror}.") from error


def is_of_the_output(error: BaseException) -> bool:
    """Return whether an error is one that ``for_a_reader`` reports."""
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    return isinstance(error, BrokenPipeError) or error.errno in UNWRITABLE


def _is_broken(number: int) -> bool:
    poller = select.poll()
    poller.register(number, select.POLLOUT)
    return any(events & select.POLLERR for _, events in poller.poll(0))


def _discard() -> None:
    """Discard Python's last flush: it would report an error again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in NAMES:
        if number == 1 or _is_broken(number):
            os.dup2(nowhere, number)
    os.close(nowhere)
