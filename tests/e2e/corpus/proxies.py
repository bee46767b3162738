"""What a client claims about itself, and expectations."""

from __future__ import annotations

from ..raw import Case
from .making import HOST, get, head, ok, post, refused, whole

NAMES = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fly-Client-IP",
    "Proxy",
    "Script-Name",
    "Path-Info",
]
VARIABLES = [
    "REMOTE_ADDR",
    "REMOTE_USER",
    "SERVER_NAME",
    "HTTPS",
    "wsgi.url_scheme",
    "QUERY_STRING",
    "REQUEST_METHOD",
]


def claims(name: str) -> list[Case]:
    """Return a header in every spelling that ends in the same variable."""
    spellings = {name, name.lower(), name.upper(), name.replace("-", "_"), name.upper().replace("-", "_")}
    value = b"https" if name.endswith("Proto") else b"/evil"
    return [
        ok(
            f"{spelling}: {value.decode()}",
            get(spelling.encode() + b": " + value),
            path="/echo/",
            script="",
            scheme="http",
            never=["evil", name.upper().replace("-", "_")],
        )
        for spelling in sorted(spellings)
    ]


SPOOFED = [
    *(case for name in NAMES for case in claims(name)),
    *(
        ok(
            f"{name} as a header",
            get(name.encode() + b": evil"),
            method="GET",
            path="/echo/",
            script="",
            scheme="http",
        )
        for name in VARIABLES
    ),
    ok("an underscore", get(b"X_Evil: 1"), never=["evil"]),
    ok(
        "an underscore beside a dash", get(b"X-A: 1", b"X_A: evil"), headers={"HTTP_X_A": "1"}, never=["evil"]
    ),
    ok(
        "an underscore before a dash", get(b"X_A: evil", b"X-A: 1"), headers={"HTTP_X_A": "1"}, never=["evil"]
    ),
    ok(
        "Host with an underscore more",
        get(b"HOST_: evil"),
        headers={"HTTP_HOST": "localhost"},
        never=["evil"],
    ),
    ok("HTTP_HOST", get(b"HTTP_HOST: evil"), headers={"HTTP_HOST": "localhost"}, never=["evil"]),
    ok("Content_Type", get(b"Content_Type: evil"), never=["evil"]),
    Case(
        "Content_Length",
        post(b"Content_Length: 5", body=b"hello\r\n\r\n"),
        (200, 400),
        ({"length": 0},),
        False,
    ),
    Case(
        "Transfer_Encoding",
        post(b"Transfer_Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        (200, 400),
        ({"length": 0},),
        False,
    ),
    Case(
        "Content_Length beside a true one",
        post(b"Content_Length: 50", b"Content-Length: 5", body=b"hello"),
        (200,),
        ({"length": 5, "headers": {"CONTENT_LENGTH": "5"}},),
        True,
    ),
    Case(
        "Transfer_Encoding beside a true length",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"hello"),
        (200,),
        ({"length": 5},),
        True,
    ),
]

CONTINUE = b"Expect: 100-continue"
EXPECTATIONS = [
    whole("100-continue, waited for", post(CONTINUE, b"Content-Length: 5"), b"hello", then=b"hello"),
    whole(
        "100-Continue in other case",
        post(b"expect: 100-CONTINUE", b"Content-Length: 5"),
        b"hello",
        then=b"hello",
    ),
    whole(
        "100-continue with spaces",
        post(b"Expect:   100-continue  ", b"Content-Length: 5"),
        b"hello",
        then=b"hello",
    ),
    whole(
        "100-continue, chunked",
        post(CONTINUE, b"Transfer-Encoding: chunked"),
        b"hello",
        then=b"5\r\nhello\r\n0\r\n\r\n",
    ),
    whole(
        "100-continue and a large body",
        post(CONTINUE, b"Content-Length: 300000"),
        b"x" * 300000,
        then=b"x" * 300000,
    ),
    whole("100-continue, not waited for", post(CONTINUE, b"Content-Length: 5", body=b"hello"), b"hello"),
    ok("100-continue and no body", get(CONTINUE)),
    ok("100-continue and an empty body", post(CONTINUE, b"Content-Length: 0"), length=0),
    ok(
        "100-continue in HTTP/1.0",
        head(b"POST /echo/ HTTP/1.0", HOST, CONTINUE, b"Content-Length: 5") + b"hello",
        kept=False,
        length=5,
    ),
    *(
        refused(f"Expect: {value!r}", post(b"Expect: " + value, b"Content-Length: 0"), 417)
        for value in (
            b"200-ok",
            b"100-continue, 100-continue",
            b"100-continue;q=1",
            b"100",
            b"",
            b"continue",
            b"evil",
        )
    ),
    refused("Expect, the second wrong", post(CONTINUE, b"Expect: evil", b"Content-Length: 0"), 417),
    ok("Expect with an underscore", get(b"Ex_pect: evil"), never=["evil"]),
]

GROUPS = {"claims about the client": SPOOFED, "expectations": EXPECTATIONS}
