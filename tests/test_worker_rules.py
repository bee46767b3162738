"""What the worker makes of requests and responses is what Gunicorn makes of them, where we promise that."""

from __future__ import annotations

import io
import itertools
import random
import re
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName

from django_prodserve.http.body import ChunkedReceiver, FixedLengthReceiver
from django_prodserve.http.environ import EnvironBuilder
from django_prodserve.http.exceptions import NeedMoreError
from django_prodserve.http.line_cache import MAX_CACHED_LINES
from django_prodserve.http.parser import ParserSettings, RequestHead, RequestParser
from django_prodserve.http.response import Response

from .wire import PARSERS, Ours, Refused, Taken

CONFIG = Config()
CONFIG.set("forwarded_allow_ips", "")
CONFIG.set("secure_scheme_headers", {})
CONFIG.set("forwarder_headers", "")
SETTINGS = ParserSettings(CONFIG)
PEER = ("198.51.100.7", 4711)


def head(data: bytes) -> RequestHead:
    return RequestParser(SETTINGS).read(data, 0, PEER, 1)


class Sock:
    """Where Gunicorn's response writes to."""

    def __init__(self) -> None:
        self.data = b""

    def sendall(self, data: bytes) -> None:
        self.data += data

    send = sendall


REQUESTS = {
    "plain": b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n",
    "an old client": b"GET /a HTTP/1.0\r\n\r\n",
    "percent and utf-8": b"GET /%C3%A4/%2F?q=%20 HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form": b"GET http://other:81/p?q HTTP/1.1\r\nHost: x\r\n\r\n",
    "two slashes": b"GET //a//b HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "repeated fields": b"GET / HTTP/1.1\r\nHost: x\r\nA: 1\r\nAccept: a\r\na: 2\r\nAccept: b\r\nA: 3\r\n\r\n",
    "content type and length": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc"
    ),
    "underscores are dropped": b"GET / HTTP/1.1\r\nHost: x\r\nX_Forwarded_For: 1.2.3.4\r\n\r\n",
    "a script name that is none": b"GET / HTTP/1.1\r\nHost: x\r\nScript-Name: /evil\r\n\r\n",
    "latin-1": b"GET / HTTP/1.1\r\nHost: x\r\nA: \xe4\r\n\r\n",
}
# Made anew for each request, or deliberately not ours: see environ.py.
OTHERS = {"wsgi.input", "wsgi.errors", "gunicorn.socket", "wsgi.early_hints", "wsgi.multithread"}


@pytest.mark.parametrize("server", [("127.0.0.1", 8000), "/run/x.sock"], ids=["tcp", "unix"])
@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_environ_is_gunicorns(data: bytes, server: Any) -> None:
    client = PEER if isinstance(server, tuple) else ""
    request = head(data)
    body = (io.BytesIO(b"abc"), 3) if request.length else None
    ours = EnvironBuilder(CONFIG, server).build(request, client, body)
    _, theirs = wsgi.create(request, Sock(), client, server, CONFIG)
    for environ in (ours, theirs):
        for name in OTHERS:
            environ.pop(name, None)
    assert ours == theirs


