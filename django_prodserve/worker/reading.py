"""Turn the bytes of a client into a request, with Gunicorn's own parser and without ever waiting.

Lives in a worker, in the thread that owns the connection. The parser gets only bytes that are here; where it
asks for more, ``NeedMoreError`` says so, and everything is kept for the next time.
"""

from __future__ import annotations

import io
import re
from typing import IO, Any

from gunicorn.http import body, message
from gunicorn.http.errors import (
    InvalidChunkSize,
    InvalidHeader,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ObsoleteFolding,
)
from gunicorn.http.unreader import Unreader

from . import limits
from .known import LONGEST, Recent
from .spool import Spool

HEAD_END = b"\r\n\r\n"
ONCE = ("HOST", "CONTENT-TYPE")
"""Headers that may come once."""
SECRET = {"AUTHORIZATION", "COOKIE", "PROXY-AUTHORIZATION"}
"""Headers that are not remembered: others must not find them in memory."""
SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;|\r\n)")


class NeedMoreError(Exception):
    """The request is not complete yet."""


class ParserSettings:
    """What Gunicorn's parser reads of its Config, as plain attributes: Config takes 0.3 us for each."""

    proxy_protocol: str
    limit_request_line: int
    http_parser: str

    NAMES = (
        *("limit_request_line", "limit_request_fields", "limit_request_field_size", "http_parser"),
        *("permit_unconventional_http_method", "permit_unconventional_http_version", "casefold_http_method"),
        *("permit_obsolete_folding", "strip_header_spaces", "header_map", "is_ssl", "proxy_protocol"),
        *("proxy_allow_ips", "forwarded_allow_ips", "secure_scheme_headers", "forwarder_headers"),
    )

    def __init__(self, config: Any) -> None:
        for name in self.NAMES:
            setattr(self, name, getattr(config, name))
        proxies, forwarders = config.proxy_allow_networks(), config.forwarded_allow_networks()
        self.proxy_allow_networks = lambda: proxies
        self.forwarded_allow_networks = lambda: forwarders
        self.names_nothing = not (config.secure_scheme_headers or config.forwarder_headers)
        fields = config.limit_request_fields
        fields = fields if 0 < fields <= message.MAX_HEADERS else message.MAX_HEADERS
        size = config.limit_request_field_size or message.DEFAULT_MAX_HEADERFIELD_SIZE
        line = config.limit_request_line if config.limit_request_line > 0 else message.MAX_REQUEST_LINE
        self.longest_line = line + 4  # an empty line may come before it
        self.longest_head = line + fields * (size + 2) + 8
        self.uses_c = message._check_fast_parser(config)
        self.http_parser = "python"  # the question costs 0.5 us a request, and is answered


class Buffered(Unreader):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's source of bytes, holding only those that are here."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """Return all there is; what comes after it is not here."""
        data, self.data = self.data, b""
        if not data:
            raise NeedMoreError
        return data

    def unread(self, data: bytes) -> None:
        """Take back what was not used."""
        self.data = data + self.data


