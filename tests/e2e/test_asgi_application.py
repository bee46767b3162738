"""The project's own ASGI_APPLICATION: requests, lifespan, a reload that fails, and roads of single views."""

from __future__ import annotations

import http.client
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from .needs import need_package
from .serving import Server, run, serving, until

Env = Callable[..., dict[str, str]]
LOOP = "prodserve-asyncio"
MANAGE = ("manage.py", "prodserve")


def project(env: Env, application: str = "asgi.router", **more: object) -> dict[str, str]:
    """Return the environment of a project without WSGI_APPLICATION."""
    settings = {"WSGI_APPLICATION": None, "ROOT_URLCONF": "shop.road_urls"}
    return env(**settings, ASGI_APPLICATION=f"shop.{application}", **more)


def thread(server: Server, path: str) -> str:
    found: str = server.get(path).json()["thread"]
    return found


def test_an_application_around_django_gets_all_requests(env: Env) -> None:
    hooks = {"GUNICORN": {"pre_request": "shop.hooks.pre_request"}}
    environ = project(env, PRODSERVE=hooks)
    flags = ("--workers", "1", "--max-body", "1m", "--access-log", "-")
    with serving(*flags, env=environ) as server:
        assert "by shop.asgi.router, which is not Django's handler. Each sync view costs" in server.output
        assert server.output.index("startup in ") < server.output.index(" ready in ")
        assert_requests_are_answered(server)
        assert_a_client_that_leaves_is_reported(server)

        nap = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        nap.request("GET", "/api/nap")
        until(lambda: server.get("/api/naps").json() == 1)
        server.process.send_signal(signal.SIGTERM)
        assert nap.getresponse().read() == b'"rested"'
        server.process.wait(timeout=30)
        server.wait_for("shutdown in ")  # after the last request


@pytest.mark.slow
def test_a_reload_whose_startup_fails_leaves_the_old_release_serving(env: Env, tmp_path: Path) -> None:
    environ = project(env) | {"SITE_STARTUP": str(tmp_path / "startup")}
    with serving("--workers", "1", env=environ) as server:
        (tmp_path / "startup").write_text("starlette")
        here = ("--bind", server.address.removeprefix("http://"))
        reloaded = run(*MANAGE, "reload", *here, env=environ)
        assert reloaded.returncode == 1
        reason = "The lifespan startup of shop.asgi.router failed: ConnectionError: the broker is away"
        assert f"Reload failed; generation 1 keeps serving. {reason} (shop/asgi.py, line " in reloaded.stderr
        assert server.get("/api/state").status == 200


