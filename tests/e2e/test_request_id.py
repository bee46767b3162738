"""One id for the client, the access log, Django's lines and the project's; and where the time went."""

from __future__ import annotations

import http.client
import re
import time
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, copy_site, serving

VIEWS = """

import logging
from django_prodserve.logs import request_id, unlogged


def tell(request, number):
    logging.getLogger("shop").error("the project speaks")
    return HttpResponse(request_id.get())


@unlogged
def ping(request):
    return HttpResponse("pong")


def names(request):
    return HttpResponse("named", headers={"x-request-id": "the-projects-own"})


urlpatterns += [
    path("tell/<int:number>/", tell, name="tell"),
    path("ping/", ping),
    path("names/", names),
]
"""
OWN = {
    "version": 1,
    "filters": {"id": {"()": "django_prodserve.logs.RequestIDFilter"}},
    "formatters": {"own": {"format": "OWN %(request_id)s %(message)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["id"]}},
    "root": {"handlers": ["own"], "level": "ERROR"},
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return copy_site(tmp_path, VIEWS)


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_everybody_says_the_same_id(env: Any, site: Path, kind: str) -> None:
    flags = ("--workers", "1", "--worker-class", kind, "--access-log", "-")
    with serving(*flags, env=env(LOGGING=OWN), cwd=site) as server:
        made = server.get("/tell/7/")
        assert made.headers["x-request-id"] == made.text
        assert re.fullmatch("[0-9a-f]{20}", made.text)
        server.wait_for(f"OWN {made.text} the project speaks")
        assert server.get("/tell/7/").text != made.text
        told = server.get("/boom/", headers={"X-Request-ID": "from-the-proxy"})
        assert (told.status, told.headers["x-request-id"]) == (500, "from-the-proxy")
        server.wait_for("OWN from-the-proxy Internal Server Error: /boom/")
        forged = server.get("/tell/7/", headers={"X-Request-ID": 'a" 200 "'})
        assert re.fullmatch("[0-9a-f]{20}", forged.text)
        assert server.stop() == 0
        said = server.output
    assert re.search(rf'"GET /tell/7/ HTTP/1.1" 200 20 .* {made.text} tell \d+\.\dms \d+\.\dms$', said, re.M)
    assert re.search(r'"GET /boom/ HTTP/1.1" 500 .* from-the-proxy shop.urls.boom ', said)


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_an_id_that_the_project_gives_is_the_only_one(env: Any, site: Path, kind: str) -> None:
    with serving("--worker-class", kind, env=env(), cwd=site) as server:
        for _ in range(2):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
            connection.request("GET", "/names/")
            answer = connection.getresponse()
            assert answer.headers.get_all("X-Request-ID") == ["the-projects-own"]
            assert answer.read() == b"named"
            connection.close()


def test_djangos_lines_carry_the_id_without_a_logging_setting(env: Any) -> None:
    with serving("--workers", "1", env=env()) as server:
        assert server.get("/boom/", headers={"X-Request-ID": "abc"}).status == 500
        server.wait_for("[ERROR] [abc] Internal Server Error: /boom/")


def test_a_client_does_not_name_its_request(env: Any) -> None:
    with serving("--trusted-proxies", "none", env=env()) as server:
        assert server.get("/", headers={"X-Request-ID": "mine"}).headers["x-request-id"] != "mine"


def test_a_running_request_is_shown_with_its_id(env: Any) -> None:
    with serving("--slow-request", "1s", env=env()) as server:
        server.get("/slow/?seconds=2.5", headers={"X-Request-ID": "dawdler"})
        assert "dawdler" in server.wait_for("Slow request: ")


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_a_view_can_leave_the_access_log(env: Any, site: Path, kind: str) -> None:
    with serving("--worker-class", kind, "--access-log", "-", env=env(), cwd=site) as server:
        assert server.get("/ping/").text == "pong"
        assert server.get("/tell/1/").status == 200
        server.wait_for('"GET /tell/1/ ')
        assert server.stop() == 0
        assert "/ping/" not in server.output


def test_the_browser_is_told_where_the_time_went(env: Any) -> None:
    started = {"X-Request-Start": f"t={time.time() - 2:.3f}"}
    with serving("--local", env=env()) as server:
        header = server.get("/slow/?seconds=0.2", headers=started).headers["server-timing"]
    found = re.fullmatch(r"queue;dur=([\d.]+), app;dur=([\d.]+)", header)
    assert found, header
    assert float(found[1]) >= 2000
    assert float(found[2]) >= 200
    with serving(env=env()) as server:
        assert "server-timing" not in server.get("/").headers
