"""The road of a path: async wherever Django would find an async view, found without a full resolve."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import Resolver404, URLPattern, URLResolver, converters, include, path, re_path
from django.urls.resolvers import RegexPattern, RoutePattern
from django.utils import translation
from django.utils.translation import gettext_lazy
from django.views import View
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_prodserve.asgi import routes
from django_prodserve.asgi.road_table import RoadTable
from django_prodserve.asgi.routes import ANYTHING, END, Routes, copied


def sync(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse()


async def live(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse()


class Sync(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Live(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


class Marked:
    """An object that marks itself, as the views of API frameworks do."""

    def __init__(self) -> None:
        from asgiref.sync import markcoroutinefunction

        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse()


def resolver(*patterns: Any) -> URLResolver:
    urls = ModuleType("urls")
    urls.urlpatterns = [*patterns]  # type: ignore[attr-defined]
    return URLResolver(RegexPattern(r"^/"), urls)


def walked(*patterns: Any) -> Routes:
    return Routes(resolver(*patterns))


def table(routes: Routes) -> str:
    return str(RoadTable(takes="async routes", routes=routes))


def roads(*patterns: Any) -> Callable[[str], str]:
    return walked(*patterns).road


def test_a_project_without_async_views_has_no_expression() -> None:
    found = walked(path("", sync), path("a/", include([path("b/", Sync.as_view())])))
    assert (found.has_async, found.async_routes, found.sync_routes, table(found)) == (
        False,
        0,
        2,
        "0 async routes on the asyncio loop; 2 sync routes in threads",
    )
    assert found.road("/") == "sync"


def test_the_numbers_are_those_of_the_plan() -> None:
    live_routes = [path(f"live/{number}/", live) for number in range(12)]
    found = walked(*live_routes, *(path(f"{number}/", sync) for number in range(2300)))
    assert table(found) == "12 async routes on the asyncio loop; 2,300 sync routes in threads"
    assert table(walked(path("", live))) == "1 async route on the asyncio loop; 0 sync routes in threads"


@pytest.mark.parametrize("view", [live, Live.as_view(), Marked()], ids=["function", "class", "marked"])
def test_all_kinds_of_async_views_are_found(view: Any) -> None:
    road = roads(path("a/", view), path("b/", Sync.as_view()), path("c/", sync))
    assert [road(f"/{name}/") for name in "abcd"] == ["async", "sync", "sync", "sync"]


def test_the_road_is_that_of_the_first_route_that_matches() -> None:
    road = roads(path("a/mine/", sync), path("a/<slug:name>/", live), re_path("", sync))
    assert [road("/a/mine/"), road("/a/other/"), road("/b/")] == ["sync", "async", "sync"]


def test_includes_and_parameters() -> None:
    inner = [path("<int:number>/feed/", live), path("<int:number>/", sync), re_path(r"^(?P<word>\w+)$", live)]
    road = roads(path("api/<str:version>/", include(inner)), path("", include([path("x", live)])))
    assert [
        road(each) for each in ("/api/1/7/feed/", "/api/1/7/", "/api/1/word", "/x", "/api/1/feed/", "/")
    ] == [*("async", "sync", "async", "async", "sync", "sync")]


def test_only_paths_that_may_lead_to_an_async_view_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once; a resolve runs the project's converters."""
    tried: list[str] = []
    project = resolver(path("", sync), path("live/<str:name>/", live), path("live/sync/", sync))
    resolve = project.resolve
    monkeypatch.setattr(project, "resolve", lambda each: tried.append(each) or resolve(each))
    found = Routes(project)
    for _ in range(3):
        assert [found.road(each) for each in ("/", "/live/a/", "/live", "/nowhere/")] == [
            *("sync", "async", "sync", "sync")
        ]
    assert tried == ["/live/a/"]


def test_what_is_remembered_is_bounded() -> None:
    found = walked(path("live/<path:name>/", live))
    for number in range(3 * routes.REMEMBERED):
        assert found.road(f"/live/{number}/") == "async"
    assert found.road(f"/live/{'x' * 2000}/") == "async"
    assert found._remembered.cache_info().currsize == routes.REMEMBERED
    assert max(len(each) for each in ["/live/1/"]) < routes.LONGEST_REMEMBERED


