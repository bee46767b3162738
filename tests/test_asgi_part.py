"""Which requests run on the asyncio loop: their paths as clients send them, and files that come first."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import URLResolver, path, re_path
from django.urls.resolvers import RegexPattern

from django_prodserve.asgi.chosen_roads import Road
from django_prodserve.asgi.leases import Leases
from django_prodserve.asgi.part import AsyncPart
from django_prodserve.asgi.routes import Routes


async def live(request: HttpRequest, **parts: Any) -> HttpResponse:
    return HttpResponse()


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served here")


def part(*urls: Any, script: str = "", files: str = "/static/", **more: Any) -> AsyncPart:
    usual: Road = "async" if more.get("takes") == "all" else "sync"
    routes = Routes(URLResolver(RegexPattern(r"^/"), [*urls]), usual=usual)
    return AsyncPart(
        application=application,
        routes=routes,
        leases=Leases(1, 1.0),
        why_stock="",
        shares_loop=False,
        files=[lambda path: path.startswith(files)],
        script=script,
        **more,
    )


@pytest.mark.parametrize(
    ("asked", "is_async"),
    [("/live/", True), ("/plain/", False), ("/nothing/", False), ("/l%69ve/", True), ("/caf%C3%A9/", True)],
)
def test_the_view_decides(asked: str, is_async: bool) -> None:
    found = part(path("live/", live), path("plain/", plain), path("café/", live))
    assert found.wants(asked) is is_async


def test_a_file_comes_before_a_route_for_everything() -> None:
    found = part(re_path(r"^.*$", live))
    assert found.wants("/anything")
    assert not found.wants("/static/app.css")
    assert not found.wants("/st%61tic/app.css")


def test_a_script_name_is_not_in_a_route() -> None:
    found = part(path("live/", live), script="/shop")
    assert found.wants("/shop/live/")
    assert not found.wants("/shop/shop/live/")


def test_all_requests_but_those_for_files_may_run_on_the_loop() -> None:
    found = part(path("plain/", plain), takes="all")
    assert [*map(found.wants, ("/plain/", "/nothing/", "/static/app.css"))] == [True, True, False]


def test_websockets_alone_take_no_http_request() -> None:
    found = part(path("live/", live), takes="nothing", websocket=application)
    assert not found.wants("/live/")
