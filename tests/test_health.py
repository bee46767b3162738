"""Whose a probe's path is, what the layer answers, and what checks make of readiness."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path

from django_prodserve.errors import ProdserveError
from django_prodserve.middleware.application import Application, warm_up
from django_prodserve.middleware.health import HealthMiddleware, Paths, is_owned
from django_prodserve.middleware.readiness import CHECK_TIMEOUT, Check, Readiness, load_checks

STATED = ("/livez", "/readyz")


def view(request: Any, **arguments: str) -> HttpResponse:
    return HttpResponse("the project's")


class Urls:
    """A URLconf that a test makes."""

    def __init__(self, *patterns: Any) -> None:
        self.urlpatterns = list(patterns)


@pytest.mark.parametrize(
    ("patterns", "owned"),
    [
        ([], False),
        ([path("about/", view)], False),
        ([path("livez", view)], True),
        ([path("livez/", view)], True),  # APPEND_SLASH leads there
        ([path("", include([path("livez", view)]))], True),
        ([re_path(r"^(?:livez|readyz)$", view)], True),
        ([path("<path:rest>", view)], False),
        ([path("<slug:slug>", view)], False),
        ([path("<slug:slug>/", view)], False),
        ([re_path(r"^.*$", view)], False),
        ([re_path(r"^([a-z]{5})$", view)], False),
        ([path("livez", view), path("<path:rest>", view)], True),
        ([path("<path:rest>", view), path("livez", view)], False),  # the catch-all would have answered
        (i18n_patterns(path("livez", view)), False),  # at /en/livez
        (i18n_patterns(path("livez", view), prefix_default_language=False), True),
    ],
)
def test_a_route_for_the_very_path_is_the_projects(patterns: list[Any], owned: bool) -> None:
    with override_settings(ROOT_URLCONF=Urls(*patterns), LANGUAGE_CODE="en"):
        assert is_owned("/livez") is owned


def test_without_append_slash_the_path_is_taken_as_it_is() -> None:
    with override_settings(ROOT_URLCONF=Urls(path("livez/", view)), APPEND_SLASH=False):
        assert not is_owned("/livez")
        assert is_owned("/livez/")


def test_what_the_start_says() -> None:
    assert str(Paths(STATED)) == "/livez and /readyz, before Django"
    assert str(Paths(STATED, ("/livez",))) == "/readyz, before Django; the project's own /livez"
    assert str(Paths(STATED, STATED)) == "the project's own /livez and /readyz"


class Asked:
    """One request through a layer."""

    def __init__(self, layer: HealthMiddleware, path: str, method: str = "GET") -> None:
        environ = {"PATH_INFO": path, "REQUEST_METHOD": method}
        self.body = b"".join(layer(environ, self._start)).decode()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers = int(status[:3]), dict(headers)


def site(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("404 Not Found", [])
    yield b"site"


def test_the_layer_answers_the_probes_and_leaves_the_rest() -> None:
    layer = HealthMiddleware(site, Paths(STATED, ("/readyz",)))
    live = Asked(layer, "/livez")
    assert (live.status, live.body, live.headers["Cache-Control"]) == (200, "ok\n", "no-store")
    head = Asked(layer, "/livez", "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, "", "3")
    assert Asked(layer, "/livez", "POST").status == 405
    assert Asked(layer, "/readyz").body == "site"
    assert Asked(layer, "/livez/").body == "site"
    assert Asked(HealthMiddleware(site), "/livez").body == "site"


def test_a_warm_up_is_not_answered_by_a_probe() -> None:
    def broken(environ: Any, start_response: Any) -> list[bytes]:
        raise RuntimeError("the site was asked")

    assert (
        "the site was asked"
        in warm_up(Application(health=HealthMiddleware(broken, Paths(STATED))), "/livez").warning
    )


def raises() -> None:
    raise OSError("connection to 10.0.0.7 refused")


def returns_false() -> bool:
    return False


def passes() -> None:
    pass


def test_a_check_fails_where_it_raises_or_returns_false_and_nothing_of_it_is_told() -> None:
    readiness = Readiness(
        [Check(function.__name__, function) for function in (raises, passes, returns_false)]
    )
    layer = HealthMiddleware(site, Paths(STATED), readiness)
    ready = Asked(layer, "/readyz")
    assert (ready.status, ready.body) == (503, "raises\nreturns_false\n")
    assert Asked(layer, "/livez").status == 200


def test_a_check_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()
    readiness = Readiness([Check("hangs", lambda: release.wait(60)), Check("behind", passes)])
    started = time.monotonic()
    readiness.start()
    assert CHECK_TIMEOUT <= time.monotonic() - started < CHECK_TIMEOUT + 5
    started = time.monotonic()
    assert readiness.failing() == ["hangs", "behind"]
    assert time.monotonic() - started < 0.1
    release.set()


def test_what_passes_at_the_first_look_is_ready_at_once() -> None:
    readiness = Readiness(load_checks(["tests.test_health.passes"]))
    assert [check.name for check in readiness.checks] == ["passes"]
    readiness.start()
    assert readiness.failing() == []


@pytest.mark.parametrize(
    ("name", "told"),
    [("tests.test_health.missing", "cannot be imported"), ("tests.test_health.STATED", "is a tuple")],
)
def test_a_wrong_name_is_told(name: str, told: str) -> None:
    with pytest.raises(ProdserveError, match=told):
        load_checks([name])
