"""Receive request bodies. No thread runs a request before its body is complete.

Lives in a worker, in the thread that owns the connection.
"""

from __future__ import annotations

import io
import re
from typing import IO, TYPE_CHECKING

from gunicorn.http import body, message
from gunicorn.http.errors import InvalidChunkSize, NoMoreData
from gunicorn.http.unreader import Unreader

from . import limits
from .spool import Spool

if TYPE_CHECKING:
    from .parser import RequestHead

SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;|\r\n)")
"""The size of a chunk; no real chunk has a size of 16 digits."""


class FixedLengthReceiver:
    """Receives a body of known length."""

    __slots__ = ("left", "spool")

    def __init__(self, length: int) -> None:
        self.left = length
        self.spool = Spool(limits.MAX_BODY_IN_MEMORY, expected=length)

    def feed(self, data: bytes) -> bytes | None:
        """Add the next bytes; return the bytes behind the body, or None if it is incomplete."""
        if len(data) > self.left:
            data, rest = data[: self.left], data[self.left :]
        else:
            rest = b""
        self.left -= len(data)
        self.spool.write(data)
        return None if self.left else rest

    @property
    def size(self) -> int:
        """Return the number of bytes received."""
        return self.spool.size

    def content(self) -> tuple[IO[bytes], int]:
        """Return the complete body and its length."""
        return self.spool.rewound(), self.spool.size


class ChunkedReceiver:
    """Receives a chunked body. A small scanner finds its end; Gunicorn's own reader decodes it.

    If the framing is wrong, the scanner finds an end, too, and the reader rejects the body.
    """

    __slots__ = ("_in_data", "_line", "_trailers", "head", "size", "spool")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.spool = Spool(limits.MAX_BODY_IN_MEMORY)
        self._in_data = 0  # bytes missing of this chunk, including its CRLF
        self._line = b""  # the received part of a line
        self._trailers = False
        self.size = 0
        """Bytes of the body announced so far, without their framing."""

    def feed(self, data: bytes) -> bytes | None:
        """Add the next bytes; return the bytes behind the body, or None if it is incomplete."""
        at = 0
        while at < len(data):
            if self._in_data:
                step = min(self._in_data, len(data) - at)
                self._in_data -= step
                at += step
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                at = len(data)
                if len(self._line) > message.MAX_HEADERS:
                    break
                continue
            line, self._line = self._line + data[at : end + 1], b""
            at = end + 1
            if self._is_last(line):
                break
        else:
            self.spool.write(data)
            return None
        self.spool.write(data[:at])
        return data[at:]

    def _is_last(self, line: bytes) -> bool:
        """Parse a line of the framing; return whether it ends the body."""
        if not line.endswith(b"\r\n"):
            return True
        if self._trailers:
            return line == b"\r\n" or len(line) > self.head.limit_request_field_size
        digits = SIZE.match(line)
        if digits is None:
            return True
        size = int(digits[1], 16)
        self._trailers = size == 0
        self._in_data = size + 2 if size else 0
        self.size += size
        return False

    def content(self) -> tuple[IO[bytes], int]:
        """Return the decoded body and its length; raise the errors of Gunicorn's reader."""
        decoded = Spool(limits.MAX_BODY_IN_MEMORY)
        reader = body.ChunkedReader(self.head, _FileSource(self.spool.rewound()))
        try:
            while piece := reader.read(limits.RECEIVE_BYTES):
                decoded.write(piece)
        except NoMoreData:
            raise InvalidChunkSize(b"the framing of the body is wrong") from None
        self.spool.file.close()
        return decoded.rewound(), decoded.size


class _FileSource(Unreader):  # type: ignore[misc]  # Gunicorn has no types
    """Lets Gunicorn's reader read a complete body."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file

    def chunk(self, size_hint: int | None = None) -> bytes:
        return self.file.read(min(max(size_hint or 0, io.DEFAULT_BUFFER_SIZE), limits.MIB))