class Failing:
    regex = r"\w+"

    def to_python(self, value: str) -> str:
        raise RuntimeError("the database is gone")

    def to_url(self, value: str) -> str:
        return value


def test_a_converter_that_fails_is_met_again_by_django(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(converters.REGISTERED_CONVERTERS, "failing", Failing())
    converters.get_converters.cache_clear()
    try:
        assert roads(path("<failing:name>/", live))("/a/") == "sync"
    finally:
        converters.get_converters.cache_clear()


LANGUAGES = {"USE_I18N": True, "LANGUAGES": [("en", "E"), ("de", "D"), ("pt-br", "P")], "LANGUAGE_CODE": "en"}


@pytest.mark.parametrize("has_default", [True, False], ids=["each prefixed", "default without prefix"])
def test_addresses_with_a_language(has_default: bool) -> None:
    """In any language: none is active in the thread that asks."""
    with override_settings(**LANGUAGES):
        patterns = i18n_patterns(
            path("live/", live), path("page/", sync), prefix_default_language=has_default
        )
        road = roads(*patterns)
        assert [road(f"/{code}/live/") for code in ("de", "pt-br")] == ["async", "async"]
        assert road("/en/live/" if has_default else "/live/") == "async"
        assert [road("/de/page/"), road("/xx/live/"), road("/de/live")] == ["sync"] * 3
        assert translation.get_language() == "en"


def test_translated_addresses() -> None:
    """Which language a visitor has is not in the path: any that matches counts."""
    with override_settings(**LANGUAGES):
        road = roads(path(gettext_lazy("Yes"), live), path("page/", sync))
        with translation.override("de"):
            translated = str(gettext_lazy("Yes"))
        assert translated != "Yes"
        assert [road("/Yes"), road(f"/{translated}"), road("/page/")] == ["async", "async", "sync"]
    with override_settings(**{**LANGUAGES, "LANGUAGES": [(f"x{n}", "X") for n in range(11)]}):
        assert roads(path(gettext_lazy("Yes"), live))("/anything") == "async"


class OwnPattern(RoutePattern):
    def match(self, path: str) -> Any:
        return ("", (), {}) if path.startswith("own") else None


def test_what_is_not_djangos_may_match_anything() -> None:
    own = URLPattern(OwnPattern("never/", is_endpoint=True), live)
    assert [roads(own)(each) for each in ("/own/1", "/other")] == ["async", "sync"]

    class OwnResolver(URLResolver):
        pass

    inside = ModuleType("inside")
    inside.urlpatterns = [path("live/", live)]  # type: ignore[attr-defined]
    found = walked(OwnResolver(RoutePattern("a/"), inside), path("b/", sync))
    assert (found.road("/a/live/"), found.road("/a/x/"), found.async_routes) == ("async", "sync", 1)


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        pytest.param(r"^live/$", f"live/{END}", id="anchored"),
        pytest.param(r"\Alive/\Z", f"live/{END}", id="anchored in other words"),
        pytest.param(r"^live/", "live/", id="open at its end"),
        pytest.param(r"^", "", id="nothing"),
        pytest.param(r"^price\$", r"price\$", id="an escaped dollar"),
        pytest.param(r"^a\\$", rf"a\\{END}", id="an escaped backslash before the end"),
        pytest.param(r"^(?P<a>x)(y|z)$", f"(?:(?:x)(y|z)){END}", id="groups lose their names"),
        pytest.param(r"^[(?P<a>]\(?P<b>$", rf"[(?P<a>]\(?P<b>{END}", id="what only looks like a group"),
        pytest.param(r"^[]|]x$", f"(?:[]|]x){END}", id="a bracket in a set"),
        pytest.param(r"live/$", ANYTHING, id="found anywhere"),
        pytest.param(r"^a|b$", ANYTHING, id="one of two is anchored"),
        pytest.param(r"^a|^b", ANYTHING, id="both are anchored"),
        pytest.param(r"^a$|^ab$", ANYTHING, id="both are anchored at both ends"),
        pytest.param(r"^(^a)", ANYTHING, id="an anchor inside"),
        pytest.param(r"^a\b", ANYTHING, id="a word boundary"),
        pytest.param(r"^(?<!a)b", ANYTHING, id="a look behind"),
        pytest.param(r"^(?!a)b", ANYTHING, id="a look ahead"),
        pytest.param(r"^(a)\1", ANYTHING, id="a reference"),
        pytest.param(r"(?i)^a", ANYTHING, id="flags"),
        pytest.param(r"^(?i:a)", ANYTHING, id="flags inside"),
        pytest.param(r"^(a(?=b))+", ANYTHING, id="a look ahead deep inside"),
    ],
)
def test_an_expression_is_copied_or_left_open(regex: str, expected: str) -> None:
    assert copied(re.compile(regex)) == expected


