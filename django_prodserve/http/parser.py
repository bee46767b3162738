"""Parse the bytes of a client into a request, with Gunicorn's own parser and without ever waiting.

Lives in a worker, in the thread that owns the connection. The parser gets only bytes that have arrived. If it
needs more, it raises ``NeedMoreError``, and the worker keeps all bytes for the next attempt.
"""

from __future__ import annotations

from typing import Any

from gunicorn.http import body, message
from gunicorn.http.errors import (
    InvalidHeader,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    ObsoleteFolding,
    UnsupportedTransferCoding,
)
from gunicorn.http.unreader import Unreader

from .exceptions import NeedMoreError
from .line_cache import MAX_LINE_BYTES as LONGEST_LINE
from .line_cache import LineCache

HEAD_END = b"\r\n\r\n"
ONCE = ("HOST", "CONTENT-TYPE")
"""Headers that may occur only once."""
SECRET = {"AUTHORIZATION", "COOKIE", "PROXY-AUTHORIZATION"}
"""Headers that are not cached: they must not stay in memory."""
FRAMING = {"CONTENT-LENGTH", "TRANSFER-ENCODING"}
FRAMES = (b"content-length", b"transfer-encoding")
MAX_LENGTH_DIGITS = 19
"""Maximum digits of a Content-Length: no client has ever sent more bytes than these can count."""


MAX_FIELDS_OF_C = 256
UNLIMITED_LINE = 2**20
"""Maximum bytes of a request line if Gunicorn's limit is 0."""


class ParserSettings:
    """Settings that Gunicorn's parser reads, as plain attributes: its Config takes 0.3 us for each."""

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
        line = config.limit_request_line or UNLIMITED_LINE
        self.longest_line = line + 4  # an empty line may precede it
        self.longest_head = line + fields * (size + 2) + 8
        # With more fields the C parser reports only "Invalid HTTP request", whatever the limit is.
        self.uses_c = message._check_fast_parser(config) and fields <= MAX_FIELDS_OF_C
        self.http_parser = "python"  # the lookup costs 0.5 us a request, and its answer is known


class Buffered(Unreader):  # type: ignore[misc]  # Gunicorn has no types
    """Gunicorn's source of bytes, limited to those that have arrived."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int | None = None, read_ahead: int | None = None) -> bytes:
        """Return all bytes; later ones have not arrived."""
        data, self.data = self.data, b""
        if not data:
            raise NeedMoreError
        return data

    def unread(self, data: bytes) -> None:
        """Put back unused bytes."""
        self.data = data + self.data


class RequestHead(message.Request):  # type: ignore[misc]  # Gunicorn has no types
    """A request with complete headers. ``length`` is that of the body, None if the body is chunked."""

    cfg: ParserSettings
    headers: list[tuple[str, str]]
    version: tuple[int, int]
    length: int | None = 0
    rest = b""
    """Bytes behind the headers."""
    _closes: bool | None = None
    is_noted = True
    """The worker writes the access line of a refused request, whatever Gunicorn's ``handle_error`` logs."""

    def __init__(self, settings: ParserSettings, data: bytes, peer: Any, number: int) -> None:
        source = Buffered(data)
        super().__init__(settings, source, peer, number)
        self.rest = source.data

    def parse(self, unreader: Buffered) -> bytes:
        """Parse as Gunicorn's ``Request`` does, with the parser chosen at the start.

        The PROXY protocol's header belongs to the connection, and was read before (proxy_protocol.py).
        """
        parse = self._parse_fast if self.cfg.uses_c else self._parse_python
        rest: bytes = parse(unreader, bytearray(unreader.read()))
        return rest

    def set_body_reader(self) -> None:
        """Let Gunicorn validate the framing if there is any, and require a Host."""
        names = dict(self.headers)
        if not names.keys().isdisjoint(FRAMING):
            super().set_body_reader()
            reader = self.body.reader
            self.length = None if isinstance(reader, body.ChunkedReader) else reader.length
            self._check_framing(names)
        if "HOST" not in names and self.version >= (1, 1):
            raise InvalidHeader("HTTP/1.1 needs a Host header", req=self)

    def _check_framing(self, names: dict[str, str]) -> None:
        """Refuse framing that Gunicorn accepts, although neither we nor Django can handle it."""
        if len(names.get("CONTENT-LENGTH", "")) > MAX_LENGTH_DIGITS or (self.length or 0) >= 2**63:
            raise InvalidHeader("CONTENT-LENGTH", req=self)
        for name, value in self.headers:
            # Gunicorn accepts gzip before chunked: the application would get the body compressed,
            # unannounced.
            if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
                raise UnsupportedTransferCoding(value)

    def should_close(self) -> bool:
        """Return whether the client wants no other request on this connection, or must not send one."""
        if self._closes is None:
            self._closes = super().should_close()
        return self._closes or self.must_close

    def _peer_trusted_for_forwarded(self) -> Any:
        """Leave trust to our middleware; Gunicorn would parse the peer's address at each request."""
        return ({}, []) if self.cfg.names_nothing else super()._peer_trusted_for_forwarded()


