"""The few words that cases are made of."""

from __future__ import annotations

import hashlib
from typing import Any

from ..raw import NOTHING, Case, Status

HOST = b"Host: localhost"
NO_HOST = "HTTP/1.1 without Host: RFC 9112 3.2"
REFUSED = frozenset({400, 501, 505})
ANY = frozenset({200, 400, 404, 405, 501})
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def head(line: bytes, *fields: bytes) -> bytes:
    """Return a head with these lines and nothing else."""
    return b"\r\n".join([line, *fields, b"", b""])


def get(*fields: bytes, target: bytes = b"/echo/", version: bytes = b"HTTP/1.1") -> bytes:
    return head(b"GET " + target + b" " + version, HOST, *fields)


def post(*fields: bytes, body: bytes = b"", target: bytes = b"/echo/") -> bytes:
    return head(b"POST " + target + b" HTTP/1.1", HOST, *fields) + body


def chunked(
    *chunks: bytes, fields: tuple[bytes, ...] = (), target: bytes = b"/echo/", end: bytes = b"0\r\n\r\n"
) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return post(b"Transfer-Encoding: chunked", *fields, body=body + end, target=target)


def raw_chunks(body: bytes) -> bytes:
    """Return a chunked request with exactly this for a body."""
    return post(b"Transfer-Encoding: chunked", body=body)


def ok(name: str, sent: bytes, *, kept: bool | None = True, then: bytes = b"", **seen: Any) -> Case:
    """Return a case that is one good request."""
    return Case(name, sent, (200,), (seen,), kept, then=then)


def refused(
    name: str, sent: bytes, status: Status = REFUSED, *, beyond: str = "", ends: bool = False
) -> Case:
    """Return a case that is answered once, with a refusal, and closed."""
    return Case(name, sent, (status,), (), False, beyond=beyond, ends=ends)


def either(name: str, sent: bytes, *statuses: int, ends: bool = False) -> Case:
    """Return a case where the standard leaves a choice; what is not in it is an error of the server's."""
    return Case(name, sent, (frozenset(statuses),), (), None, ends=ends)


def unfinished(name: str, sent: bytes) -> Case:
    """Return a case whose client goes away in the middle: no answer but a refusal, and nothing seen."""
    return Case(name, sent, (frozenset({NOTHING, 400, 408, 413}),), (), False, ends=True)


def whole(name: str, sent: bytes, body: bytes, *, kept: bool | None = True, then: bytes = b"") -> Case:
    """Return a case whose body must reach Django whole."""
    return ok(
        name,
        sent,
        kept=kept,
        then=then,
        method="POST",
        length=len(body),
        sha=hashlib.sha256(body).hexdigest(),
        headers={"CONTENT_LENGTH": str(len(body))},
    )