class Head(message.Request):  # type: ignore[misc]  # Gunicorn has no types
    """A request whose head is complete. ``length``: of the body, None where it comes in chunks."""

    cfg: ParserSettings
    headers: list[tuple[str, str]]
    version: tuple[int, int]
    length: int | None = 0
    rest = b""
    """What came behind the head."""
    _closes: bool | None = None
    is_noted = True
    """The worker writes the access line of what is refused, whatever Gunicorn's ``handle_error`` logs."""

    def __init__(self, settings: ParserSettings, data: bytes, peer: Any, number: int) -> None:
        source = Buffered(data)
        super().__init__(settings, source, peer, number)
        self.rest = source.data

    def parse(self, unreader: Buffered) -> bytes:
        """Parse as Gunicorn's ``Request`` does, with the parser that was chosen at the start.

        A line of the PROXY protocol belongs to the connection, and was read before (preface.py).
        """
        parse = self._parse_fast if self.cfg.uses_c else self._parse_python
        rest: bytes = parse(unreader, bytearray(unreader.read()))
        return rest

    def set_body_reader(self) -> None:
        """Let Gunicorn judge the framing where there is any, and ask for a Host."""
        names = dict(self.headers)
        if "CONTENT-LENGTH" in names or "TRANSFER-ENCODING" in names:
            super().set_body_reader()
            reader = self.body.reader
            self.length = None if isinstance(reader, body.ChunkedReader) else reader.length
        if "HOST" not in names and self.version >= (1, 1):
            raise InvalidHeader("HTTP/1.1 needs a Host header", req=self)

    def should_close(self) -> bool:
        """Say whether the client wants no other request on this connection, or must not send one."""
        if self._closes is None:
            self._closes = super().should_close()
        return self._closes or self.must_close

    def _peer_trusted_for_forwarded(self) -> Any:
        """Our layers decide whom to trust; Gunicorn would parse the peer's address at each request."""
        return ({}, []) if self.cfg.names_nothing else super()._peer_trusted_for_forwarded()


class Reader:
    """Reads the heads of one worker's requests. Lines that were judged before are not judged again."""

    def __init__(self, settings: ParserSettings) -> None:
        self.settings = settings
        self._lines: Recent[bytes, dict[str, Any]] = Recent()
        """Request lines, and the attributes of a request that begins with one."""
        self._headers: Recent[bytes, tuple[str, str]] = Recent()
        self._remembers = settings.names_nothing
        if self._remembers:
            one = Head(settings, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", None, 1)
            self._judge = one.parse_headers
            self._usual = dict(vars(one), unreader=Buffered(b""))

    def read(self, data: bytes, seen: int, peer: Any, number: int) -> Head:
        """Read ``data``, of which ``seen`` bytes were here before; NeedMoreError while more must come.

        What Gunicorn refuses raises its exception, as soon as that is certain.
        """
        settings = self.settings
        end = data.find(HEAD_END, max(0, seen - 3))
        if end < 0:
            _judge_incomplete(settings, data)
        remembers = self._remembers and end > 0
        known = self._known(data, end, peer, number) if remembers else None
        if known is not None:
            return known
        if settings.uses_c:
            _check_for_c(data[: end + 4] if end >= 0 else data)
        request = Head(settings, data, peer, number)
        if remembers and not data.startswith(b"\r\n"):
            self._remember_line(data[: data.find(b"\r\n")], request)
        return request

    def _known(self, data: bytes, end: int, peer: Any, number: int) -> Head | None:
        """Return the request where all of its lines mean what they have meant before; else None."""
        line_end = data.find(b"\r\n")
        line = self._lines.get(data[:line_end])
        headers = self._known_headers(data[line_end + 2 : end]) if line is not None else None
        if line is None or headers is None:
            return None
        request = Head.__new__(Head)
        request.__dict__ = line | {
            "headers": headers,
            "peer_addr": peer,
            "remote_addr": peer,
            "req_number": number,
            "rest": data[end + 4 :],
        }
        request.set_body_reader()
        return request

    def _remember_line(self, line: bytes, request: Head) -> None:
        if len(line) <= LONGEST:
            names = ("method", "uri", "path", "query", "fragment", "version")
            self._lines.put(line, self._usual | {name: getattr(request, name) for name in names})

    def _known_headers(self, block: bytes) -> list[tuple[str, str]] | None:
        """Return the headers of these lines; None where Gunicorn must judge them together."""
        get, headers = self._headers.get, []
        lines = block.split(b"\r\n")
        if len(lines) > self._usual["limit_request_fields"]:
            return None
        for line in lines:
            header = get(line)
            if header is None:
                header = self._judge_alone(line)
                if header is None:
                    return None
            headers.append(header)
        if len(dict(headers)) < len(headers):
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in ONCE):
                return None
        return headers

    def _judge_alone(self, line: bytes) -> tuple[str, str] | None:
        """Return the header of a line that means the same wherever it stands; None for any other."""
        try:
            found: list[tuple[str, str]] = self._judge(line)
        except Exception:  # the whole head raises it again, as it must be told
            return None
        if not found or found[0][0] == "EXPECT":
            return None
        if len(line) <= LONGEST and found[0][0] not in SECRET:
            self._headers.put(line, found[0])
        return found[0]


