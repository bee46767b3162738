"""The response to one request: Gunicorn's rules for headers and framing, at lower cost.

Lives in a worker, in the thread that runs the request. One send call carries as much as possible.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from gunicorn import SERVER, util
from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName
from gunicorn.http.message import TOKEN_RE

from . import plain_files

if TYPE_CHECKING:
    from .parser import RequestHead

Header = tuple[str, str]
Headers = list[Header]

LENGTH, HOP, ID = -1, -2, -3
MEANT = {"content-length": LENGTH, "x-request-id": ID}
BLANKS = " \t"
NAMES_REMEMBERED, VALUES_REMEMBERED, LONGEST_REMEMBERED = 256, 16, 200


class HeaderCache:
    """Cache of validated header lines; two regular expressions each are most of a response's cost."""

    def __init__(self) -> None:
        self._known: dict[Header, bytes] = {}
        self._kinds: dict[str, int] = {}
        """The meaning of a name for the server, and how many of its values are cached."""
        self.known = self._known.get

    def of(self, headers: Headers) -> list[Any]:
        """Return the line of each cached header, None for the others."""
        try:
            return [*map(self.known, headers)]
        except TypeError:  # a list instead of a tuple: WSGI forbids it, but it is harmless
            return [None] * len(headers)

    def check(self, name: str, value: str) -> bytes | int:
        """Return the line as sent, or LENGTH, HOP or ID if its name has a meaning for the server."""
        if not isinstance(name, str):
            raise TypeError(f"{name!r} is not a string")
        kind = self._kinds.get(name)
        if kind == LENGTH and type(value) is str and value.isdecimal():
            return LENGTH
        if kind is None and not TOKEN_RE.fullmatch(name):
            raise InvalidResponseHeaderName(f"{name!r}")
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is not a string")
        if not wsgi.HEADER_VALUE_RE.fullmatch(value):
            raise InvalidResponseHeader(f"{name!r}")  # the value may be secret
        if kind is None:
            lower = name.lower()
            kind = MEANT.get(lower) or (HOP if lower in util.hop_headers else 0)
            if len(self._kinds) < NAMES_REMEMBERED:
                self._kinds[name] = kind
        if kind < 0:
            return kind
        line = f"{name}: {value.strip(BLANKS)}\r\n".encode("latin-1")
        if kind < VALUES_REMEMBERED and len(value) < LONGEST_REMEMBERED and name in self._kinds:
            self._kinds[name] = kind + 1
            self._known[name, value] = line
        return line


