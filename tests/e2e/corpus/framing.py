"""Several requests on one connection, and where each response ends."""

from __future__ import annotations

from ..raw import Case
from .making import HOST, NO_HOST, REFUSED, SMUGGLED, chunked, get, head, ok, post

CLOSE = b"Connection: close"
KEEP = b"Connection: keep-alive"
JUNK = b"\x00junk\r\n\r\n"


def number(n: int) -> bytes:
    return get(target=b"/echo/?n=%d" % n)


def several(
    name: str, *requests: bytes, kept: bool | None = True, methods: tuple[str, ...] = (), **more: object
) -> Case:
    """Return a pipeline of good requests, each answered in its turn."""
    seen = tuple({"query": f"n={n}"} for n in range(len(requests))) if not methods else ()
    return Case(name, b"".join(requests), (200,) * len(requests), seen, kept, methods)


def then_refused(name: str, first: bytes, rest: bytes, beyond: str = "") -> Case:
    return Case(name, first + rest, (200, REFUSED), (), False, beyond=beyond)


PIPELINES = [
    *(several(f"{count} requests", *map(number, range(count))) for count in (2, 3, 5, 10, 20)),
    several(
        "20 requests, the last closes", *map(number, range(19)), get(CLOSE, target=b"/echo/?n=19"), kept=False
    ),
    several("two empty lines between", number(0), b"\r\n" + number(1), b"\r\n" + number(2)),
    several(
        "bodies between",
        post(b"Content-Length: 5", body=b"hello", target=b"/echo/?n=0"),
        number(1),
        chunked(b"hello", target=b"/echo/?n=2"),
        number(3),
        chunked(b"a", b"b", target=b"/echo/?n=4", end=b"0\r\nA: 1\r\n\r\n"),
        post(b"Content-Length: 0", target=b"/echo/?n=5"),
        number(6),
    ),
    Case(
        "ten chunked bodies",
        b"".join(chunked(b"x" * (100 * n + 1), target=b"/echo/?n=%d" % n) for n in range(10)),
        (200,) * 10,
        tuple(
            {"query": f"n={n}", "length": 100 * n + 1, "headers": {"CONTENT_LENGTH": str(100 * n + 1)}}
            for n in range(10)
        ),
        True,
    ),
    Case(
        "large chunked bodies",
        b"".join(chunked(b"x" * 70000, b"y", target=b"/echo/?n=%d" % n) for n in range(3)),
        (200,) * 3,
        tuple({"query": f"n={n}", "length": 70001} for n in range(3)),
        True,
    ),
    several("large answers", *(get(target=b"/echo/?size=200000") for _ in range(5)), methods=("GET",) * 5),
    several("streams", *(get(target=b"/echo/?stream=1") for _ in range(3)), methods=("GET",) * 3),
    several(
        "HEAD between",
        number(0),
        head(b"HEAD /echo/?n=1 HTTP/1.1", HOST),
        number(2),
        head(b"HEAD /echo/?size=100 HTTP/1.1", HOST),
        number(4),
        methods=("GET", "HEAD", "GET", "HEAD", "GET"),
    ),
    Case(
        "204 and 304 between",
        number(0)
        + get(target=b"/echo/?status=204")
        + number(2)
        + get(target=b"/echo/?status=304")
        + number(4),
        (200, 204, 200, 304, 200),
        ({"query": "n=0"}, {"query": "n=2"}, {"query": "n=4"}),
        True,
    ),
    Case(
        "errors of the application between",
        number(0) + get(target=b"/echo/?status=599") + number(2),
        (200, 599, 200),
        ({"query": "n=0"}, {"query": "status=599"}, {"query": "n=2"}),
        True,
    ),
    Case("more after Connection: close", get(CLOSE) + SMUGGLED, (200,), (), False),
    Case("much more after Connection: close", get(CLOSE) + SMUGGLED * 50, (200,), (), False),
    Case(
        "more after a refusal", head(b"GET /echo/ HTTP/1.1", HOST, b"A : 1") + SMUGGLED, (REFUSED,), (), False
    ),
    Case("more after HTTP/1.0", get(version=b"HTTP/1.0") + SMUGGLED, (200,), (), False),
    then_refused("junk after a request", number(0), JUNK),
    then_refused("a bad request after a good one", number(0), get(b"A : 1")),
    then_refused("LF only after a good one", number(0), get().replace(b"\r\n", b"\n")),
    then_refused("no Host after a good one", number(0), head(b"GET /echo/ HTTP/1.1"), beyond=NO_HOST),
    then_refused("Host twice after a good one", number(0), get(HOST)),
    then_refused("bad chunks after a good one", number(0), chunked(end=b"x\r\n\r\n")),
    Case(
        "half a request after a good one",
        number(0) + b"GET /smug",
        (200, frozenset({0, 400, 408})),
        (),
        False,
        ends=True,
    ),
]

