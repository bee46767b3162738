"""Request lines, versions, line ends, header fields, limits."""

from __future__ import annotations

from ..raw import Case
from .making import HOST, NO_HOST, either, get, head, ok, refused, unfinished

TOO_LARGE = frozenset({400, 431})  # the C parser has a limit of its own without a name
TOO_LONG = frozenset({414, 431})
CONTROLS = [*range(0x00, 0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F]


def line(text: bytes) -> bytes:
    return head(text, HOST)


REQUEST_LINES = [
    refused("two words", line(b"GET /echo/")),
    refused("one word", line(b"GET")),
    refused("four words", line(b"GET /echo/ HTTP/1.1 more")),
    refused("a space in the target", line(b"GET /ec ho/ HTTP/1.1")),
    refused("two spaces after the method", line(b"GET  /echo/ HTTP/1.1")),
    refused("two spaces before the version", line(b"GET /echo/  HTTP/1.1")),
    refused("a space before the method", line(b" GET /echo/ HTTP/1.1")),
    refused("a space after the version", line(b"GET /echo/ HTTP/1.1 ")),
    refused("a tab after the method", line(b"GET\t/echo/ HTTP/1.1")),
    refused("a tab before the version", line(b"GET /echo/\tHTTP/1.1")),
    refused("a tab after the version", line(b"GET /echo/ HTTP/1.1\t")),
    refused("a vertical tab", line(b"GET\x0b/echo/ HTTP/1.1")),
    refused("NUL in the method", line(b"G\x00T /echo/ HTTP/1.1")),
    refused("NUL in the target", line(b"GET /ec\x00ho/ HTTP/1.1")),
    refused("NUL after the version", line(b"GET /echo/ HTTP/1.1\x00")),
    refused("a bare CR in the line", line(b"GET /echo/\r HTTP/1.1")),
    refused("a bare CR for a space", line(b"GET\r/echo/ HTTP/1.1")),
    refused("no method", line(b"/echo/ HTTP/1.1")),
    refused("no target", line(b"GET HTTP/1.1")),
    refused("a response", line(b"HTTP/1.1 200 OK")),
    refused("a header first", head(HOST, b"GET /echo/ HTTP/1.1")),
    refused(
        "TLS spoken to a plain port",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    ),
    refused("a proxy's line", b"PROXY TCP4 198.51.100.66 127.0.0.1 1 2\r\n" + get()),
    refused("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("SMTP", b"EHLO evil.example\r\n\r\n"),
    ok("one empty line first", b"\r\n" + get()),
    refused("two empty lines first", b"\r\n\r\n" + get()),
    refused("an empty line of LF first", b"\n" + get()),
    refused("a CR first", b"\r" + get()),
    unfinished("a method only", b"GET"),
    unfinished("half a line", b"GET /echo/ HTT"),
    unfinished("a line only", b"GET /echo/ HTTP/1.1\r\n"),
    unfinished("a head without its end", b"GET /echo/ HTTP/1.1\r\nHost: localhost\r\n"),
    unfinished("a head without its last LF", b"GET /echo/ HTTP/1.1\r\nHost: localhost\r\n\r"),
    unfinished("an empty line only", b"\r\n"),
    unfinished("nothing", b""),
]

METHODS = [
    *(
        ok(f"method {name}", line(name.encode() + b" /echo/ HTTP/1.1"), method=name)
        for name in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "QUERY")
    ),
    *(
        refused(f"method {name!r}", line(name + b" /echo/ HTTP/1.1"))
        for name in (
            b"get",
            b"Get",
            b"GEt",
            b"GE",
            b"G",
            b"G@T",
            b"G:T",
            b"G(T",
            b"G,T",
            b"#GET",
            b'"GET"',
            b"GET/",
            b"G\xc3\x89T",
            b"GET\x7f",
            b"\xef\xbb\xbfGET",
            b"A" * 21,
            b"A" * 5000,
        )
        if len(name) < 100
    ),
]

VERSIONS = [
    ok("HTTP/1.0", get(version=b"HTTP/1.0"), kept=False, protocol="HTTP/1.0"),
    ok("HTTP/1.1", get(), protocol="HTTP/1.1"),
    either("HTTP/1.2", get(version=b"HTTP/1.2"), 200, 400, 505),
    *(
        refused(f"version {version!r}", get(version=version))
        for version in (
            b"HTTP/0.9",
            b"HTTP/2.0",
            b"HTTP/3.0",
            b"HTTP/1",
            b"HTTP/1.",
            b"HTTP/.1",
            b"HTTP/1.10",
            b"HTTP/01.1",
            b"HTTP/1.01",
            b"HTTP/11",
            b"HTTP/1,1",
            b"HTTP/1.1.1",
            b"HTTP/1.x",
            b"HTTP/-1.1",
            b"HTTP/+1.1",
            b"HTTP/1.1x",
            b"HTTP1.1",
            b"HTTP /1.1",
            b"http/1.1",
            b"Http/1.1",
            b"HTTPS/1.1",
            b"ICY/1.1",
            b"1.1",
            b"HTTP/\xb9.1",
        )
    ),
]

LINE_ENDS = [
    refused("LF after the request line", get().replace(b"1.1\r\n", b"1.1\n")),
    refused("LF after a field", get(b"A: 1").replace(b"A: 1\r\n", b"A: 1\n")),
    refused("LF after Host", get(b"A: 1").replace(b"localhost\r\n", b"localhost\n")),
    refused("LF everywhere", get().replace(b"\r\n", b"\n")),
    refused("LF for the empty line", get()[:-2] + b"\n"),
    refused("LF LF at the end", get()[:-4] + b"\n\n"),
    refused("LF CRLF at the end", get()[:-4] + b"\n\r\n"),
    refused("CR LF LF in between", get(b"A: 1\r\n\nB: 2")),
    refused("LF inside a value", get(b"A: 1\nB: 2")),
    refused("LF, then a smuggled field", get(b"A: 1\nTransfer-Encoding: chunked")),
    refused("CR inside a value", get(b"A: 1\rB: 2")),
    refused("CR at the start of a value", get(b"A: \r1")),
    refused("CR CR LF", get(b"A: 1\r")),
    refused("CR inside a name", get(b"A\rB: 1")),
    refused("CR only", get().replace(b"\r\n", b"\r") + b"\r\n\r\n"),
    refused("NUL inside a value", get(b"A: 1\x002")),
    refused("NUL inside a name", get(b"A\x00B: 1")),
    refused("a folded value", get(b"A: 1\r\n 2")),
    refused("a value folded with a tab", get(b"A: 1\r\n\t2")),
    refused("a folded line of nothing", get(b"A: 1\r\n ")),
    refused("a value that is folded only", get(b"A:\r\n 1")),
    refused("a folded Host", head(b"GET /echo/ HTTP/1.1", b"Host:\r\n localhost")),
    refused("a folded Transfer-Encoding", get(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n"),
    refused("folding before the first field", head(b"GET /echo/ HTTP/1.1", b" A: 1", HOST)),
    refused("folding after the first line", head(b"GET /echo/ HTTP/1.1", b" Host: localhost")),
]

FIELDS = [
    refused("a space before the colon", get(b"A : 1")),
    refused("a tab before the colon", get(b"A\t: 1")),
    refused("a space before Host's colon", head(b"GET /echo/ HTTP/1.1", b"Host : localhost")),
    refused("a space before Content-Length's colon", get(b"Content-Length : 5") + b"hello"),
    refused("a space before Transfer-Encoding's colon", get(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    refused("a space in a name", get(b"A B: 1")),
    refused("a space before a name", get(b"A: 1", b" B: 2")),
    refused("no colon", get(b"A")),
    refused("no name", get(b": 1")),
    refused("a colon only", get(b":")),
    *(
        refused(f"{name!r} in a name", get(b"A" + name + b"B: 1"))
        for name in (
            b"(",
            b")",
            b"<",
            b">",
            b"@",
            b",",
            b";",
            b"\\",
            b'"',
            b"/",
            b"[",
            b"]",
            b"?",
            b"=",
            b"{",
            b"}",
        )
    ),
    refused("0x80 in a name", get(b"A\x80: 1")),
    refused("a sharp s in a name", get(b"Acce\xdf: 1")),
    refused("UTF-8 in a name", get("Ä: 1".encode())),
    *(refused(f"control {code:#04x} in a value", get(b"A: 1" + bytes([code]) + b"2")) for code in CONTROLS),
    ok("a tab in a value", get(b"A: 1\t2"), headers={"HTTP_A": "1\t2"}),
    ok("0x80 to 0xff in a value", get(b"A: \x80\xff"), headers={"HTTP_A": "\x80\xff"}),
    ok("UTF-8 in a value", get("A: ä".encode()), headers={"HTTP_A": "Ã¤"}),
    ok("spaces around a value", get(b"A: \t 1 \t "), headers={"HTTP_A": "1"}),
    ok("no space before a value", get(b"A:1"), headers={"HTTP_A": "1"}),
    ok("colons in a value", get(b"A: :1:"), headers={"HTTP_A": ":1:"}),
    ok("an empty value", get(b"A:")),
    ok("a value of spaces", get(b"A:   ")),
    ok("a name of all marks", get(b"!#$%&'*+-.^`|~: 1")),
    ok("a name of digits", get(b"123: 1"), headers={"HTTP_123": "1"}),
    ok("a field twice", get(b"A: 1", b"a: 2"), headers={"HTTP_A": "1,2"}),
    ok("Cookie twice", get(b"Cookie: a=1", b"Cookie: b=2")),
    refused("Content-Type twice", get(b"Content-Type: text/plain", b"Content-Type: text/html")),
]

LIMITS = [
    ok("a long request line", get(target=b"/echo/?" + b"a" * 4000), query="a" * 4000),
    refused("a request line too long", get(target=b"/echo/?" + b"a" * 4200), TOO_LONG),
    refused("a request line far too long", get(target=b"/echo/?" + b"a" * 20000), TOO_LONG),
    refused("a request line without end", b"GET /" + b"a" * 70000, TOO_LONG),
    refused("a method without end", b"A" * 70000, frozenset({400, 414, 431})),
    ok("99 fields and Host", get(*(b"A%d: 1" % number for number in range(99)))),
    refused("100 fields and Host", get(*(b"A%d: 1" % number for number in range(100))), TOO_LARGE),
    refused("1000 fields", get(*(b"A%d: 1" % number for number in range(1000))), TOO_LARGE),
    either("150 dropped fields", get(*(b"A_%d: 1" % number for number in range(150))), 200, 431),
    ok("a long field", get(b"A: " + b"1" * 8100), headers={"HTTP_A": "1" * 8100}),
    refused("a field too long", get(b"A: " + b"1" * 8200), TOO_LARGE),
    refused("a field far too long", get(b"A: " + b"1" * 70000), TOO_LARGE),
    refused("a name too long", get(b"A" * 8200 + b": 1"), TOO_LARGE),
    either("90 fields of 8000", get(*(b"A%d: %s" % (number, b"1" * 8000) for number in range(90))), 200, 431),
]

HOSTS: list[Case] = [
    refused("no Host", head(b"GET /echo/ HTTP/1.1"), 400, beyond=NO_HOST),
    refused("no Host but others", head(b"GET /echo/ HTTP/1.1", b"A: 1"), 400, beyond=NO_HOST),
    refused("no Host in absolute form", head(b"GET http://localhost/echo/ HTTP/1.1"), 400, beyond=NO_HOST),
    refused(
        "X-Forwarded-Host for Host",
        head(b"GET /echo/ HTTP/1.1", b"X-Forwarded-Host: localhost"),
        400,
        beyond=NO_HOST,
    ),
    refused("Ho_st for Host", head(b"GET /echo/ HTTP/1.1", b"Ho_st: localhost"), 400, beyond=NO_HOST),
    ok("no Host in HTTP/1.0", head(b"GET /echo/ HTTP/1.0"), kept=False),
    refused("Host twice", get(b"Host: localhost")),
    refused("Host twice, not the same", get(b"Host: evil.example")),
    refused("Host twice, one empty", get(b"Host:")),
    refused("Host twice, other case", get(b"hOST: localhost")),
    refused("Host twice in HTTP/1.0", get(HOST, version=b"HTTP/1.0")),
    ok(
        "Host in other case",
        head(b"GET /echo/ HTTP/1.1", b"hOsT: localhost"),
        headers={"HTTP_HOST": "localhost"},
    ),
    *(
        either(f"Host: {host!r}", head(b"GET /echo/ HTTP/1.1", b"Host: " + host), 200, 400)
        for host in (
            b"",
            b" ",
            b"localhost:",
            b"localhost:0",
            b"localhost:99999",
            b"localhost:-1",
            b"localhost:80:80",
            b"localhost:evil",
            b"[::1]",
            b"[::1]:80",
            b"[::1",
            b"::1",
            b"a b",
            b"a,b",
            b"a/b",
            b"a?b",
            b"a#b",
            b"user@localhost",
            b"user:pass@localhost",
            b"http://localhost",
            b"*",
            b".",
            b"..",
            b"localhost.",
            b"%6cocalhost",
            b"\xff",
            "münchen.example".encode(),
            b"a" * 300,
        )
    ),
]

GROUPS = {
    "request lines": REQUEST_LINES,
    "methods": METHODS,
    "versions": VERSIONS,
    "line ends": LINE_ENDS,
    "fields": FIELDS,
    "limits": LIMITS,
    "Host": HOSTS,
}