def test_two_cookie_fields_are_joined_as_one_field_has_cookies() -> None:
    request = head(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nX: 1\r\ncookie: b=2; c=3\r\nX: 2\r\n\r\n")
    environ = EnvironBuilder(CONFIG, ("127.0.0.1", 80)).build(request, PEER, None)
    assert environ["HTTP_COOKIE"] == "a=1; b=2; c=3"
    assert environ["HTTP_X"] == "1,2"


def test_a_body_in_chunks_has_a_length_for_django() -> None:
    request = head(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    environ = EnvironBuilder(CONFIG, ("127.0.0.1", 80)).build(request, PEER, (io.BytesIO(b"hello"), 5))
    assert environ["CONTENT_LENGTH"] == "5"
    assert "HTTP_TRANSFER_ENCODING" not in environ


class Kept(Response):
    """An answer whose bytes are kept."""

    def __init__(self, request: RequestHead, *, must_close: bool = False) -> None:
        super().__init__(request, must_close=must_close)
        self.pieces: list[bytes] = []

    def send(self, data: bytes, last: bool) -> None:
        self.pieces.append(data)


GETS = {
    "1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "1.1 close": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\n\r\n",
    "1.0 keep-alive": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
}
STATUSES = ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found", "299", "200 Se\xf1or"]
HEADERS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "length": [("Content-Length", "10")],
    "too short a length": [("content-length", "4")],
    "hop by hop": [("Connection", "close"), ("Server", "x"), ("Date", "y"), ("Keep-Alive", "5"), ("TE", "a")],
    "spaces and latin-1": [("A", " b\t"), ("C", "\xe4"), ("A", "again")],
    "cookies": [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
}
BODIES = [[b"0123456789"], [b"01234", b"", b"56789"], [], [b""]]


@pytest.mark.parametrize("body", BODIES, ids=repr)
@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("data", GETS.values(), ids=GETS.keys())
def test_the_response_is_gunicorns(
    data: bytes, status: str, headers: list[tuple[str, str]], body: list[bytes]
) -> None:
    request = head(data)
    ours = Kept(request)
    ours.start_response(status, headers)
    ours.respond(iter(body))
    sock = Sock()
    theirs = wsgi.Response(request, sock, CONFIG)
    theirs.start_response(status, headers)
    for item in body:
        theirs.write(item)
    theirs.close()
    date = re.compile(rb"Date: [^\r]+")
    assert date.sub(b"", b"".join(ours.pieces)) == date.sub(b"", sock.data)
    assert ours.sent == theirs.sent
    short = ours.response_length is not None and not ours._omits_body and ours.sent < ours.response_length
    assert ours.should_close == (theirs.should_close() or short)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([("A B", "c")], InvalidResponseHeaderName),
        ([("A", "b\r\nC: d")], InvalidResponseHeader),
        ([("A", "b\0")], InvalidResponseHeader),
        ([("A", 5)], TypeError),
        ([(b"A", "b")], TypeError),
        ([("Content-Length", "x")], ValueError),
    ],
)
def test_what_gunicorn_refuses_of_an_application_is_refused(headers: Any, error: type[Exception]) -> None:
    for make in (Kept(head(GETS["1.1"])), wsgi.Response(head(GETS["1.1"]), Sock(), CONFIG)):
        with pytest.raises(error):
            make.start_response("200 OK", headers)


def test_a_value_that_was_accepted_under_one_name_is_checked_under_another() -> None:
    Kept(head(GETS["1.1"])).start_response("200 OK", [("X-A", "fine")])
    with pytest.raises(InvalidResponseHeader):
        Kept(head(GETS["1.1"])).start_response("200 OK", [("X-A", "fine\n")])