class DateHeader:
    """The first lines of every response, built once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._tail = b""

    def tail(self) -> bytes:
        """Return the Server and Date lines, and the start of the Connection line."""
        second = int(time.time())
        if second != self._second:
            date = formatdate(second, localtime=False, usegmt=True)
            self._tail = f"\r\nServer: {SERVER}\r\nDate: {date}\r\nConnection: ".encode("latin-1")
            self._second = second
        return self._tail


LINES, DATES = HeaderCache(), DateHeader()
_STATUS_LINES: dict[tuple[Any, str], tuple[bytes, int]] = {}


def status_line(version: tuple[int, int], status: str) -> tuple[bytes, int]:
    """Return the status line and its code; raise as Gunicorn does if the status is invalid."""
    found = _STATUS_LINES.get((version, status))
    if found is not None:
        return found
    if not isinstance(status, str):
        raise TypeError(f"{status!r} is not a string")
    if not wsgi.STATUS_RE.fullmatch(status):
        raise ValueError(f"Invalid status {status!r}")
    found = f"HTTP/{version[0]}.{version[1]} {status}".encode("latin-1"), int(status[:3])
    if len(_STATUS_LINES) < NAMES_REMEMBERED:
        _STATUS_LINES[version, status] = found
    return found


def complete(status: str, lines: Iterable[str], body: bytes, *, keep: bool) -> bytes:
    """Return a complete response of the server itself; ``lines`` are its headers, including its length."""
    head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
    connection = b"keep-alive\r\n" if keep else b"close\r\n"
    return b"".join((b"HTTP/1.1 ", status.encode(), DATES.tail(), connection, head, b"\r\n", body))


def body_size(data: bytes) -> int:
    """Return the body size of a complete response."""
    return len(data) - data.index(b"\r\n\r\n") - 4


class Response:
    """One response. Subclasses define in ``send`` and ``send_file`` how its bytes are sent."""

    __slots__ = (
        *(
            "_head",
            "_headers",
            "_lines",
            "_omits_body",
            "chunked",
            "headers_sent",
            "missing",
            "must_close",
            "request",
        ),
        *("request_id", "response_length", "sent", "status", "status_code", "timing"),
    )

    def __init__(self, request: RequestHead, *, must_close: bool) -> None:
        self.request, self.must_close = request, must_close
        self.status = ""
        self.status_code = 0
        self._headers: Headers = []
        self.request_id = ""
        """The id sent to the client; empty if none is sent, or if the project sends its own."""
        self.timing: Callable[[], str] | None = None
        """Returns where the time went, if the client is to get it."""
        self.headers_sent = False
        self.response_length: int | None = None
        self.sent = 0
        self.missing = 0
        """Bytes of the body that the application announced but did not provide."""
        self.chunked = False

    def send(self, data: bytes, last: bool) -> None:
        """Send these bytes; with ``last`` no more follow."""
        raise NotImplementedError

    def send_file(self, head: bytes, descriptor: int, offset: int, count: int, after: bytes) -> None:
        """Send the headers, then a part of a file, then ``after``; nothing follows."""
        raise NotImplementedError

    def hand_over(self, stream: Any) -> bool:
        """Let the asyncio loop send an async stream; return False if this thread must."""
        return False

    def idle(self) -> None:
        """Check the client of a stream that yielded no bytes; raise if the stream should end."""

    @property
    def sends_files(self) -> bool:
        """Return whether ``send_file`` may be used."""
        return True

    def start_response(self, status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        """Store status and headers, as WSGI requires."""
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status:
            raise AssertionError("Response headers already set!")
        request = self.request
        self._head, code = status_line(request.version, status)
        self.status, self.status_code, self._headers = status, code, headers
        self.response_length = None
        # RFC 9110: these carry no body, whatever the application yields; 1xx and 204 no length either.
        nothing = code == 204 or code < 200
        self._omits_body = nothing or code == 304 or request.method == "HEAD"
        self._lines = lines = LINES.of(headers)
        while None in lines:
            at = lines.index(None)
            name, value = headers[at]
            line = LINES.check(name, value)
            if line == LENGTH and not nothing:
                self.response_length = int(value)
                line = f"{name}: {value.strip()}\r\n".encode("latin-1")
            elif line == ID:
                self.request_id = ""
                line = f"{name}: {value.strip()}\r\n".encode("latin-1")
            lines[at] = line if type(line) is bytes else b""
        if self.request_id:
            lines.append(b"X-Request-ID: %b\r\n" % self.request_id.encode())
        if self.timing is not None:
            lines.append(b"Server-Timing: %b\r\n" % self.timing().encode())
        self.chunked = self.response_length is None and request.version > (1, 0) and not self._omits_body
        return self.write

    @property
    def plain_headers(self) -> Headers:
        """The headers as the application has set them."""
        return self._headers

    @property
    def headers(self) -> Headers:
        """The headers, including added ones, for the user's hooks and log formats."""
        return [*self._headers, ("X-Request-ID", self.request_id)] if self.request_id else self._headers

    @property
    def should_close(self) -> bool:
        """Return whether the connection ends with this response."""
        if self.must_close or self.request.should_close():
            return True
        return self.response_length is None and not self.chunked and not self._omits_body

    def head(self) -> bytes:
        """Return the headers as sent; empty if they have been sent."""
        if self.headers_sent:
            return b""
        if not self.status:
            raise AssertionError("the application did not call start_response")
        self.headers_sent = True
        connection = b"close\r\n" if self.should_close else b"keep-alive\r\n"
        framing = b"Transfer-Encoding: chunked\r\n" if self.chunked else b""
        return b"".join((self._head, DATES.tail(), connection, framing, *self._lines, b"\r\n"))

    def write(self, data: bytes, last: bool = False) -> None:
        """Send a piece of the body, the first one with the headers."""
        if not isinstance(data, bytes):
            raise TypeError(f"{data!r} is not a byte")
        if data and not self._omits_body:
            if self.response_length is not None:
                data = data[: self.response_length - self.sent]
            self.sent += len(data)
            framed = b"%X\r\n%b\r\n" % (len(data), data) if self.chunked and data else data
        else:
            framed = b""
        if last and self.chunked:
            framed += b"0\r\n\r\n"
        out = self.head() + framed
        if out:
            self.send(out, last or self.is_complete)
        elif not last:
            self.idle()

    @property
    def is_complete(self) -> bool:
        """Return whether the application has provided every byte of a body of known length."""
        return self.response_length is not None and (self._omits_body or self.sent >= self.response_length)

    def respond(self, result: Any) -> None:
        """Send all that the application yields."""
        if type(result) is wsgi.FileWrapper and self.respond_with_file(result.filelike):
            return
        if getattr(result, "streaming", True) is False or type(result) is list:
            # Django has the whole body: one send, even without a length.
            self.write(b"".join(result), last=True)
        else:
            if getattr(result, "is_async", False) and self.hand_over(result):
                return
            for item in result:
                self.write(item)
            self.write(b"", last=True)
        self.note_missing()

    def note_missing(self) -> None:
        """Find out whether the application has provided fewer bytes than it announced."""
        if self.response_length is not None and self.sent < self.response_length and not self._omits_body:
            self.must_close = True  # fewer bytes than announced: the client must not wait for them
            self.missing = self.response_length - self.sent

    def respond_with_file(self, file: Any) -> bool:
        """Let the kernel send the file; return False if Python must read it."""
        found = plain_files.find(file) if self.sends_files and self.status else None
        if found is None:
            return False
        descriptor, offset, there = found
        count = there if self.response_length is None else self.response_length
        if self._omits_body or count == 0 < there:
            self.write(b"", last=True)
            return True
        if not 0 < count <= there:  # files in /proc report size 0; a file that is too short is logged
            return False
        before, after = (b"%X\r\n" % count, b"\r\n0\r\n\r\n") if self.chunked else (b"", b"")
        self.sent = count
        self.send_file(self.head() + before, descriptor, offset, count, after)
        return True
