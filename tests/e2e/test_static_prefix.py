"""A site below a path: links have it, and every kind of request for a file finds the same file."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Server, copy_site, serving

VIEWS = """
from django.template import engines
LINKS = (
    "{% load static %}{% static 'site.css' %} {% get_static_prefix %} {% get_media_prefix %} {{ upload }}"
)

def links(request):
    from django.core.files.storage import default_storage
    template = engines["django"].from_string(LINKS)
    return HttpResponse(template.render({"upload": default_storage.url("a.png")}))

urlpatterns += [path("links/", links)]
"""
TOUCHED = """
from django.apps import AppConfig

class Config(AppConfig):
    name = "shop"
    default = True
    def ready(self):
        from django.conf import settings
        from django.contrib.staticfiles.storage import staticfiles_storage
        from django.core.files.storage import default_storage
        default_storage.url("a.png"), settings.STATIC_URL
        if "Manifest" not in settings.STORAGES["staticfiles"]["BACKEND"]:
            staticfiles_storage.url("site.css")
"""
MANIFEST = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
BELIEVES = {"GUNICORN": {"forwarder_headers": "SCRIPT_NAME"}}
ENVIRONMENT, HEADER = {"SCRIPT_NAME": "/app"}, {"SCRIPT_NAME": "/app"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = copy_site(tmp_path, VIEWS)
    (site / "shop" / "apps.py").write_text(TOUCHED)
    (site / "assets").mkdir()
    (site / "assets" / "site.css").write_text("p { margin: 0 }\n" * 100)
    (site / "assets" / "large.js").write_text("go();\n" * 20_000)
    (site / "assets" / "ü b.txt").write_text("text " * 100)
    return site


def raw(server: Server, head: str) -> tuple[int, int]:
    """Send a head; return the status, and how many bytes of body came until the server closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(head.encode())
        answer = b""
        while data := client.recv(65536):
            answer += data
    begin, _, body = answer.partition(b"\r\n\r\n")
    return int(begin.split()[1]), len(body)


def same_for_all(server: Server, path: str, headers: dict[str, str], status: int = 200) -> None:
    """Ask for a file in every way; there is one answer."""
    found = server.get(path, headers=headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def asked(minor: int, more: str = "") -> tuple[int, int]:
        head = f"GET {path} HTTP/1.{minor}\r\nHost: localhost\r\n{lines}Connection: close\r\n{more}\r\n"
        return raw(server, head)

    seen = {
        "GET": found.status,
        "HEAD": server.get(path, "HEAD", headers=headers).status,
        "POST": {405: 200}.get(server.get(path, "POST", headers=headers).status, 404),
        "1.0": asked(0)[0],
        "1.1": asked(1)[0],
        "range": {206: 200}.get(asked(1, "Range: bytes=0-3\r\n")[0], 404),
        "known": {304: 200}.get(asked(1, "If-None-Match: *\r\n")[0], 404),
        "gzip": asked(1, "Accept-Encoding: gzip\r\n")[0],
    }
    assert set(seen.values()) == {status}, (path, seen)
    if status == 200:
        assert asked(0)[1] == len(found.body) == asked(1)[1]


@pytest.mark.parametrize(
    ("settings", "variables", "headers", "outside", "flags"),
    [
        pytest.param({}, ENVIRONMENT, {}, "/app", (), id="environment"),
        pytest.param({"STATIC_URL": "/app/static/"}, ENVIRONMENT, {}, "/app", (), id="environment, absolute"),
        pytest.param(
            {"STORAGES": MANIFEST}, ENVIRONMENT, {}, "/app", ("--worker-class", "gthread"), id="gthread"
        ),
        pytest.param({"FORCE_SCRIPT_NAME": "/app"}, {}, {}, "", (), id="forced"),
        pytest.param({"PRODSERVE": BELIEVES}, {}, HEADER, "/app", (), id="header"),
        pytest.param(
            {"PRODSERVE": BELIEVES, "STATIC_URL": "/app/static/", "STORAGES": MANIFEST},
            {},
            HEADER,
            "/app",
            ("--no-preload",),
            id="header, absolute",
        ),
    ],
)
def test_one_answer_below_a_prefix(
    env: Any,
    site: Path,
    settings: dict[str, Any],
    variables: dict[str, str],
    headers: dict[str, str],
    outside: str,
    flags: tuple[str, ...],
) -> None:
    """``outside``: what the proxy leaves of the prefix in the path."""
    own = {"STATICFILES_DIRS": [str(site / "assets")], "MEDIA_URL": "media/", "MEDIA_ROOT": str(site / "up")}
    own["STATIC_ROOT"] = str(site / "root")
    own["INSTALLED_APPS"] = [
        *("django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes"),
        *("django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles"),
        *("django_prodserve", "shop"),
    ]
    with serving(*flags, env=env(variables, **own, **settings), cwd=site) as server:
        links = server.get(f"{outside}/links/", headers=headers).text.split()
        assert links[0].startswith("/app/static/site."), links
        assert links[1:] == ["/app/static/", "/app/media/", "/app/media/a.png"]
        assert server.get("/app/livez" if variables else "/livez").text == "ok\n"
        for name in ("site.css", "large.js", "%C3%BC%20b.txt"):
            same_for_all(server, f"{outside}/static/{name}", headers)
        same_for_all(server, links[0] if outside else links[0].removeprefix("/app"), headers)
        same_for_all(server, f"{outside}/static/CACHE/late.css", headers, status=404)
        (site / "root" / "CACHE").mkdir(parents=True)
        (site / "root" / "CACHE" / "late.css").write_text("p { margin: 0 }\n")
        same_for_all(server, f"{outside}/static/CACHE/late.css", headers)
