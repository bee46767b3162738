"""Files pass what the project has put above WhiteNoise's middleware, and are the same files there."""

from __future__ import annotations

import gzip
import itertools

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, HttpResponseForbidden
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from whitenoise import WhiteNoise
from whitenoise.middleware import WhiteNoiseMiddleware

from django_prodserve.staticfiles import choose_static, describe
from django_prodserve.staticfiles.media import find_uploads
from django_prodserve.staticfiles.middleware import STANDS_IN
from django_prodserve.staticfiles.placement import with_files
from tests.static_site import DEFAULT_STORAGES, STYLE, a_project, ask

HERE = __name__
SECURITY = "django.middleware.security.SecurityMiddleware"
NOISE = "whitenoise.middleware.WhiteNoiseMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"
PLAIN = "/static/site.css"


class Gate:
    """A gate as projects write them: refuses what is private, answers preflights, marks all else."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.method == "OPTIONS":
            return HttpResponse(headers={"Access-Control-Allow-Methods": "GET"})
        if "private" in request.path and "pass" not in request.COOKIES:
            return HttpResponseForbidden()
        response = self.get_response(request)
        response.headers["X-Gate"] = "passed"
        return response


def function_gate(get_response):
    """The same as a function."""
    return Gate(get_response)


@async_only_middleware
def async_gate(get_response):
    async def gate(request):
        response = await get_response(request)
        response.headers["X-Gate"] = "passed"
        return response

    return gate


@sync_and_async_middleware
def either_gate(get_response):
    return Gate(get_response)


class Unused:
    def __init__(self, get_response):
        raise MiddlewareNotUsed


class NoStore:
    """Has its say before SecurityMiddleware, which stands above."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response


class OwnNoise(WhiteNoiseMiddleware):
    """A project's own version."""


class ServeStatic:
    """What its fork's middleware looks like: no subclass."""

    __module__ = "servestatic.middleware"

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


def wrapped(environ, start_response):
    """A project's wsgi.py that has something around Django."""
    if "HTTP_AUTHORIZATION" in environ:
        return WSGIHandler()(environ, start_response)
    start_response("401 Unauthorized", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        found.settings(ALLOWED_HOSTS=["localhost"], ROOT_URLCONF="tests.urls", MEDIA_ROOT=tmp_path / "media")
        yield found


def site(project, *middleware, application=WSGIHandler, media=False, **changes):
    """Return the project as it is served, and the lines that were said."""
    project.settings(MIDDLEWARE=list(middleware), STATIC_ROOT=None, STORAGES=DEFAULT_STORAGES, **changes)
    said = []
    app, _ = with_files(application, project.prepare(), find_uploads(wanted=media), said.append)
    return app, said


REQUESTS = [
    {"path": path, "method": method, **headers}
    for path, method, headers in itertools.product(
        ["/static/site.css", "/static/app.js", "/static/nowhere.css", "/static/", "/static", "/"],
        ["GET", "HEAD", "POST", "OPTIONS"],
        [
            {},
            {"HTTP_ACCEPT_ENCODING": "gzip, br"},
            {"HTTP_RANGE": "bytes=5-9"},
            {"HTTP_RANGE": "bytes=99999-"},
            {"HTTP_IF_NONE_MATCH": "*"},
            {"HTTP_IF_MODIFIED_SINCE": "Sat, 01 Jan 2000 00:00:00 GMT"},
            {"wsgi.url_scheme": "https"},
        ],
    )
]


@pytest.mark.parametrize("changes", [{}, {"SECURE_SSL_REDIRECT": True, "SECURE_HSTS_SECONDS": 60}])
def test_both_ways_answer_the_same(project, changes):
    short, _ = site(project, SECURITY, NOISE, COMMON, **changes)
    long, _ = site(project, SECURITY, f"{HERE}.Unused", NOISE, COMMON, **changes)
    assert isinstance(long, WSGIHandler)
    assert not isinstance(short, WSGIHandler)
    for request in REQUESTS:
        one, other = ask(short, **request), ask(long, **request)
        assert (one.status, one.headers, one.body) == (other.status, other.headers, other.body), request


@pytest.mark.parametrize("gate", ["Gate", "function_gate", "either_gate", "async_gate"])
def test_every_kind_of_middleware_has_its_say(project, gate):
    app, said = site(project, SECURITY, f"{HERE}.{gate}", NOISE)
    for encoding in ("", "gzip"):
        answer = ask(app, PLAIN, HTTP_ACCEPT_ENCODING=encoding)
        body = gzip.decompress(answer.body) if encoding else answer.body
        assert (answer.status, answer.headers["X-Gate"], body) == (200, "passed", STYLE.encode())
    assert not said
    if gate != "async_gate":
        project.write({"private.txt": "secret"})
        app, _ = site(project, SECURITY, f"{HERE}.{gate}", NOISE)
        assert ask(app, "/static/private.txt").status == 403
        assert ask(app, "/static/private.txt", HTTP_COOKIE="pass=1").body == b"secret"
        assert ask(app, PLAIN, "OPTIONS").headers["Access-Control-Allow-Methods"] == "GET"


def test_headers_that_stand_between_come_before_those_of_security_middleware(project):
    app, _ = site(project, SECURITY, f"{HERE}.NoStore", NOISE)
    assert ask(app, PLAIN).headers["Referrer-Policy"] == "no-referrer"
    assert ask(app, PLAIN).headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("above", "names"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([SECURITY], "", id="SecurityMiddleware"),
        pytest.param([f"{HERE}.Gate"], f"{HERE}.Gate", id="a gate alone"),
        pytest.param(["tests.test_static_layer.OwnSecurityMiddleware"], "OwnSecurity", id="a version of it"),
        pytest.param([SECURITY, f"{HERE}.function_gate"], f"{HERE}.function_gate", id="a function"),
        pytest.param(["no.such.Thing"], "no.such.Thing", id="what cannot be imported"),
        pytest.param([f"{HERE}.Gate", COMMON, "a.B", "c.D"], "CommonMiddleware and 2 more", id="several"),
    ],
)
def test_the_plan_names_what_stands_above_its_price_and_the_short_way(project, above, names):
    project.settings(MIDDLEWARE=[*above, NOISE])
    choice = choose_static()
    assert names in choice.through
    assert bool(choice.through) == bool(names)
    for words in (names, "takes a thread", "below SecurityMiddleware"):
        assert not names or words in choice.why
    files = project.prepare()
    assert ("MIDDLEWARE" in describe(files)) == bool(names)


