"""The live page of the management address: one page, its script and styles, all of them in this directory.

Lives in a worker, in the thread that waits for events. uPlot 1.6.32 (MIT, https://github.com/leeoniya/uPlot)
is included as released: uPlot.iife.min.js, uPlot.min.css, uPlot.LICENSE.
"""

from __future__ import annotations

from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING

from ..responses import Page, Reply

if TYPE_CHECKING:
    from ....http.parser import RequestHead

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/uPlot.iife.min.js": ("uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uPlot.min.css": ("uPlot.min.css", "text/css; charset=utf-8"),
}


def pages() -> dict[str, Page]:
    """Return the files of the page by their paths; the worker reads each at its first request."""
    return {path: partial(_reply, name, kind) for path, (name, kind) in FILES.items()}


def _reply(name: str, kind: str, request: RequestHead) -> Reply:
    return Reply("200 OK", kind, _content(name), {"Content-Security-Policy": POLICY})


@cache
def _content(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