def assert_requests_are_answered(server: Server) -> None:
    first, second = (server.get("/api/state").json() for _ in "12")
    assert first == {"greeting": "hello from the startup", "mine": 1, "shared": 1}
    server.wait_for("saw /api/state")
    assert second == first | {"shared": 2}  # each scope has a copy of the state, with the same objects

    with connect(f"ws://127.0.0.1:{server.port}/anything", proxy=None) as client:
        assert client.recv() == "hello from the startup"

    assert server.get("/").text == "hello"
    assert thread(server, "/roads/live/") == LOOP
    assert thread(server, "/roads/plain/") != LOOP
    assert server.get("/roads/plain/").json()["scope"] == "http"
    assert thread(server, "/roads/computes/") == LOOP  # a decorator cannot bypass their application

    assert server.get("/static/admin/css/base.css").status == 200
    assert server.get("/livez").status == 200
    assert server.get("/api/size", "POST", body=b"x" * 100_000).json() == [65536, 34464]
    assert server.get("/api/size", "POST", body=b"x" * 1_100_000).status == 413
    pieces = server.get("/api/pieces")
    assert (pieces.status, pieces.text) == (203, "0\n1\n2\n")
    assert pieces.headers["transfer-encoding"] == "chunked"
    found = server.get("/api/else", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"})
    assert (found.json()["client"][0], found.json()["scheme"]) == ("192.0.2.7", "https")
    assert len(found.headers["x-request-id"]) == 20

    assert server.get("/api/boom").status == server.get("/api/nothing").status == 500
    server.wait_for("RuntimeError: the view broke")
    server.wait_for("the application returned without a response")
    server.wait_for(re.compile(r'"GET /api/boom HTTP/1\.1" 500 ').search)


def assert_a_client_that_leaves_is_reported(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(b"GET /api/wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: server.get("/").status == 200)
    until(lambda: server.get("/api/gone").json() == ["/api/wait http.disconnect"])


def test_a_startup_that_fails_is_a_failed_start(env: Env, tmp_path: Path) -> None:
    (tmp_path / "startup").write_text("failed")
    environ = project(env) | {"SITE_STARTUP": str(tmp_path / "startup")}
    ended = run(*MANAGE, "--bind", "127.0.0.1:0", "--workers", "1", env=environ)
    assert ended.returncode == 3
    reason = "failed: the queue is not reachable"
    assert f"[CRITICAL] The lifespan startup of shop.asgi.router {reason}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert " ready in " not in ended.stdout


def test_single_views_choose_their_roads(env: Env) -> None:
    roads = {"live": "loop", "/roads/by-path/": "threads"}
    environ = project(env, "asgi.application", PRODSERVE={"ROADS": roads})
    with serving("--workers", "1", env=environ) as server:
        assert thread(server, "/roads/live/") == LOOP
        # The coroutine runs in a thread of asgiref's with a loop of its own, and not on the worker's.
        assert thread(server, "/roads/computes/") != LOOP
        assert server.get("/roads/scoped/").json()["scope"] == "http"
        assert server.get("/roads/plain/").json()["scope"] is None
        assert thread(server, "/roads/by-path/live/") != LOOP


def test_all_requests_may_run_on_the_loop(env: Env) -> None:
    settings = {"ASGI": "asgi", "ROADS": {"/roads/by-path/": "threads"}}
    with serving("--workers", "1", env=project(env, "asgi.application", PRODSERVE=settings)) as server:
        assert "all requests on the asyncio loop: PRODSERVE['ASGI'] is asgi, and each sync" in server.output
        assert server.get("/").text == "hello"
        assert server.get("/roads/plain/").json()["scope"] == "http"
        assert server.get("/roads/by-path/live/").json()["scope"] is None
        assert server.get("/roads/computes/").json()["scope"] is None
        assert server.get("/static/admin/css/base.css").status == 200


def test_a_road_for_no_route_is_refused_with_a_suggestion(env: Env) -> None:
    environ = project(env, "asgi.application", PRODSERVE={"ROADS": {"plian": "loop"}})
    ended = run(*MANAGE, "check", "--bind", "127.0.0.1:0", env=environ)
    assert ended.returncode == 2
    assert "PRODSERVE['ROADS'] has 'plian', but no route or view has this name." in ended.stderr
    assert "Did you mean 'plain'?" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.stock
def test_fastapi_around_django(env: Env, tmp_path: Path) -> None:
    need_package("fastapi")
    environ = project(env, "asgi_stock.fastapi_app") | {"SITE_STARTUP": str(tmp_path / "startup")}
    with serving("--workers", "1", env=environ) as server:
        assert "shop.asgi_stock.fastapi_app, a fastapi.applications.FastAPI and not Django's" in server.output
        assert [server.get(f"/api/{name}").json() for name in ("state", "sync")] == ["hello", "sync"]
        assert server.get("/api/stream").text == "0\n1\n2\n"
        body, kind = b'{"a": 1, "b": 2}', {"Content-Type": "application/json"}
        assert server.get("/api/count", "POST", headers=kind, body=body).json() == 2
        assert server.get("/").text == "hello"
        assert server.get("/roads/live/").json()["scope"] == "http"

        (tmp_path / "startup").touch()
        here = ("--bind", server.address.removeprefix("http://"))
        reloaded = run(*MANAGE, "reload", *here, env=environ)
        assert "fastapi_app failed: RuntimeError: there is no broker (shop/asgi_stock.py" in reloaded.stderr
        assert server.get("/api/sync").json() == "sync"
        assert server.stop() == 0
        server.wait_for("the lifespan has ended")


@pytest.mark.stock
@pytest.mark.parametrize(
    ("package", "name", "kind"),
    [
        ("sentry_sdk", "sentry_app", "sentry_sdk.integrations.asgi.SentryAsgiMiddleware"),
        ("socketio", "socketio_app", "socketio.asgi.ASGIApp"),
    ],
)
def test_wrappers_around_django(env: Env, package: str, name: str, kind: str) -> None:
    need_package(package)
    with serving("--workers", "1", env=project(env, f"asgi_stock.{name}")) as server:
        assert f"by shop.asgi_stock.{name}, a {kind} and not Django's handler" in server.output
        assert server.get("/").text == "hello"
        assert server.get("/roads/live/").json() == {"thread": LOOP, "scope": "http"}
        if package == "socketio":
            assert '"sid"' in server.get("/socket.io/?EIO=4&transport=polling").text
        assert "lifespan" not in server.output
