"""Answers that the server gives by itself: without Django, without a thread, without a line in the log.

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
"""Header lines of every page, unless it has its own of that name."""
METHODS = ("GET", "HEAD")


class Reply(NamedTuple):
    """What a page answers; ``status`` as in a status line, ``type`` its content type."""

    status: str
    type: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


Page = Callable[["RequestHead"], Reply]


def text(status: str, *lines: str) -> Reply:
    """Return a reply of these lines; its status says all where there are none."""
    return Reply(status, TEXT, "".join(f"{line}\n" for line in lines or (status[4:],)).encode())


def document(content: Any) -> Reply:
    """Return a reply of JSON."""
    return Reply("200 OK", JSON, json.dumps(content).encode())


def respond(page: Page, request: RequestHead, keep: bool) -> bytes:
    """Return the complete response of a page that can only be looked at."""
    if request.method in METHODS:
        return encode(page(request), without_body=request.method == "HEAD", keep=keep)
    refusal = text("405 Method Not Allowed")._replace(headers={"Allow": ", ".join(METHODS)})
    return encode(refusal, keep=keep)


def encode(reply: Reply, *, without_body: bool = False, keep: bool) -> bytes:
    """Return a reply as it leaves."""
    lines = {
        "Content-Type": reply.type,
        "Content-Length": str(len(reply.body)),
        **STRICT,
        **reply.headers,
    }
    body = b"" if without_body else reply.body
    return complete(reply.status, [f"{name}: {value}" for name, value in lines.items()], body, keep=keep)