SMUGGLING = [
    then_refused("junk after a body", post(b"Content-Length: 5", body=b"hello"), JUNK),
    then_refused(
        "a body longer than its length", post(b"Content-Length: 5", body=b"hello"), b"world\r\n\r\n"
    ),
    then_refused("a body of a length of 0", post(b"Content-Length: 0", body=b""), b"hello\r\n\r\n"),
    then_refused("chunks behind a length of 0", post(b"Content-Length: 0"), b"5\r\nhello\r\n0\r\n\r\n"),
    then_refused("a body without any length", post(), b"hello world\r\n\r\n"),
    then_refused("a form without any length", post(b"Content-Type: text/plain"), b"a=1\r\n\r\n"),
    then_refused("junk after the last chunk", chunked(b"hello"), b"X\r\n\r\n"),
    then_refused("another last chunk", chunked(b"hello"), b"0\r\n\r\n"),
    then_refused(
        "the prefix of a request line", post(b"Content-Length: 5", body=b"hello"), b"GET /smuggled\r\n\r\n"
    ),
    Case(
        "a request in a body",
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
        (200,),
        ({"length": len(SMUGGLED)},),
        True,
    ),
    Case(
        "a request in a body that nobody reads",
        post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED, target=b"/echo/?unread=1"),
        (200,),
        ({"length": 0},),
        None,
    ),
    Case(
        "a request in chunks that nobody reads",
        chunked(SMUGGLED, target=b"/echo/?unread=1"),
        (200,),
        ({"length": 0},),
        None,
    ),
    Case(
        "a large body that nobody reads",
        post(b"Content-Length: 300000", body=SMUGGLED.ljust(300000), target=b"/echo/?unread=1"),
        (200,),
        ({"length": 0},),
        None,
    ),
    Case(
        "a GET with a request for a body",
        get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
        (200,),
        ({},),
        True,
    ),
    Case(
        "a HEAD with a request for a body",
        head(b"HEAD /echo/ HTTP/1.1", HOST, b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
        (200,),
        (),
        True,
        ("HEAD",),
    ),
    Case("a request in a trailer's place", chunked(b"hello", end=b"0\r\n") + SMUGGLED, (400,), (), False),
    Case(
        "a request in a chunk's extension",
        post(b"Transfer-Encoding: chunked", body=b'5;a="\r\n' + SMUGGLED),
        (400,),
        (),
        False,
    ),
]

CONNECTIONS = [
    ok("Connection: close", get(CLOSE), kept=False),
    ok("Connection: Close", get(b"Connection: Close"), kept=False),
    ok("Connection: keep-alive", get(KEEP)),
    ok("Connection: a name", get(b"Connection: X-A")),
    ok("HTTP/1.0 and keep-alive", get(KEEP, version=b"HTTP/1.0")),
    ok("HTTP/1.0 and Keep-Alive", get(b"Connection: Keep-Alive", version=b"HTTP/1.0")),
    Case(
        "HTTP/1.0, three with keep-alive",
        get(KEEP, version=b"HTTP/1.0") * 2 + get(version=b"HTTP/1.0"),
        (200,) * 3,
        ({}, {}, {}),
        False,
    ),
    Case(
        "HTTP/1.0 and a stream", get(KEEP, version=b"HTTP/1.0", target=b"/echo/?stream=1"), (200,), (), False
    ),
    ok(
        "an upgrade to websocket",
        get(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
    ),
    ok(
        "an upgrade to h2c",
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    ),
    ok("an upgrade to TLS", get(b"Connection: Upgrade", b"Upgrade: TLS/1.3")),
    ok("an upgrade to something", get(b"Connection: Upgrade", b"Upgrade: evil/1")),
    Case(
        "an upgrade and more",
        get(b"Connection: Upgrade", b"Upgrade: h2c") + number(1),
        (200, 200),
        ({}, {"query": "n=1"}),
        True,
    ),
    Case("HEAD", head(b"HEAD /echo/?size=100000 HTTP/1.1", HOST), (200,), (), True, ("HEAD",)),
    Case("HEAD of a stream", head(b"HEAD /echo/?stream=1 HTTP/1.1", HOST), (200,), (), True, ("HEAD",)),
    Case("HEAD of an error", head(b"HEAD /echo/?status=404 HTTP/1.1", HOST), (404,), (), None, ("HEAD",)),
    Case("HEAD with HTTP/1.0", head(b"HEAD /echo/ HTTP/1.0", HOST), (200,), (), False, ("HEAD",)),
    Case("a stream", get(target=b"/echo/?stream=1"), (200,), (), True),
    Case("204", get(target=b"/echo/?status=204"), (204,), (), True),
    Case("304", get(target=b"/echo/?status=304"), (304,), (), True),
    Case("a large answer", get(target=b"/echo/?size=3000000"), (200,), (), True),
    Case("a large answer, then the end", get(CLOSE, target=b"/echo/?size=3000000"), (200,), (), False),
    Case(
        "the client is done, the answer still comes",
        get(target=b"/echo/?size=300000"),
        (200,),
        (),
        None,
        ends=True,
    ),
]

GROUPS = {"pipelines": PIPELINES, "smuggling": SMUGGLING, "connections": CONNECTIONS}
