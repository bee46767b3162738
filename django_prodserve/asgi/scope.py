"""The ASGI scope of a request, from the environ that our middleware has sanitised.

Runs on the thread of the asyncio loop. Pure.
"""

from __future__ import annotations

from typing import Any


def websocket_scope_of(environ: dict[str, Any], request: Any, subprotocols: list[str]) -> dict[str, Any]:
    """Return the ASGI scope of a websocket."""
    scope = scope_of(environ, request, "websocket")
    del scope["method"]
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = subprotocols
    scope["extensions"] = {"websocket.http.response": {}}
    return scope


def scope_of(environ: dict[str, Any], request: Any, kind: str = "http") -> dict[str, Any]:
    """Return the ASGI scope of a request; its headers are those that the middleware has left."""
    script = environ["SCRIPT_NAME"]
    path = (script + environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
    port = environ.get("SERVER_PORT")
    scope = {
        "type": kind,
        # Not 2.4: a send after the client has left does nothing, and raises no OSError.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1" if request.version >= (1, 1) else "1.0",
        "method": request.method,
        "scheme": environ["wsgi.url_scheme"],
        "path": path,
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": script,
        "headers": headers_of(environ),
        "server": (environ.get("SERVER_NAME", ""), int(port) if port else None),
        "client": (environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)),
        "state": {},
        "extensions": {},
    }
    if "gunicorn.socket" in environ:
        scope["gunicorn.socket"] = environ["gunicorn.socket"]
    return scope


def headers_of(environ: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return the headers that an environ has."""
    headers = [
        (key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]
    for key, name in (("CONTENT_TYPE", b"content-type"), ("CONTENT_LENGTH", b"content-length")):
        if environ.get(key):
            headers.append((name, environ[key].encode("latin-1")))
    return headers
