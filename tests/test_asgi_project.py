"""What serves each kind of scope: Django's handler, Channels' router, and what projects put around both."""

from __future__ import annotations

from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.wsgi import get_wsgi_application

from django_prodserve.asgi.project import ProjectApplication, divide, load_application
from django_prodserve.cli.export_conf import _environment
from django_prodserve.errors import ProdserveError, UsageError
from django_prodserve.middleware.application import _find_async_part, unserved
from django_prodserve.plan.pipeline import with_road_table

from .facts import plan


async def consumer(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served here")


class Wrapper:
    """An ASGI application around another one."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.application(scope, receive, send)


class Handler(ASGIHandler):
    """A handler of the project, which may do more."""


class Router(ProtocolTypeRouter):  # type: ignore[misc]  # Channels has no types
    """A router of the project, which does more."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class Named(ProtocolTypeRouter):  # type: ignore[misc]  # Channels has no types
    """A router of the project, which does nothing of its own."""


def parts(application: Any) -> tuple[str, bool, bool]:
    found = divide("shop.asgi.application", application)
    return found.foreign, found.has_websockets, found.has_lifespan


django = get_asgi_application()
sockets = AllowedHostsOriginValidator(URLRouter([]))


@pytest.mark.parametrize(
    ("application", "expected"),
    [
        (django, ("", False, False)),
        (ProtocolTypeRouter({"http": django, "websocket": sockets}), ("", True, False)),
        (ProtocolTypeRouter({"websocket": sockets}), ("", True, False)),
        (ProtocolTypeRouter({"http": django}), ("", False, False)),
        (ProtocolTypeRouter({"http": django, "lifespan": consumer}), ("", False, True)),
        (Named({"http": django, "websocket": sockets}), ("", True, False)),
        (
            ProtocolTypeRouter({"http": URLRouter([]), "websocket": sockets}),
            ("channels.routing.URLRouter", True, False),
        ),
        (Router({"http": django}), (f"{__name__}.Router", True, True)),
        (Wrapper(django), (f"{__name__}.Wrapper", True, True)),
        (Wrapper(ProtocolTypeRouter({"http": django})), (f"{__name__}.Wrapper", True, True)),
        (Handler(), (f"{__name__}.Handler", True, True)),
        (
            ASGIStaticFilesHandler(django),
            ("django.contrib.staticfiles.handlers.ASGIStaticFilesHandler", True, True),
        ),
        (consumer, (f"{__name__}.consumer", True, True)),
    ],
    ids=range(13),
)
def test_what_serves_http_websockets_and_lifespan(application: Any, expected: tuple[str, bool, bool]) -> None:
    assert parts(application) == expected


def test_the_outermost_application_gets_websockets_and_lifespan() -> None:
    router = ProtocolTypeRouter({"http": django, "websocket": sockets, "lifespan": consumer})
    found = divide("shop.asgi.application", router)
    assert found.websocket is found.lifespan is router
    plain = divide("shop.asgi.application", django)
    assert plain.websocket is plain.lifespan is None


def test_a_project_without_the_setting_has_none(settings: Any) -> None:
    settings.ASGI_APPLICATION = None
    assert load_application() is None
    del settings.ASGI_APPLICATION
    assert load_application() is None


def test_the_setting_is_imported(settings: Any) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.django"
    assert load_application() == ProjectApplication(path=f"{__name__}.django", application=django)


wsgi = get_wsgi_application()
router = ProtocolTypeRouter({"http": django, "websocket": sockets})
number = 7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "shop.no_such_module.application",
            "shop.no_such_module.application cannot be loaded: ",
        ),
        (
            "tests.test_asgi_project.nothing",
            "tests.test_asgi_project.nothing cannot be loaded: ",
        ),
        ("nodots", "ASGI_APPLICATION nodots cannot be loaded: "),
        ("tests.test_asgi_project", "'tests.test_asgi_project', but that is a module."),
        ("tests.test_asgi_project.wsgi", "but that is Django's WSGI application."),
        ("tests.test_asgi_project.Wrapper", "but that is a class and not an instance of it."),
        ("tests.test_asgi_project.number", "but that is an object of class int, which cannot be called."),
    ],
)
def test_what_cannot_be_used_is_named_with_its_fix(settings: Any, path: str, message: str) -> None:
    settings.ASGI_APPLICATION = path
    with pytest.raises(ProdserveError) as caught:
        load_application()
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "stated", "line"),
    [
        ("consumer", {"worker_class": "gthread"}, "consumer gets no requests."),
        ("router", {"worker_class": "gthread"}, "router gets no websockets."),
        ("django", {"worker_class": "gthread"}, ""),
        ("no_such", {"worker_class": "gthread"}, ""),
        ("consumer", {"asgi": "off"}, ""),
    ],
)
def test_workers_without_a_loop_name_what_they_do_not_serve(
    settings: Any, name: str, stated: dict[str, Any], line: str
) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.{name}"
    assert _find_async_part(plan(**stated), wsgi, str) is None
    found = unserved(plan(**stated))
    assert bool(found) == bool(line)
    assert found is None or found.message == f"gthread workers run async views in threads: {__name__}.{line}"


def test_roads_without_a_loop_are_named() -> None:
    lines: list[str] = []
    assert _find_async_part(plan(asgi="off", roads="nothing=loop"), wsgi, lines.append) is None
    assert lines == ["async     test has no effect: --asgi is off"]


def test_the_plan_names_the_application_in_place_of_djangos(settings: Any) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.consumer"
    found = with_road_table(plan()).asgi
    assert (found.value, found.source) == ("hybrid", "default")
    assert found.why.startswith(f"all requests and websockets on the asyncio loop, by {__name__}.consumer, ")
    assert with_road_table(plan(asgi="hybrid")).asgi.why.endswith(
        "consumer gets no HTTP requests: test is hybrid"
    )


def test_the_plan_is_made_without_an_application_that_cannot_be_loaded(settings: Any) -> None:
    settings.ASGI_APPLICATION = "no.such"
    assert with_road_table(plan()).notes[-1].startswith("ASGI_APPLICATION no.such cannot be loaded: ")
    assert with_road_table(plan(asgi="off")).notes == ()


def test_a_plan_refuses_a_road_for_no_route() -> None:
    with pytest.raises(UsageError, match="test has 'nothing', but no route or view has this name"):
        with_road_table(plan(roads="nothing=loop"))


def test_a_file_for_gunicorn_states_no_default_mode() -> None:
    def names(**stated: Any) -> list[str]:
        return [name for name, _, _ in _environment(plan(**stated)) if name.startswith("PRODSERVE_ASGI")]

    assert names() == []
    assert names(asgi="hybrid") == names(asgi="off") == names(worker_class="gthread") == ["PRODSERVE_ASGI"]
