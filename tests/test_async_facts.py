"""What a loaded project tells about its async views, and the warnings that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from channels.sessions import SessionMiddlewareStack
from django.core.checks import CheckMessage
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import URLResolver, include, path
from django.urls.resolvers import RegexPattern
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin
from django.views import View

from django_prodserve.project import async_facts
from django_prodserve.project.async_facts import AsyncFacts, Receiver
from django_prodserve.project.detect import Database
from django_prodserve.startup import async_checks
from django_prodserve.staticfiles import StaticChoice

from .facts import plan, project

HERE = __name__
ROADS = "1 async route on the asyncio loop; 1 sync route in threads"


async def live(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@transaction.non_atomic_requests
async def exempt(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class Live(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


ROUTES = [
    path("live/", live),
    path("in/", include([path("exempt/", exempt), path("class/", Live.as_view())])),
]


def views(*urls: Any) -> list[Callable[..., Any]]:
    return [*async_facts.async_views(URLResolver(RegexPattern(r"^/"), [*urls]))]


def warnings(static: Any = "collect", **facts: Any) -> list[CheckMessage]:
    made = plan(project_=project(static=StaticChoice(mode=static, why=""))).with_road_table(ROADS)
    return [*async_checks.run(made, AsyncFacts(**{"async_views": 1, **facts}))]


def test_async_views_are_found_at_any_depth() -> None:
    found = views(path("plain/", plain), *ROUTES)
    assert [*map(async_facts.name_of, found)] == [f"{HERE}.{name}" for name in ("live", "exempt", "Live")]
    assert views(path("plain/", plain)) == []


# Middleware.


class Mixed(MiddlewareMixin):
    pass


class Old:
    def __init__(self, get_response: Any) -> None:
        pass


def function(get_response: Any) -> Any:
    return get_response


@sync_and_async_middleware
def both(get_response: Any) -> Any:
    return get_response


class Recorder(BaseHandler):
    """Django's chain of an async handler: notes how each middleware was linked."""

    def adapt_method_mode(self, is_async: bool, method: Any, *arguments: Any, **options: Any) -> Any:
        self.modes = [*getattr(self, "modes", []), is_async]
        return super().adapt_method_mode(is_async, method, *arguments, **options)


def test_middleware_that_django_links_in_a_thread_is_found(settings: Any) -> None:
    names = [f"{HERE}.{name}" for name in ("Mixed", "Old", "function", "both")]
    assert [*async_facts.sync_only([*names, "no.such"])] == [f"{HERE}.Old", f"{HERE}.function"]
    for name, is_async in zip(names, (True, False, False, True), strict=True):
        settings.MIDDLEWARE = [name]
        handler = Recorder()
        handler.load_middleware(is_async=True)
        assert handler.modes[0] is is_async  # of Django itself
    from django.conf import global_settings

    assert [*async_facts.sync_only([*global_settings.MIDDLEWARE, *DJANGOS])] == []


DJANGOS = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.common.BrokenLinkEmailsMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


def test_sync_only_middleware_is_named_in_one_warning() -> None:
    (found,) = warnings(sync_only=("a.B", "c.D"))
    assert found.id == "prodserve.W023"
    assert "(a.B, c.D)" in found.msg
    assert "holds a thread" in found.msg


def test_whitenoises_middleware_is_replaced_unless_the_project_serves_its_files() -> None:
    noise = (async_checks.WHITENOISE,)
    assert warnings(sync_only=noise) == []
    (found,) = warnings("off", sync_only=noise)
    assert found.id == "prodserve.W023"


# Transactions.


@pytest.fixture
def atomic(settings: Any) -> Iterator[None]:
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    yield
    connections.settings["default"]["ATOMIC_REQUESTS"] = False


@pytest.mark.usefixtures("atomic")
def test_an_async_view_that_djangos_transactions_break_is_found() -> None:
    found = views(*ROUTES)
    alias, broken = async_facts.broken_by_transactions(found)
    assert (alias, broken) == ("default", [f"{HERE}.live", f"{HERE}.Live"])
    for view in found:
        if async_facts.name_of(view) in broken:
            with pytest.raises(RuntimeError, match="ATOMIC_REQUESTS"):
                BaseHandler().make_view_atomic(view)  # Django itself
        else:
            BaseHandler().make_view_atomic(view)
    (message,) = warnings(atomic_alias=alias, atomic=tuple(broken))
    assert message.id == "prodserve.W024"
    assert f"2 async views, for example {HERE}.live" in message.msg
    assert "non_atomic_requests" in str(message.hint)


def test_without_atomic_requests_no_view_is_broken() -> None:
    assert async_facts.broken_by_transactions(views(*ROUTES)) == ("", [])


# Receivers.


def of_environ(sender: Any, environ: Any, **kwargs: Any) -> None: ...


def of_scope(sender: Any, scope: Any = None, **kwargs: Any) -> None: ...


def of_both(sender: Any, environ: Any = None, scope: Any = None, **kwargs: Any) -> None: ...


def of_neither(sender: Any, **kwargs: Any) -> None: ...


class Agent:
    def started(self, client: Any, sender: Any, scope: Any, **kwargs: Any) -> None: ...


AGENT = partial(Agent().started, 1)


