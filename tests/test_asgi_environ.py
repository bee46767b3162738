"""The environ of a request that another ASGI server has parsed, and the scope that our middleware leaves."""

from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.asgi.environ import environ_of, sanitised
from django_prodserve.config.trust import parse_trust
from django_prodserve.middleware.proxy_headers import ProxyHeadersMiddleware


def scope(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "http_version": "1.1",
        "scheme": "http",
        "path": "/shop/søk",
        "raw_path": b"/shop/s%C3%B8k",
        "query_string": b"q=1",
        "root_path": "",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5000),
        "headers": [(b"host", b"shop.example"), *headers],
        **more,
    }


def test_an_environ_has_what_wsgi_requires() -> None:
    environ = environ_of(scope((b"content-length", b"3"), (b"content-type", b"text/plain")), "/shop")
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/søk"
    assert (environ["SCRIPT_NAME"], environ["RAW_URI"]) == ("/shop", "/shop/s%C3%B8k?q=1")
    assert (environ["CONTENT_LENGTH"], environ["CONTENT_TYPE"]) == ("3", "text/plain")
    assert (environ["HTTP_HOST"], environ["SERVER_PROTOCOL"]) == ("shop.example", "HTTP/1.1")
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("127.0.0.1", "8000")


def test_repeated_headers_are_joined_and_those_with_underscores_dropped() -> None:
    environ = environ_of(
        scope((b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"x=1"), (b"cookie", b"y=2"), (b"a_b", b"c")),
        "",
    )
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "x=1; y=2")
    assert "HTTP_A_B" not in environ


FORWARDED = [
    (b"x-forwarded-for", b"203.0.113.9"),
    (b"x-forwarded-proto", b"https"),
    (b"x-real-ip", b"1.1.1.1"),
]


@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
def test_a_trusted_proxy_names_client_and_scheme(kind: str, scheme: str) -> None:
    plain = {"https": "http", "wss": "ws"}[scheme]
    given = scope(*FORWARDED, type=kind, scheme=plain)
    environ = environ_of(given, "")
    ProxyHeadersMiddleware(lambda *_: [], parse_trust(("loopback",))).sanitize(environ)
    left = sanitised(given, environ)
    assert (left["client"][0], left["scheme"], left["server"][1]) == ("203.0.113.9", scheme, 443)
    assert dict(left["headers"])[b"x-real-ip"] == b"203.0.113.9"
    assert given["client"] == ("127.0.0.1", 5000)


def test_nobody_else_does() -> None:
    given = scope(*FORWARDED)
    environ = environ_of(given, "")
    ProxyHeadersMiddleware(lambda *_: [], parse_trust(())).sanitize(environ)
    left = sanitised(given, environ)
    assert (left["client"], left["scheme"]) == (("127.0.0.1", 5000), "http")
    assert left["headers"] == [(b"host", b"shop.example")]


@pytest.mark.parametrize(
    ("server", "seen"), [(("/run/shop.sock", None), "/run/shop.sock"), (("/", "r"), ""), (None, "")]
)
def test_a_unix_socket_has_no_address(server: Any, seen: str) -> None:
    given = scope(client=None, server=server)
    left = sanitised(given, environ_of(given, ""))
    assert (left["client"], left["server"]) == (("", 0), (seen, None))
