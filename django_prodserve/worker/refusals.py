"""What a worker answers to a request that it refuses, or that raised: the same bytes on every Python.

Lives in workers of every class, in the thread that has the request. Statuses, texts and log lines are
Gunicorn's. The bytes are ours: Gunicorn 27 builds its page with ``textwrap.dedent``. In Python 3.14 that
removes the CR from the empty line after the headers, so the headers never end.
"""

from __future__ import annotations

import html
from datetime import timedelta
from ssl import SSLError
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.http.wsgi import Response, default_environ

from ..logs.gunicorn_logger import Logger

BAD_REQUEST = 400, "Bad Request"
FAULT = 500, "Internal Server Error"
OURS = errors.InvalidResponseHeader, errors.InvalidResponseHeaderName
"""Errors of the application, although their base classes describe client errors."""
STATUSES: dict[type[BaseException], tuple[int, str]] = {
    errors.ParseException: BAD_REQUEST,  # for errors without a row, and for those that a later Gunicorn adds
    SSLError: (403, "Forbidden"),
    errors.ForbiddenProxyRequest: (403, "Forbidden"),
    errors.LimitRequestLine: (414, "URI Too Long"),
    errors.ExpectationFailed: (417, "Expectation Failed"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large"),
    errors.ConfigurationProblem: (500, "Bad Request"),
    errors.UnsupportedTransferCoding: (501, "Bad Request"),
}
TEXTS: dict[type[BaseException], str] = {
    errors.InvalidRequestLine: "Invalid Request Line '%s'",
    errors.InvalidRequestMethod: "Invalid Method '%s'",
    errors.InvalidHTTPVersion: "Invalid HTTP Version '%s'",
    errors.LimitRequestHeaders: "Error parsing headers: '%s'",
    errors.InvalidProxyLine: "'%s'",
    SSLError: "'%s'",
}
"""The page's text, with the error in it; for other errors the text is the error alone."""
PAGE = (
    "<html>\n  <head>\n    <title>{reason}</title>\n  </head>\n  <body>\n"
    "    <h1><p>{reason}</p></h1>\n    {text}\n  </body>\n</html>\n"
)


def classify(error: BaseException) -> tuple[int, str, str]:
    """Return the status, its reason and the page's text for the error of a request."""
    if not isinstance(error, OURS):
        for kind in type(error).__mro__:  # the most specific class wins
            if kind in STATUSES:
                status, reason = STATUSES[kind]
                text = "Request forbidden" if kind is errors.ForbiddenProxyRequest else _text(error)
                return status, reason, text
    return *FAULT, ""


def _text(error: BaseException) -> str:
    forms = (TEXTS[kind] for kind in type(error).__mro__ if kind in TEXTS)
    return next(forms, "%s") % error


def page(status: int, reason: str, text: str) -> bytes:
    """Return the complete response."""
    body = PAGE.format(reason=reason, text=html.escape(text)).encode("latin-1", "backslashreplace")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body


def refuse(worker: Any, request: Any, client: Any, peer: Any, error: BaseException) -> None:
    """Log the error of a request and answer it, like Gunicorn's ``handle_error``."""
    status, reason, text = classify(error)
    peer = peer if isinstance(peer, tuple) else ("", -1)  # a unix socket has no address
    if (status, reason) != FAULT:
        worker.log.warning(f"Invalid request from ip={peer[0]}: {error}")
    elif hasattr(request, "uri"):
        worker.log.exception("Error handling request %s %s", request.method, request.uri)
    else:
        worker.log.exception("Error handling request (no URI read)")
    if request is not None and not isinstance(worker.log, Logger):  # for our logger the worker writes it
        environ = default_environ(request, client, worker.cfg)
        environ |= {"REMOTE_ADDR": peer[0], "REMOTE_PORT": str(peer[1])}
        response = Response(request, client, worker.cfg)
        response.status, response.response_length = f"{status} {reason}", len(text)
        worker.log.access(response, request, environ, timedelta())
    try:
        client.sendall(page(status, reason, text))
    except OSError:
        worker.log.debug("Failed to send error message.")


class Sheet:
    """Replaces a socket to which a response is written, and stores it."""

    def __init__(self) -> None:
        self.data = b""

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.data += data


def mend_gunicorns() -> None:
    """Make Gunicorn's own worker classes write complete headers, too, if theirs would have no end."""
    sheet = Sheet()
    util.write_error(sheet, *BAD_REQUEST, "")
    if sheet.data != page(*BAD_REQUEST, ""):
        util.write_error = _write_error


def _write_error(sock: Any, status_int: int, reason: str, mesg: str) -> None:
    util.write_nonblock(sock, page(status_int, reason, mesg))
