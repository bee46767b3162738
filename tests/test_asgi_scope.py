"""The ASGI scope that async views get, from the environ of a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.asgi.scope import scope_of, websocket_scope_of


def scope(
    path: str = "/",
    version: tuple[int, int] = (1, 1),
    subprotocols: list[str] | None = None,
    **environ: Any,
) -> dict[str, Any]:
    request = SimpleNamespace(method="GET", path=path, query="a=1", version=version)
    full = {
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "wsgi.url_scheme": "https",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "443",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "4711",
        **environ,
    }
    return (
        scope_of(full, request) if subprotocols is None else websocket_scope_of(full, request, subprotocols)
    )


def test_it_is_what_asgi_asks_for() -> None:
    found = scope("/live/", HTTP_HOST="shop.example", HTTP_X_REAL_IP="192.0.2.7", CONTENT_LENGTH="3")
    assert (found["type"], found["method"], found["scheme"], found["http_version"]) == (
        *("http", "GET", "https", "1.1"),
    )
    assert (found["path"], found["raw_path"], found["query_string"]) == ("/live/", b"/live/", b"a=1")
    assert (found["server"], found["client"]) == (("shop.example", 443), ("192.0.2.7", 4711))
    assert found["headers"] == [
        (b"host", b"shop.example"),
        (b"x-real-ip", b"192.0.2.7"),
        (b"content-length", b"3"),
    ]


def test_a_header_that_the_middleware_has_removed_is_missing_here_too() -> None:
    assert scope(HTTP_HOST="shop.example")["headers"] == [(b"host", b"shop.example")]
    assert scope(CONTENT_TYPE="", CONTENT_LENGTH="")["headers"] == []


@pytest.mark.parametrize(
    ("info", "path"),
    [("/caf\xc3\xa9/", "/café/"), ("/\xff/", "/\ufffd/"), ("/a b/", "/a b/")],
)
def test_a_path_is_text_as_under_any_asgi_server(info: str, path: str) -> None:
    assert scope("/caf%C3%A9/", PATH_INFO=info)["path"] == path


def test_a_script_name_is_part_of_the_path_and_the_root_path() -> None:
    found = scope("/shop/live/", SCRIPT_NAME="/shop", PATH_INFO="/live/")
    assert (found["root_path"], found["path"]) == ("/shop", "/shop/live/")


def test_without_ports_and_with_an_old_protocol() -> None:
    found = scope(version=(1, 0), SERVER_PORT="", REMOTE_ADDR="", REMOTE_PORT="")
    assert (found["server"], found["client"], found["http_version"]) == (
        *(("shop.example", None), ("", 0), "1.0"),
    )


def test_that_of_a_websocket_has_its_own_scheme_and_no_method() -> None:
    found = scope("/chat/", subprotocols=["chat"], HTTP_HOST="shop.example")
    assert (found["type"], found["scheme"], found["subprotocols"]) == ("websocket", "wss", ["chat"])
    assert "method" not in found
    assert found["extensions"] == {"websocket.http.response": {}}
    assert found["headers"] == [(b"host", b"shop.example")]
    assert scope(subprotocols=[], **{"wsgi.url_scheme": "http"})["scheme"] == "ws"
