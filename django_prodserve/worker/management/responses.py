"""Responses that the server itself gives: without Django, without a thread, without an access log line.

Lives in a worker, in the thread that waits for events.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ...http.response import complete

if TYPE_CHECKING:
    from ...http.parser import RequestHead

TEXT, JSON = "text/plain; charset=utf-8", "application/json"

STRICT = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every page, unless the page sets a header of that name."""
METHODS = ("GET", "HEAD")


class Reply(NamedTuple):
    """The reply of a page; ``status`` as in a status line, ``type`` is its content type."""

    status: str
    type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


Page = Callable[["RequestHead"], Reply]


def text(status: str, *lines: str) -> Reply:
    """Return a plain text reply of these lines; without lines its text is the status."""
    return Reply(status, TEXT, "".join(f"{line}\n" for line in lines or (status[4:],)).encode())


def document(content: Any) -> Reply:
    """Return a reply of JSON."""
    return Reply("200 OK", JSON, json.dumps(content).encode())


def respond(page: Page, request: RequestHead, keep: bool) -> bytes:
    """Return the complete response of a read-only page."""
    if request.method in METHODS:
        return encode(page(request), without_body=request.method == "HEAD", keep=keep)
    refusal = text("405 Method Not Allowed")._replace(headers={"Allow": ", ".join(METHODS)})
    return encode(refusal, keep=keep)


def encode(reply: Reply, *, without_body: bool = False, keep: bool) -> bytes:
    """Return the bytes of a reply."""
    lines = {
        "Content-Type": reply.type,
        "Content-Length": str(len(reply.body)),
        **STRICT,
        **reply.headers,
    }
    body = b"" if without_body else reply.body
    return complete(reply.status, [f"{name}: {value}" for name, value in lines.items()], body, keep=keep)