ROUTES = ["", "a/", "a", "b/", "live/", "<int:n>/", "<str:s>/", "<path:p>", "<slug:x>-<int:y>/"]
EXPRESSIONS = [
    *("re:^a/", "re:^a/$", "re:a", "re:^(a|b)/", "re:^a|^b", "re:^a|b/$", r"re:^(?P<n>\d+)/$", r"re:\bb/$"),
    *("re:^[^/]+/", "re:^(?!a)", r"re:^(a|b)(/)\2?", "re:(?i)^LIVE/", "re:^(?:a/)*$", "re:$", "re:^$"),
    *(r"re:(?<!a/)b/", "re:^.+?/$", r"re:\A[ab/]*\Z", "re:^a*b?/", "re:^.", "re:x{0,2}$", r"re:^(a)(/)\1"),
    *(r"re:^(?<!/)b", "re:^(?:^b)", "re:^(a|^b)/?", r"re:^\Bb|a"),
]
PARTS = st.one_of(st.sampled_from(ROUTES), st.sampled_from(EXPRESSIONS))


def entry(text: str, view: Any) -> Any:
    return re_path(text.removeprefix("re:"), view) if text.startswith("re:") else path(text, view)


TREES = st.recursive(
    st.tuples(PARTS, st.sampled_from([sync, live, live, live])).map(lambda pair: entry(*pair)),
    lambda inner: st.tuples(PARTS, st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: entry(pair[0], include(pair[1]))
    ),
    max_leaves=6,
)
IN_LANGUAGES = st.tuples(st.lists(TREES, min_size=1, max_size=3), st.booleans()).map(
    lambda pair: i18n_patterns(*pair[0], prefix_default_language=pair[1])[0]
)
"""Allowed at the top of a URLconf."""
PATHS = st.lists(
    st.sampled_from(
        ["a", "b", "/", "a/", "b/", "a/a", "live/", "LIVE/", "1", "x", "\n", "-", "de/", "en/", "é"]
    ),
    max_size=4,
).map("".join)


def missed(project: URLResolver, paths: list[str]) -> list[str]:
    """Return the paths that lead to an async view, and are taken for sync."""
    road = Routes(project).road
    found = []
    for each in paths:
        try:
            view = project.resolve(each).func
        except Resolver404:
            continue
        if iscoroutinefunction(view) and road(each) != "async":
            found.append(each)
    return found


TOKENS = ["a", "b", "/", "a/", "b/", "1"]
SHORT = [f"/{''.join(each)}" for size in range(3) for each in itertools.product(TOKENS, repeat=size)]
SHORT += ["/live/", "/LIVE/", "/a/live/", "/é\n"]


@pytest.mark.parametrize("outer", [*ROUTES, *EXPRESSIONS])
def test_no_async_view_is_taken_for_a_sync_one(outer: str) -> None:
    """Each kind of part alone, and in front of each other one, with all short paths."""
    assert not missed(resolver(entry(outer, live)), SHORT)
    for inner in [*ROUTES, *EXPRESSIONS]:
        project = resolver(entry(outer, include([entry(inner, live)])), path("a/b/", sync))
        assert not missed(project, SHORT), inner


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(st.one_of(TREES, IN_LANGUAGES), min_size=1, max_size=4),
    st.lists(PATHS, min_size=12, max_size=12),
)
def test_none_is_in_any_tree(patterns: list[Any], rests: list[str]) -> None:
    with override_settings(**LANGUAGES):
        for each in (f"/{rest}" for rest in rests):
            # The language that Django's middleware activates where addresses have one.
            with translation.override(translation.get_language_from_path(each) or "en"):
                assert not missed(resolver(*patterns), [each])
