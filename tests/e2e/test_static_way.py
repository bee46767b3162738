"""Static files on the way that the project has stated, by real requests to a real server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Server, copy_site, run, serving

GATE = """
from django.http import HttpResponse, HttpResponseForbidden

class Gate:
    def __init__(self, get_response):
        self.get_response = get_response
    def __call__(self, request):
        if request.method == "OPTIONS":
            return HttpResponse(headers={"Access-Control-Allow-Methods": "GET"})
        if "/private/" in request.path and "pass" not in request.COOKIES:
            return HttpResponseForbidden()
        response = self.get_response(request)
        response.headers["Access-Control-Allow-Origin"] = "https://front.example"
        return response
"""
FRAMES = "django.middleware.clickjacking.XFrameOptionsMiddleware"
NOISE = "whitenoise.middleware.WhiteNoiseMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
ADMIN = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = copy_site(tmp_path)
    (site / "shop" / "gates.py").write_text(GATE)
    private = site / "assets" / "private"
    private.mkdir(parents=True)
    (private / "secret.txt").write_text("secret")
    (site / "assets" / "site.css").write_text("p { margin: 0 }\n" * 100)
    return site


def old(server: Server, path: str) -> bytes:
    """Ask as HTTP/1.0 clients do."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while data := client.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize(
    "flags", [(), ("--worker-class", "gthread", "--no-preload")], ids=["ours", "gthread"]
)
def test_what_stands_above_whitenoise_sees_every_file(env: Any, site: Path, flags: tuple[str, ...]) -> None:
    (site / "media").mkdir()
    (site / "media" / "a.png").write_text("0123456789")
    settings = {
        "MIDDLEWARE": [SECURITY, FRAMES, "shop.gates.Gate", NOISE, *ADMIN],
        "STATICFILES_DIRS": [str(site / "assets")],
        "STATIC_ROOT": str(site / "root"),
        "MEDIA_URL": "media/",
        "MEDIA_ROOT": str(site / "media"),
    }
    plan = run("manage.py", "prodserve", "plan", env=env(**settings), cwd=site).stdout
    assert f"({FRAMES}, shop.gates.Gate): each file takes a thread and their time." in " ".join(plan.split())
    with serving("--media", *flags, env=env(**settings), cwd=site) as server:
        assert f"through {FRAMES}, shop.gates.Gate" in server.output
        (site / "root").mkdir()
        (site / "root" / "late.txt").write_text("written while the site runs")
        for path in ("/static/private/secret.txt", "/static/site.css", "/static/late.txt", "/media/a.png"):
            cookie = {"Cookie": "pass=1"}
            whole = server.get(path, headers=cookie)
            assert (whole.status, whole.headers["x-frame-options"]) == (200, "DENY")
            assert whole.headers["access-control-allow-origin"] == "https://front.example"
            assert whole.headers["referrer-policy"] == "same-origin"
            head = server.get(path, "HEAD", headers=cookie)
            assert (head.status, head.headers["content-length"]) == (200, str(len(whole.body)))
            part = server.get(path, headers={**cookie, "Range": "bytes=1-3"})
            assert (part.status, part.body) == (206, whole.body[1:4])
            same = server.get(path, headers={**cookie, "If-None-Match": whole.headers["etag"]})
            assert (same.status, same.headers["x-frame-options"]) == (304, "DENY")
            assert server.get(path, "OPTIONS").headers["access-control-allow-methods"] == "GET"
        assert server.get("/static/private/secret.txt").status == 403
        assert server.get("/static/nowhere.css").headers["x-frame-options"] == "DENY"
        packed = server.get("/static/site.css", headers={"Accept-Encoding": "gzip"})
        assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding")
        assert b"X-Frame-Options: DENY" in old(server, "/static/site.css")
        assert old(server, "/static/private/secret.txt").split()[1] == b"403"