def test_a_project_that_states_no_place_is_told_so(project):
    app, said = site(project, f"{HERE}.Gate")
    assert "X-Gate" not in ask(app, PLAIN).headers
    assert "before MIDDLEWARE" in choose_static().why
    assert not said


def test_what_security_middleware_cannot_see_elsewhere_it_does_not_touch_here(project):
    """WhiteNoise's middleware above it: other servers send no file through it."""
    app, _ = site(project, NOISE, SECURITY, SECURE_SSL_REDIRECT=True, SECURE_HSTS_SECONDS=60)
    assert ask(app, PLAIN).status == 200
    assert "Strict-Transport-Security" not in ask(app, PLAIN, **{"wsgi.url_scheme": "https"}).headers
    assert ask(app, "/").status == 301


def test_what_wsgi_py_has_around_django_counts_too(project):
    app, said = site(project, SECURITY, NOISE, application=lambda: wrapped)
    assert ask(app, PLAIN).status == 401
    assert ask(app, PLAIN, HTTP_AUTHORIZATION="Basic").body == STYLE.encode()
    assert f"{HERE}.wrapped" in said[0]
    app, said = site(project, SECURITY, application=lambda: wrapped)
    assert (ask(app, PLAIN).status, said) == (200, [])
    app, said = site(project, SECURITY, NOISE, application=lambda: WhiteNoise(WSGIHandler()))
    assert (ask(app, PLAIN).status, said) == (200, [])


def test_a_handler_that_was_made_before_has_our_middleware_too(project):
    project.settings(MIDDLEWARE=[f"{HERE}.Gate", NOISE])
    early = WSGIHandler()
    app, _ = site(project, f"{HERE}.Gate", NOISE, application=lambda: early)
    assert ask(app, PLAIN).headers["X-Gate"] == "passed"


def test_files_are_read_in_once(project, settings):
    site(project, SECURITY, NOISE, COMMON)
    assert settings.MIDDLEWARE == [SECURITY, STANDS_IN, COMMON]


def test_a_file_that_is_gone_is_djangos_404(project):
    project.settings(MIDDLEWARE=[f"{HERE}.Gate", NOISE])
    files = project.prepare()
    app, _ = with_files(WSGIHandler, files, None, print)
    (project.place / files.directory / "photo.png").unlink()
    answer = ask(app, "/static/photo.png")
    assert (answer.status, answer.headers["X-Gate"]) == (404, "passed")


@pytest.mark.parametrize("noise", [NOISE, f"{HERE}.OwnNoise"])
def test_uploads_pass_the_same_gate(project, noise):
    project.write({"private ü.txt": "secret", "a.bin": "0123456789"}, below=project.place / "media")
    app, _ = site(project, f"{HERE}.Gate", noise, media=True, MEDIA_URL="/media/", BASE_DIR=project.source)
    name = "/media/private ü.txt".encode().decode("latin-1")
    assert ask(app, name).status == 403
    assert ask(app, name, HTTP_COOKIE="pass=1").body == b"secret"
    part = ask(app, "/media/a.bin", HTTP_RANGE="bytes=2-4")
    assert (part.status, part.body, part.headers["X-Gate"]) == (206, b"234", "passed")
    assert part.headers["Content-Disposition"] == "attachment"
    assert ask(app, "/media/../site.css").status == 404
    assert ask(app, "/media/a.bin", "POST").status == 405


@pytest.mark.parametrize("own", ["OwnNoise", "ServeStatic"])
def test_a_middleware_of_the_projects_own_is_left_alone(project, settings, own):
    site(project, f"{HERE}.Gate", f"{HERE}.{own}")
    assert STANDS_IN not in settings.MIDDLEWARE
    assert choose_static().mode == "project"
