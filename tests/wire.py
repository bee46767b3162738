"""What our worker and what Gunicorn makes of bytes on a connection, for tests that compare the two.

Ours is the real way in: ``RequestReceiver`` with its parser, cache and bodies, a ``Connection`` and its
environs. Only the event loop is missing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser

from django_prodserve.http.environ import EnvironBuilder
from django_prodserve.http.parser import ParserSettings
from django_prodserve.worker.connection import Connection
from django_prodserve.worker.receiver import RequestReceiver

PARSERS = ["python", *(["fast"] if importlib.util.find_spec("gunicorn_h1c") else [])]
if len(PARSERS) < 2 and "gunicorn_h1c" in os.environ.get("TESTS_REQUIRE", ""):
    raise ImportError("TESTS_REQUIRE names gunicorn_h1c, which is not installed")
PEER = ("198.51.100.7", 4711)
SERVER = ("127.0.0.1", 8000)
OTHERS = {"wsgi.input", "wsgi.errors", "gunicorn.socket", "wsgi.early_hints", "wsgi.multithread"}
"""Made anew for each request, or deliberately not ours."""
MOST = 50
"""Requests of one conversation."""


@functools.cache  # each costs 10 ms
def config(parser: str, **more: Any) -> Config:
    """Return Gunicorn's settings as we set them."""
    made = Config()
    ours = {"forwarded_allow_ips": "", "secure_scheme_headers": {}, "forwarder_headers": ""}
    for name, value in {**ours, "http_parser": parser, **more}.items():
        made.set(name, value)
    return made


@dataclass(frozen=True)
class Taken:
    """A request that reaches the application."""

    method: str
    uri: str
    path: str
    query: str
    version: tuple[int, int]
    headers: tuple[tuple[str, str], ...]
    body: bytes
    environ: dict[str, Any]
    closes: bool


@dataclass(frozen=True)
class Refused:
    """A request that is answered with a refusal; nothing behind it is read."""

    kind: str
    why: str = ""


@dataclass(frozen=True)
class Unfinished:
    """Bytes that wait for more."""


Verdict = Taken | Refused | Unfinished


def alike(one: list[Verdict], other: list[Verdict]) -> bool:
    """Say whether both took and refused the same; of several faults another may be told."""
    if len(one) != len(other):
        return False
    return all(
        a == b or (isinstance(a, Refused) and isinstance(b, Refused)) for a, b in zip(one, other, strict=True)
    )


class Ours:
    """The worker's way in, with all that it remembers of requests before."""

    def __init__(self, parser: str, *, max_body: int = 0, **more: Any) -> None:
        settings = config(parser, **more)
        self._made = ParserSettings, settings, max_body
        self.environs = EnvironBuilder(settings, SERVER)
        self._sock, theirs = socket.socketpair()
        weakref.finalize(self, _close, self._sock, theirs)
        self.forget()

    def forget(self) -> None:
        """Become a fresh worker."""
        parse, settings, max_body = self._made
        self.intake = RequestReceiver(parse(settings), max_body=max_body)

    def hear(self, pieces: Iterable[bytes]) -> list[Verdict]:
        """Return what a new connection that sends these pieces is understood to say."""
        connection = Connection(self._sock, PEER, self.environs)
        try:
            return list(self._hear(connection, pieces))
        finally:
            if connection.arriving is not None:
                connection.arriving.spool.file.close()
            connection.forget_request()

    def _hear(self, connection: Connection, pieces: Iterable[bytes]) -> Iterator[Verdict]:
        for piece in pieces:
            data: bytes | None = piece
            while data is not None:
                try:
                    complete = self.intake.feed(connection, data, 0.0)
                    taken = _ours(connection) if complete else None
                except Exception as error:
                    yield Refused(type(error).__name__, str(error))
                    return
                if taken is None:
                    break
                yield taken
                if taken.closes:
                    return
                behind, connection.buffer = connection.buffer, b""
                connection.forget_request()
                data = behind or None
        yield Unfinished()


def _close(*socks: socket.socket) -> None:
    for sock in socks:
        sock.close()


def _ours(connection: Connection) -> Taken:
    request = connection.request
    assert request is not None
    environ = connection.environ(request, connection.body)
    body = environ["wsgi.input"].read()
    return _taken(request, body, environ)


def _taken(request: Any, body: bytes, environ: dict[str, Any]) -> Taken:
    return Taken(
        request.method,
        request.uri,
        request.path,
        request.query,
        request.version,
        tuple(request.headers),
        body,
        {name: value for name, value in environ.items() if name not in OTHERS},
        request.should_close(),
    )


def gunicorn(parser: str, data: bytes, **more: Any) -> list[Verdict]:
    """Return what Gunicorn itself makes of the same bytes."""
    settings = config(parser, **more)
    source = iter([data]) if data else iter(())
    heard = RequestParser(settings, source, PEER)
    verdicts: list[Verdict] = []
    try:
        for request in heard:
            _, environ = wsgi.create(request, _Sock(), PEER, SERVER, settings)
            length = environ.get("CONTENT_LENGTH")
            body = request.body.read()
            if length is not None and len(body) < int(length):
                break  # Gunicorn hands over what has come
            verdicts.append(_taken(request, body, environ))
            if len(verdicts) > MOST:
                return verdicts
    except NoMoreData:
        pass
    except Exception as error:
        return [*verdicts, Refused(type(error).__name__, str(error))]
    if not verdicts or not isinstance(verdicts[-1], Taken) or not verdicts[-1].closes:
        verdicts.append(Unfinished())
    return verdicts


class _Sock:
    def send(self, data: bytes) -> None:
        """Take what Gunicorn answers to Expect."""
