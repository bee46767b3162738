"""Build the WSGI environ of a request as Gunicorn's ``create`` does, from a base that is built once.

Lives in a worker, in the thread that runs the request.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gunicorn.http import wsgi
from gunicorn.http.errors import ConfigurationProblem

from .parser import RequestHead

if TYPE_CHECKING:
    from .parser import RequestHead


NAMES_REMEMBERED = 512

NOTHING: dict[str, Responder] = {}


class EnvironBuilder:
    """Builds environs for requests that arrive at one listener."""

    def __init__(
        self, config: Any, server: Any, page: Callable[[str], Responder | None] = NOTHING.get
    ) -> None:
        self.page = page
        """Returns the function that answers a path here without Django, or None."""
        self.otherwise: Responder | None = None
        """Answers every other request to this listener, without its body; None if Django does."""
        self.base: dict[str, Any] = {
            **wsgi.base_environ(config),
            "wsgi.multithread": True,
            "wsgi.url_scheme": "https" if config.is_ssl else "http",
            "SCRIPT_NAME": os.environ.get("SCRIPT_NAME", ""),
        }
        self.path = server if isinstance(server, str) else None  # set for a unix socket
        if self.path is None:
            self.base |= {"SERVER_NAME": server[0], "SERVER_PORT": str(server[1])}
        self._keys: dict[str, str] = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}

    def build(
        self,
        request: RequestHead,
        client: Any,
        body: tuple[IO[bytes], int] | None,
        introduced: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the environ; ``body`` is a complete body and its length.

        ``client``, the client's address, and ``introduced``, the data of the PROXY protocol, belong to the
        connection: they are the same for all its requests.
        """
        environ = self.base.copy()
        version = request.version
        environ["REQUEST_METHOD"] = request.method
        environ["QUERY_STRING"] = request.query
        environ["RAW_URI"] = request.uri
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if version == (1, 1) else f"HTTP/{version[0]}.{version[1]}"
        keys = self._keys
        for name, value in request.headers:
            key = keys.get(name) or self._learn(name)
            if key in environ:
                # RFC 9113 8.2.3: cookies are joined as in a single field; with a comma Django loses some.
                value = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{value}"
            environ[key] = value
        if request.scheme != environ["wsgi.url_scheme"]:
            environ["wsgi.url_scheme"] = request.scheme
        if isinstance(client, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])
        else:
            environ["REMOTE_ADDR"] = client if isinstance(client, str) else client.decode()
        if self.path is not None:
            _name_server(environ, self.path)
        path = request.path
        script = self.base["SCRIPT_NAME"]
        if "HTTP_SCRIPT_NAME" in environ:  # from "Script-Name", a header that no proxy sends
            script = next((value for name, value in request.headers if name == "SCRIPT_NAME"), script)
        if script:
            if not path.startswith(script):
                raise ConfigurationProblem(
                    f"Request path {path!r} does not start with SCRIPT_NAME {script!r}"
                )
            path = path[len(script) :]
            environ["SCRIPT_NAME"] = script
        # The parser accepts only ASCII, so a path without % needs no decoding.
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        self._set_body(environ, body)
        if introduced:
            environ.update(introduced)
        return environ

    def _set_body(self, environ: dict[str, Any], body: tuple[IO[bytes], int] | None) -> None:
        if body is None:
            environ["wsgi.input"] = io.BytesIO()
            return
        environ["wsgi.input"], length = body
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            environ["CONTENT_LENGTH"] = str(length)  # Django reads no further than this

    def _learn(self, name: str) -> str:
        key = "HTTP_" + name.replace("-", "_")
        if len(self._keys) < NAMES_REMEMBERED:
            self._keys[name] = key
        return key


def _name_server(environ: dict[str, Any], path: str) -> None:
    """Name the server of a unix socket as Gunicorn does: by the Host header, or else by its path."""
    name, colon, port = environ.get("HTTP_HOST", "").partition(":")
    default = "443" if environ["wsgi.url_scheme"] == "https" else "80"
    environ["SERVER_NAME"] = name or path
    environ["SERVER_PORT"] = port if colon else default if name else ""


Responder = Callable[["RequestHead", bool], bytes]
"""Builds a complete response to a request; the flag is whether another request may follow."""
