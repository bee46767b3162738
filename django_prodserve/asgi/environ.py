"""The environ of an ASGI request, for our WSGI middleware; and the scope that this middleware has left. Pure.

For the worker classes asgi and uvicorn, on their loop: another server has parsed the request.
"""

from __future__ import annotations

import io
import sys
from typing import Any
from wsgiref.util import FileWrapper

from .scope import headers_of

BLOCK = 2**16
"""Bytes of a file in one ASGI message."""
UNPREFIXED = {"HTTP_CONTENT_TYPE": "CONTENT_TYPE", "HTTP_CONTENT_LENGTH": "CONTENT_LENGTH"}


def environ_of(scope: dict[str, Any], script: str) -> dict[str, Any]:
    """Return a WSGI environ without a body; ``script`` is the script name of the server's environment.

    A header whose name has an underscore is dropped, as Gunicorn does: it would hide one with a hyphen.
    """
    client, server = _address(scope.get("client")), _address(scope.get("server"))
    query = scope.get("query_string", b"").decode("latin-1")
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "SCRIPT_NAME": script,
        "PATH_INFO": scope["path"].removeprefix(script).encode().decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": f"{raw}?{query}" if query else raw,
        "SERVER_NAME": str(server[0] or ""),
        "SERVER_PORT": str(server[1] or ""),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "REMOTE_ADDR": str(client[0] or ""),
        "REMOTE_PORT": str(client[1] or 0),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": WEB_SCHEMES.get(scope["scheme"], scope["scheme"]),
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": lambda file, size=BLOCK: FileWrapper(file, BLOCK),
    }
    for name, value in scope["headers"]:
        if b"_" in name:
            continue
        key = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        key, text = UNPREFIXED.get(key, key), value.decode("latin-1")
        if key in environ:
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    return environ


def _address(given: Any) -> tuple[Any, Any]:
    """Return host and port. Of a unix socket uvicorn gives the path; Gunicorn 27.0.1 two letters of it."""
    if not given:
        return "", None
    host, port = given
    return (host, port) if port is None or isinstance(port, int) else ("", None)


WEB_SCHEMES = {"ws": "http", "wss": "https"}
SOCKET_SCHEMES = {scheme: socket for socket, scheme in WEB_SCHEMES.items()}


def sanitised(scope: dict[str, Any], environ: dict[str, Any]) -> dict[str, Any]:
    """Return the scope with what the middleware has left of the client's data."""
    scheme, port = environ["wsgi.url_scheme"], environ["SERVER_PORT"]
    return {
        **scope,
        "headers": headers_of(environ),
        "client": (environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0)),
        "server": (environ["SERVER_NAME"], int(port) if port else None),
        "scheme": SOCKET_SCHEMES.get(scheme, scheme) if scope["type"] == "websocket" else scheme,
        "root_path": environ["SCRIPT_NAME"],
    }
