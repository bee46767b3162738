"""Logging handlers that write through outlets: no thread that logs waits for a reader.

Lives in the arbiter and in every worker. See ``utils/outlet.py`` for outlets.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from ..utils.outlet import NonBlockingWriter, console, drain, report_lost

__all__ = ["ConsoleHandler", "FileHandler", "drain", "report_lost"]


class _NonBlockingHandler:
    """A logging handler that writes through an outlet."""

    outlet: NonBlockingWriter | None = None
    is_json = False
    stream: Any

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)  # type: ignore[attr-defined]  # a handler's
        except Exception:  # arguments do not match their message
            self.handleError(record)  # type: ignore[attr-defined]
            return
        self.put(f"{line}\n".encode("utf-8", "backslashreplace"))

    def put(self, data: bytes) -> None:
        """Write complete lines."""
        outlet = self.outlet
        if outlet is not None:
            outlet.put(data)
        else:
            with suppress(OSError, ValueError):  # a stream without a file, because code captures it
                self.stream.write(data.decode())

    def flush(self) -> None:
        """Try again to write the rest."""
        if self.outlet is not None:
            self.outlet.push()


class ConsoleHandler(_NonBlockingHandler, logging.StreamHandler):  # type: ignore[type-arg]  # not generic before 3.11
    """Writes to standard output or standard error."""

    def __init__(self, stream: Any, name: str) -> None:
        super().__init__(stream)
        with suppress(OSError, ValueError, AttributeError):
            self.outlet = console(stream.fileno(), name)


class FileHandler(_NonBlockingHandler, logging.FileHandler):
    """Writes to a file; at SIGUSR1 Gunicorn reopens it."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path)
        assert self.stream is not None
        self.outlet = NonBlockingWriter(self.stream.fileno(), name)

    def _open(self) -> Any:
        stream = super()._open()
        if self.outlet is not None:
            self.outlet.reopen(stream.fileno())
        return stream

    def put(self, data: bytes) -> None:
        """Write complete lines; ``dictConfig`` closes the file if code configures logging again."""
        if self.stream is None:
            with self.lock:  # type: ignore[union-attr]  # a handler has one
                self.stream = self.stream or self._open()
        super().put(data)