@pytest.mark.parametrize(
    ("receiver", "found"),
    [
        (of_environ, Receiver(name=f"{HERE}.of_environ", parameter="environ", is_required=True)),
        (of_scope, Receiver(name=f"{HERE}.of_scope", parameter="scope", is_required=False)),
        (
            partial(Agent().started, 1),
            Receiver(name=f"{HERE}.Agent.started", parameter="scope", is_required=True),
        ),
        (of_both, None),
        (of_neither, None),
    ],
)
def test_a_receiver_of_one_road_is_found(receiver: Any, found: Receiver | None) -> None:
    before = [*async_facts.one_sided()]
    assert before == []  # Django's, ours and Channels'
    request_started.connect(receiver)
    try:
        assert [*async_facts.one_sided()] == ([] if found is None else [found])
        if found is not None and found.is_required:
            other = "scope" if found.parameter == "environ" else "environ"
            with pytest.raises(TypeError, match=found.parameter):
                request_started.send(sender=None, **{other: RequestFactory().get("/").META})
    finally:
        request_started.disconnect(receiver)


@pytest.mark.parametrize(
    ("parameter", "is_required", "words"),
    [
        ("environ", True, "'environ', which requests of async views do not send: each of them fails"),
        ("scope", False, "'scope', which requests of sync views do not send: it learns nothing"),
    ],
)
def test_a_receiver_is_told_what_it_misses(parameter: str, is_required: bool, words: str) -> None:
    receiver = Receiver(name="shop.log", parameter=parameter, is_required=is_required)
    (found,) = warnings(receivers=(receiver,))
    assert found.id == "prodserve.W025"
    assert words in found.msg


@pytest.mark.parametrize("stated", [{"asgi": "asgi"}, {"worker_class": "uvicorn"}])
def test_where_no_request_runs_in_threads_each_one_has_a_scope(stated: dict[str, Any]) -> None:
    names = [Receiver(name=f"shop.{name}", parameter=name, is_required=True) for name in ("environ", "scope")]
    facts = AsyncFacts(sync_only=("a.B",), receivers=tuple(names))
    found = [*async_checks.run(plan(**stated), facts)]
    assert [message.id for message in found] == ["prodserve.W023", "prodserve.W025"]
    assert "shop.environ" in found[1].msg


# Websockets.


class Wrapper:
    """A wrapper as projects write it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


async def unknown(scope: Any, receive: Any, send: Any) -> None: ...


CHAT = AsyncWebsocketConsumer.as_asgi()
ROUTER = URLRouter([path("chat/", CHAT)])
MIXED = URLRouter([path("safe/", OriginValidator(CHAT, ["shop.example"])), path("chat/", CHAT)])
SAFE = URLRouter([path("safe/", AllowedHostsOriginValidator(CHAT))])
application = ProtocolTypeRouter({"websocket": SessionMiddlewareStack(ROUTER)})
checked = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(SessionMiddlewareStack(ROUTER))})


@pytest.mark.parametrize(
    ("part", "is_open"),
    [
        (CHAT, True),
        (ROUTER, True),
        (MIXED, True),
        (URLRouter([path("in/", ROUTER)]), True),
        (SessionMiddlewareStack(ROUTER), True),
        (Wrapper(ROUTER), True),
        (SAFE, False),
        (AllowedHostsOriginValidator(ROUTER), False),
        (Wrapper(SessionMiddlewareStack(OriginValidator(ROUTER, ["*"]))), False),
        (unknown, False),
        (Wrapper(unknown), False),
        (None, False),
    ],
)
def test_a_consumer_that_any_site_may_open_is_found(part: Any, is_open: bool) -> None:
    assert async_facts.leads_to_consumer(part, OriginValidator) is is_open


@pytest.mark.parametrize(
    ("path_", "found"),
    [
        (f"{HERE}.application", f"{HERE}.application"),
        (f"{HERE}.checked", ""),
        (f"{HERE}.unknown", ""),
        ("no.such", ""),
        (None, ""),
    ],
)
def test_the_application_with_open_websockets_is_named(settings: Any, path_: str | None, found: str) -> None:
    settings.ASGI_APPLICATION = path_
    facts = AsyncFacts.read()
    assert facts.open_sockets == found
    messages = warnings(open_sockets=facts.open_sockets)
    assert [message.id for message in messages] == ["prodserve.W027"] * bool(found)


def test_what_runs_in_threads_has_no_warning() -> None:
    facts = AsyncFacts(async_views=1, sync_only=("a.B",), atomic=("a.b",), atomic_alias="default")
    assert [*async_checks.run(plan(), facts)] == []
    assert [*async_checks.run(plan().with_road_table(ROADS), AsyncFacts(sync_only=("a.B",)))] == []


async def around(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served here")


@pytest.mark.parametrize(
    ("name", "database", "stated", "is_found"),
    [
        ("around", {"max_age": 60.0}, {}, True),
        ("around", {"max_age": None}, {}, True),
        ("around", {"max_age": 60.0}, {"asgi": "asgi"}, True),
        ("around", {"max_age": 60.0}, {"asgi": "hybrid"}, False),
        ("around", {"max_age": 0.0}, {}, False),
        ("around", {"max_age": 60.0, "pool_size": 4}, {}, False),
        ("around", {"max_age": 60.0, "vendor": "sqlite"}, {}, False),
        ("no_such", {"max_age": 60.0}, {}, False),
    ],
)
def test_an_application_around_django_that_keeps_connections_is_named(
    settings: Any, name: str, database: dict[str, Any], stated: dict[str, Any], is_found: bool
) -> None:
    settings.ASGI_APPLICATION = f"{HERE}.{name}"
    entry = Database(**{"alias": "default", "vendor": "postgresql", "where": "shop", **database})
    made = plan(project_=project(databases=(entry,)), **stated).with_road_table(ROADS)
    found = [*async_checks.run(made, AsyncFacts.read())]
    assert [message.id for message in found] == ["prodserve.W028"] * is_found
    assert not found or f"in {HERE}.around each request" in found[0].msg
