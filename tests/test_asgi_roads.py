"""The roads that a project chooses for single views, and the line that says what runs where."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import URLResolver, include, path, re_path
from django.urls.resolvers import RegexPattern
from django.utils.decorators import method_decorator
from django.views import View

from django_prodserve.asgi.chosen_roads import ChosenRoads, Road
from django_prodserve.asgi.project import ProjectApplication
from django_prodserve.asgi.road_table import RoadTable
from django_prodserve.asgi.routes import Routes
from django_prodserve.errors import UsageError
from django_prodserve.middleware.route_names import alone
from django_prodserve.roads import run_in_threads, run_on_loop
from django_prodserve.utils.decision import Decision


async def live(request: HttpRequest, **parts: Any) -> HttpResponse:
    return HttpResponse("live")


def plain(request: HttpRequest, **parts: Any) -> HttpResponse:
    return HttpResponse("plain")


@run_in_threads
async def heavy(request: HttpRequest) -> HttpResponse:
    return HttpResponse("heavy")


@run_on_loop
def scoped(request: HttpRequest) -> HttpResponse:
    return HttpResponse("scoped")


@method_decorator(run_on_loop, name="dispatch")
class Scoped(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("Scoped")


@run_in_threads
class Heavy(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("Heavy")


class Deeper(Heavy):
    """A view of the class that has the decorator."""


@functools.wraps(heavy)
async def decorated(request: HttpRequest) -> HttpResponse:
    return await heavy(request)


shop = (
    [
        path("report/<int:number>/", live, name="report"),
        path("live/", live, name="live"),
        path("plain/", plain, name="plain"),
    ],
    "shop",
)
urlpatterns = [
    path("live/", live),
    path("plain/", plain, name="plain"),
    path("heavy/", heavy),
    path("scoped/", scoped),
    path("scoped-class/", Scoped.as_view()),
    path("heavy-class/", Heavy.as_view()),
    path("deeper/", Deeper.as_view()),
    path("decorated/", decorated),
    path("called/", run_on_loop(View.as_view())),
    path("shop/", include(shop)),
    re_path(r"^old/(?P<year>\d+)/$", live, name="old"),
]
RESOLVER = URLResolver(RegexPattern(r"^/"), urlpatterns)


def routes(*entries: str, usual: Road = "sync") -> Routes:
    return Routes(RESOLVER, ChosenRoads(entries, "--roads"), usual)


MARKED = {
    "/heavy/": "sync",
    "/scoped/": "async",
    "/scoped-class/": "async",
    "/heavy-class/": "sync",
    "/deeper/": "sync",
    "/decorated/": "sync",
    "/called/": "async",
}


@pytest.mark.parametrize("asked", [*MARKED])
def test_a_decorator_chooses_on_all_kinds_of_views(asked: str) -> None:
    assert routes().road(asked) == MARKED[asked]


@pytest.mark.parametrize(("asked", "road"), [*MARKED.items(), ("/plain/", "async"), ("/nothing/", "async")])
def test_only_decorated_views_run_in_threads_where_all_others_run_on_the_loop(asked: str, road: str) -> None:
    assert routes(usual="async").road(asked) == road


def test_a_decorator_changes_nothing_else() -> None:
    request = RequestFactory().get("/")
    assert scoped(request).content == b"scoped"
    assert Scoped.as_view()(request).content == b"Scoped"


@pytest.mark.parametrize(
    ("entry", "asked", "road"),
    [
        ("shop:report=threads", "/shop/report/7/", "sync"),
        ("shop:report=threads", "/shop/live/", "async"),
        ("shop:plain=loop", "/shop/plain/", "async"),
        ("shop:plain=loop", "/plain/", "sync"),
        ("plain=loop", "/plain/", "async"),
        ("plain=loop", "/shop/plain/", "sync"),
        (f"{__name__}.live=threads", "/live/", "sync"),
        (f"{__name__}.live=threads", "/shop/live/", "sync"),
        (f"{__name__}.Scoped=threads", "/scoped-class/", "sync"),
        (f"{__name__}.heavy=loop", "/heavy/", "async"),
        ("/shop/=threads", "/shop/report/7/", "sync"),
        ("/shop/=threads", "/live/", "async"),
        ("/shop/=loop", "/shop/plain/", "async"),
        ("/shop/=loop", "/plain/", "sync"),
        ("/shop/report/7/=threads", "/shop/report/7/", "sync"),
        ("/shop/report/7/=threads", "/shop/report/8/", "async"),
        ("/heavy=loop", "/heavy/", "async"),
        ("old=threads", "/old/2026/", "sync"),
        ("/old/2=threads", "/old/2026/", "sync"),
    ],
)
def test_the_setting_chooses_by_name_or_by_the_beginning_of_a_path(entry: str, asked: str, road: str) -> None:
    assert routes(entry).road(asked) == road


def test_a_name_is_stronger_than_a_path_and_a_longer_path_than_a_shorter_one() -> None:
    found = routes("/shop/=threads", "/shop/live/=loop", "shop:report=loop")
    asked = ("/shop/live/", "/shop/plain/", "/shop/report/1/")
    assert [*map(found.road, asked)] == ["async", "sync", "async"]


def test_routes_are_counted_by_their_chosen_roads() -> None:
    before, after = routes(), routes("/shop/=threads", "plain=loop")
    assert (after.async_routes, after.sync_routes) == (
        before.async_routes - 2 + 1,
        before.sync_routes + 2 - 1,
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("shop:reprot=threads", "--roads has 'shop:reprot', but no route or view has this name."),
        ("shop:reprot=threads", "Did you mean 'shop:report'?"),
        (f"{__name__}.heave=loop", f"Did you mean '{__name__}.heavy'?"),
        ("nothing-like-it=loop", "Write the name of a route as for reverse(), or how paths begin."),
        ("/shoop/=threads", "--roads has '/shoop/', but no route begins so."),
        ("/live/more/=threads", "no route begins so.\n  Did you mean '/live/'?"),
    ],
)
def test_a_choice_for_no_route_is_an_error_with_a_suggestion(entry: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        routes(entry)
    assert words in str(caught.value)


def test_all_wrong_choices_are_reported_together() -> None:
    with pytest.raises(UsageError) as caught:
        routes("a=loop", "/b/=loop")
    assert len(caught.value.problems) == 2


def test_an_async_view_in_a_thread_is_remembered_for_its_own_loop() -> None:
    found = routes("shop:live=threads").alone
    assert live in found.values()
    assert heavy in found.values()
    assert plain not in found.values()


@pytest.mark.parametrize("view", [heavy, Heavy.as_view()])
def test_such_a_view_becomes_a_sync_one_that_django_does_not_take_for_async(view: Any) -> None:
    from asgiref.sync import iscoroutinefunction

    assert iscoroutinefunction(view)
    found = alone(view)
    assert not iscoroutinefunction(found)
    assert found(RequestFactory().get("/")).status_code == 200
    assert found.__name__ == view.__name__


# The line.


async def application(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is served here")


def project(foreign: str = "", sockets: bool = False) -> ProjectApplication:
    return ProjectApplication(
        path="shop.asgi.application", application=application, foreign=foreign, has_websockets=sockets
    )


HYBRID = Decision("hybrid", "", "default")
STATED = Decision("hybrid", "", "--asgi")
ASGI = Decision("asgi", "", "PRODSERVE['ASGI']")
FASTAPI = "fastapi.applications.FastAPI"
OWN = f"{application.__module__}.application"


@pytest.mark.parametrize(
    ("mode", "its", "observer", "line"),
    [
        (HYBRID, None, "", "7 async routes on the asyncio loop; 6 sync routes in threads"),
        (HYBRID, project(), "", "7 async routes on the asyncio loop; 6 sync routes in threads"),
        (
            HYBRID,
            project(sockets=True),
            "",
            "7 async routes and websockets on the asyncio loop; 6 sync routes in threads",
        ),
        (
            HYBRID,
            project(),
            "shop.wsgi.application (WSGI_APPLICATION)",
            "all views run in threads: shop.wsgi.application (WSGI_APPLICATION) must see each request",
        ),
        (
            HYBRID,
            project(sockets=True),
            "Gunicorn's pre_request",
            "all views run in threads: Gunicorn's pre_request must see each request; "
            "websockets on the asyncio loop",
        ),
        (
            HYBRID,
            project(FASTAPI, sockets=True),
            "Gunicorn's pre_request",
            "all requests and websockets on the asyncio loop, by shop.asgi.application, whose HTTP part is "
            f"{FASTAPI} and not Django's handler. Each sync view costs a thread call; --asgi hybrid lets "
            "Django answer HTTP without it",
        ),
        (
            HYBRID,
            project(OWN),
            "",
            "all requests on the asyncio loop, by shop.asgi.application, a "
            f"{OWN} and not Django's handler. Each sync view costs a thread call; --asgi hybrid lets "
            "Django answer HTTP without it",
        ),
        (
            STATED,
            project(FASTAPI, sockets=True),
            "",
            "7 async routes and websockets on the asyncio loop; 6 sync routes in threads; "
            f"{FASTAPI} gets no HTTP requests: --asgi is hybrid",
        ),
        (
            ASGI,
            None,
            "Gunicorn's pre_request",
            "all requests on the asyncio loop: PRODSERVE['ASGI'] is asgi, and each sync view costs a thread "
            "call; 4 routes in threads",
        ),
    ],
    ids=range(9),
)
def test_one_line_says_what_runs_where_and_why(
    settings: Any, mode: Decision[str], its: ProjectApplication | None, observer: str, line: str
) -> None:
    settings.ROOT_URLCONF = __name__
    assert str(RoadTable.find(mode, its, observer)) == line


def test_chosen_roads_without_effect_are_named(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    roads = Decision(("plain=loop",), "", "PRODSERVE['ROADS']")
    for table in (
        RoadTable.find(HYBRID, project(FASTAPI), "", roads),
        RoadTable.find(HYBRID, None, "Gunicorn's pre_request", roads),
    ):
        assert str(table).endswith("; PRODSERVE['ROADS'] has no effect")
    assert "no effect" not in str(RoadTable.find(HYBRID, project(), "", roads))


def test_where_another_application_answers_decorators_choose_nothing(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    found = RoadTable.find(HYBRID, project(FASTAPI)).routes
    assert found.road("/heavy/") == found.road("/plain/") == "async"


def test_websockets_alone_need_a_loop(settings: Any) -> None:
    assert not RoadTable.find(HYBRID, project()).has_loop
    found = RoadTable.find(HYBRID, project(sockets=True))
    assert found.has_loop
    assert str(found) == "websockets on the asyncio loop; 0 sync routes in threads"