def test_what_django_has_whole_leaves_in_one_piece() -> None:
    answer = Kept(head(GETS["1.1"]))
    answer.start_response("200 OK", [("Content-Length", "10")])
    answer.respond([b"01234", b"56789"])
    assert len(answer.pieces) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_chunked_body_is_the_same_however_it_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(chance.choice([0, 1, 500, 70_000, 200_000]))
    wire, at = b"", 0
    while at < len(content):
        size = chance.randint(1, 30_000)
        piece = content[at : at + size]
        wire += b"%x;ext=1\r\n%b\r\n" % (len(piece), piece)
        at += size
    wire += b"0\r\n" + chance.choice([b"", b"X-Trailer: a\r\n"]) + b"\r\nNEXT"
    request = head(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    body, rest, at = ChunkedReceiver(request), None, 0
    while rest is None:
        step = chance.choice([1, 2, 3, 1000, 65536])
        rest = body.feed(wire[at : at + step])
        at += step
    file, length = body.content()
    with file:
        assert file.read() == content
    assert length == len(content)
    assert rest + wire[at:] == b"NEXT"


def test_a_body_of_known_length_ends_where_it_says() -> None:
    body = FixedLengthReceiver(70_000)
    assert body.feed(bytes(69_999)) is None
    assert body.feed(b"xNEXT") == b"NEXT"
    file, length = body.content()
    with file:
        assert (length, len(file.read())) == (70_000, 70_000)


@pytest.mark.parametrize(("start", "step"), list(itertools.product(range(3), [1, 2, 3, 7])))
def test_a_head_is_the_same_however_it_is_cut(start: int, step: int) -> None:
    data = REQUESTS["repeated fields"]
    for end in range(start, len(data), step):
        with pytest.raises(NeedMoreError):
            RequestParser(SETTINGS).read(data[:end], max(0, end - step), PEER, 1)
    assert RequestParser(SETTINGS).read(data, len(data) - step, PEER, 1).headers == head(data).headers


PIECES = [
    *(b"GET / HTTP/1.1", b"GET /a?b HTTP/1.0", b"POST /p HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1"),
    *(
        b"CONNECT a:1 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET / HTTP/2.0",
        b"GET /\xe4 HTTP/1.1",
        b"",
        b"GET /",
    ),
]
LINES = [
    *(b"Host: a", b"Host: b", b"host:a", b"Content-Length: 3", b"Content-Length: 4", b"Content-Length: -1"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", b"Content-Type: a/b", b"Content-Type: c"),
    *(b"Expect: 100-continue", b"Expect: x", b"Cookie: a=b", b"Authorization: Basic eDp5", b"A_B: c"),
    b"A: ",
    *(
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: x",
        b" folded",
        b"\tfolded",
        b"No colon",
    ),
    *(b": x", b"A : b", b"A: b\x00", b"A: b\nC: d", b"A: \xff", b"\xff: a", b"X: " + b"y" * 9000, b"A:b:c"),
]


def judged(read: Any, data: bytes) -> Any:
    """Return all that the rest of the server asks of a request, or how it is refused."""
    try:
        request = read(data, 0, PEER, 2)
    except Exception as error:
        return type(error), str(error)
    known = ("method", "uri", "path", "query", "fragment", "version", "headers", "scheme", "must_close")
    more = ("length", "rest", "peer_addr", "remote_addr", "req_number", "_expected_100_continue", "trailers")
    return [*(getattr(request, name) for name in (*known, *more)), request.should_close()]


def test_what_is_remembered_changes_no_judgement() -> None:
    chance = random.Random(4)
    reader = RequestParser(SETTINGS)
    kinds = set()
    for _ in range(4000):
        line = chance.choice(PIECES[:3] if chance.random() < 0.8 else PIECES)
        headers = [b"Host: a"] * (chance.random() < 0.8) + chance.choices(LINES, k=chance.randrange(5))
        chance.shuffle(headers)
        data = b"\r\n".join(
            [line, *headers, b"", chance.choice([b"", b"", b"behind", b"GET /2 HTTP/1.1\r\n"])]
        )
        wanted = judged(RequestParser(SETTINGS).read, data)
        got = judged(reader.read, data)
        assert got == wanted, data
        kinds.add(got[0])
    assert len(kinds) > 10


def test_secrets_are_not_remembered_and_memory_is_bounded() -> None:
    reader = RequestParser(SETTINGS)
    for number in range(3000):
        name = b"GET /%d HTTP/1.1\r\nHost: %d\r\n" % (number % 700, number)
        for _ in range(2):
            reader.read(name + b"Cookie: secret\r\nAuthorization: secret\r\n\r\n", 0, PEER, 1)
    for memory in (reader._lines, reader._headers):
        assert MAX_CACHED_LINES <= len(memory._young) + len(memory._old) <= 2 * MAX_CACHED_LINES
        assert not any(b"secret" in line for half in (memory._young, memory._old) for line in half)


LIMITS = {
    "a long line": (
        b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 5000),
        "--limit-request-line (now 4094)",
    ),
    "a long line, not whole": (b"GET /" + b"a" * 9000, "--limit-request-line (now 4094)"),
    "many fields": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: 1\r\n" * 101 + b"\r\n",
        "--limit-request-fields (now 100)",
    ),
    "a long field": (
        b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n" % (b"1" * 8200),
        "--limit-request-field-size (now 8190)",
    ),
    "a long head": (
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A_: 1\r\n" * 200_000,
        "--limit-request-fields (now 100) or --limit-request-field-size (now 8190)",
    ),
    "many trailers": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"A: 1\r\n" * 101
        + b"\r\n",
        "--limit-request-fields (now 100)",
    ),
}


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(("sent", "option"), LIMITS.values(), ids=LIMITS.keys())
def test_what_is_too_long_is_refused_with_the_option_that_raises_the_limit(
    parser: str, sent: bytes, option: str
) -> None:
    (refused,) = Ours(parser).hear([sent])
    assert isinstance(refused, Refused)
    assert refused.kind in ("LimitRequestLine", "LimitRequestHeaders")
    assert refused.why.endswith(f"To take such requests, raise {option}")


@pytest.mark.parametrize("parser", PARSERS)
def test_a_raised_limit_holds_with_either_parser(parser: str) -> None:
    sent = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: 1\r\n" * 300 + b"\r\n"
    assert isinstance(Ours(parser, limit_request_fields=400).hear([sent])[0], Taken)