def _check_for_c(head: bytes) -> None:
    """Refuse what Gunicorn's own parser refuses and its C parser takes (gunicorn_h1c 0.6.9)."""
    if b"\n" in head.replace(b"\r\n", b""):
        raise InvalidHeader("bare LF as line terminator")
    if b"\n " in head or b"\n\t" in head:
        raise ObsoleteFolding("a line that starts with a space")
    line = head.removeprefix(b"\r\n").partition(b"\r\n")[0]
    if line.count(b" ") > 2:
        raise InvalidRequestLine(line.decode("latin-1"))


def _judge_incomplete(settings: ParserSettings, data: bytes) -> None:
    """Raise NeedMoreError for the start of a head, and refuse what can never become one."""
    if len(data) > settings.longest_line and b"\r\n" not in data[2 : settings.longest_line]:
        raise LimitRequestLine(len(data), settings.limit_request_line)
    if len(data) > settings.longest_head:
        raise LimitRequestHeaders("max buffer headers")
    if data.count(b"\n") == data.count(b"\r\n"):
        raise NeedMoreError
    # A bare LF: the parser says what it thinks of it.


class FixedBody:
    """A body of known length, while it arrives."""

    __slots__ = ("left", "spool")

    def __init__(self, length: int) -> None:
        self.left = length
        self.spool = Spool(limits.BODY_IN_MEMORY)

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; return what comes behind the body, or None while it is not complete."""
        if len(data) > self.left:
            data, rest = data[: self.left], data[self.left :]
        else:
            rest = b""
        self.left -= len(data)
        self.spool.write(data)
        return None if self.left else rest

    @property
    def size(self) -> int:
        """Return the bytes of the body that are here."""
        return self.spool.size

    def content(self) -> tuple[IO[bytes], int]:
        """Return the complete body and its length."""
        return self.spool.rewound(), self.spool.size


class ChunkedBody:
    """A body in chunks, while it arrives. A small scanner finds its end; Gunicorn's own reader decodes it.

    Where the framing is wrong the scanner sees the end too, and the reader refuses what it gets.
    """

    __slots__ = ("_in_data", "_line", "_trailers", "head", "size", "spool")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.spool = Spool(limits.BODY_IN_MEMORY)
        self._in_data = 0  # bytes of this chunk that are still to come, its CRLF included
        self._line = b""  # what is here of a line
        self._trailers = False
        self.size = 0
        """Bytes of the body that are announced so far, without their framing."""

    def feed(self, data: bytes) -> bytes | None:
        """Take the next bytes; return what comes behind the body, or None while it is not complete."""
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
        """Take a line of the framing; say whether nothing of this body follows it."""
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
        """Return the body, decoded, and its length; raise what Gunicorn's reader raises."""
        decoded = Spool(limits.BODY_IN_MEMORY)
        reader = body.ChunkedReader(self.head, _FileSource(self.spool.rewound()))
        try:
            while piece := reader.read(limits.RECEIVE):
                decoded.write(piece)
        except NoMoreData:
            raise InvalidChunkSize(b"the framing of the body is wrong") from None
        self.spool.file.close()
        return decoded.rewound(), decoded.size


class _FileSource(Unreader):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's source of bytes over a complete body."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.file = file

    def chunk(self, size_hint: int | None = None) -> bytes:
        return self.file.read(min(max(size_hint or 0, io.DEFAULT_BUFFER_SIZE), limits.MIB))