class RequestParser:
    """Parses the headers of one worker's requests. Lines that were validated before are cached.

    The cache never changes the meaning of a request. Each line is validated by the parser for complete
    requests. Rules that involve several lines are checked again for each request.
    """

    def __init__(self, settings: ParserSettings) -> None:
        self.settings = settings
        self._lines: LineCache[bytes, dict[str, Any]] = LineCache()
        """Request lines, and the attributes of a request that begins with each."""
        self._headers: LineCache[bytes, tuple[str, str]] = LineCache()
        self._remembers = settings.names_nothing
        if self._remembers:
            one = RequestHead(settings, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", None, 1)
            self._usual = dict(vars(one), unreader=Buffered(b""))
            self._judge = self._parse_line_by_c if settings.uses_c else one.parse_headers

    def read(self, data: bytes, seen: int, peer: Any, number: int) -> RequestHead:
        """Parse ``data``, of which ``seen`` bytes were known before; raise NeedMoreError if incomplete.

        If Gunicorn refuses the request, its exception is raised as soon as the refusal is certain.
        """
        settings = self.settings
        end = data.find(HEAD_END, max(0, seen - 3))
        _measure(settings, data, end)
        remembers = self._remembers and end > 0
        known = self._known(data, end, peer, number) if remembers else None
        if known is not None:
            return known
        if settings.uses_c:
            _check_for_c(data[: end + 4] if end >= 0 else data)
        request = RequestHead(settings, data, peer, number)
        if remembers and not data.startswith(b"\r\n"):
            self._remember_line(data[: data.find(b"\r\n")], request)
        return request

    def _known(self, data: bytes, end: int, peer: Any, number: int) -> RequestHead | None:
        """Return the request if all of its lines are cached; else None."""
        line_end = data.find(b"\r\n")
        line = self._lines.get(data[:line_end])
        headers = self._known_headers(data[line_end + 2 : end]) if line is not None else None
        if line is None or headers is None:
            return None
        request = RequestHead.__new__(RequestHead)
        request.__dict__ = line | {
            "headers": headers,
            "peer_addr": peer,
            "remote_addr": peer,
            "req_number": number,
            "rest": data[end + 4 :],
        }
        request.set_body_reader()
        return request

    def _remember_line(self, line: bytes, request: RequestHead) -> None:
        if len(line) <= LONGEST_LINE:
            names = ("method", "uri", "path", "query", "fragment", "version")
            self._lines.put(line, self._usual | {name: getattr(request, name) for name in names})

    def _known_headers(self, block: bytes) -> list[tuple[str, str]] | None:
        """Return the headers of these lines; None if Gunicorn must validate them together."""
        get, headers = self._headers.get, []
        lines = block.split(b"\r\n")
        if len(lines) > self._usual["limit_request_fields"]:
            return None
        for line in lines:
            header = get(line)
            if header is None:
                header = self._parse_single_line(line)
                if header is None:
                    return None
            headers.append(header)
        if len(dict(headers)) < len(headers):
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in ONCE):
                return None
        return headers

    def _parse_single_line(self, line: bytes) -> tuple[str, str] | None:
        """Return the header of a line whose meaning is independent of other lines; None for any other."""
        if self.settings.uses_c and line[:17].lower().startswith(FRAMES):
            return None  # that parser checks the framing of complete headers
        try:
            found: list[tuple[str, str]] = self._judge(line)
        except Exception:  # the complete parse raises it again, in its proper form
            return None
        if not found or found[0][0] == "EXPECT":
            return None
        if len(line) <= LONGEST_LINE and found[0][0] not in SECRET:
            self._headers.put(line, found[0])
        return found[0]

    def _parse_line_by_c(self, line: bytes) -> list[tuple[str, str]]:
        """Return how the C parser, and the checks that follow it, read one header line."""
        head = b"GET / HTTP/1.1\r\n" + line + HEAD_END
        _check_for_c(head)
        alone = RequestHead.__new__(RequestHead)
        alone.__dict__ = self._usual.copy()
        alone._parse_fast(None, head)
        return alone.headers


def _check_for_c(head: bytes) -> None:
    """Refuse what Gunicorn's Python parser refuses and its C parser accepts (gunicorn_h1c 0.6.9)."""
    if b"\n" in head.replace(b"\r\n", b""):
        raise InvalidHeader("bare LF as line terminator")
    if b"\n " in head or b"\n\t" in head:
        raise ObsoleteFolding("a line that starts with a space")
    line = head.removeprefix(b"\r\n").partition(b"\r\n")[0]
    if line.count(b" ") > 2:
        raise InvalidRequestLine(line.decode("latin-1"))


def _measure(settings: ParserSettings, data: bytes, end: int) -> None:
    """Refuse headers that are too long, complete or not; raise NeedMoreError for a valid beginning."""
    if len(data) > settings.longest_line and b"\r\n" not in data[2 : settings.longest_line]:
        raise LimitRequestLine(len(data), settings.limit_request_line)
    if (end if end >= 0 else len(data)) > settings.longest_head:
        raise LimitRequestHeaders("max buffer headers")
    if end < 0 and data.count(b"\n") == data.count(b"\r\n"):
        raise NeedMoreError
    # A bare LF: the parser decides.
