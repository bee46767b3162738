"""The plan of a project with async views, and what is found only when it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from .management import MANAGEMENT, ask
from .postgres import cluster
from .serving import run, serving, until

Env = Callable[..., dict[str, str]]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "shop.isolation_urls.sync_only",
]
LOADS = ["--preload", pytest.param("--no-preload", marks=pytest.mark.slow)]
ROADS = "async routes on the asyncio loop; "


@pytest.mark.parametrize(
    "preload", [pytest.param("--preload"), pytest.param("--no-preload", marks=pytest.mark.slow)]
)
def test_a_start_warns_when_the_project_is_loaded_and_shares_the_connections(env: Env, preload: str) -> None:
    project = env(ROOT_URLCONF="shop.isolation_urls", WSGI_APPLICATION=None, MIDDLEWARE=MIDDLEWARE)
    flags = ("--workers", "2", "--db-connections", "20", preload, *MANAGEMENT)
    with serving(*flags, env=project) as server:
        assert ROADS in server.output
        (warned,) = [line for line in server.output.splitlines() if "(prodserve.W023)" in line]
        assert "shop.isolation_urls.sync_only" in warned
        decided = ask(server, "/status.json").json()["plan"]["decisions"]
        assert (decided["threads"]["value"], decided["leases"]["value"]) == ("5", "5")
        assert ROADS in decided["asgi"]["why"]
        assert 'prodserve_leases{worker="0"} 5.0' in ask(server, "/metrics").text


@pytest.mark.slow
def test_plan_and_check_know_the_routes(env: Env) -> None:
    project = env(ROOT_URLCONF="shop.async_urls", WSGI_APPLICATION=None, MIDDLEWARE=MIDDLEWARE)
    planned = run("manage.py", "prodserve", "plan", "--json", "--db-connections", "40", env=project)
    decided = json.loads(planned.stdout)["decisions"]
    assert ROADS in decided["asgi"]["why"]
    assert decided["leases"]["value"] > 0
    found = run("manage.py", "prodserve", "check", "--strict", "--bind", "127.0.0.1:0", env=project)
    assert found.returncode == 1
    assert "refuses to serve with warnings" in found.stderr
    deployed = run("manage.py", "check", "--deploy", env=project)
    assert "prodserve.W023" in deployed.stderr
    off = run("manage.py", "check", "--deploy", env=project | {"PRODSERVE_ASGI": "off"})
    assert "prodserve.W023" not in off.stderr


def test_threads_make_room_for_the_loop_while_it_has_work(env: Env) -> None:
    project = env(ROOT_URLCONF="shop.isolation_urls", WSGI_APPLICATION=None, MIDDLEWARE=MIDDLEWARE)
    with serving("--workers", "1", env=project) as server:
        assert server.get("/interval/").text == "0.005"
        assert server.get("/nap/?seconds=0").status == 200
        until(lambda: server.get("/interval/").text == "0.001")
        until(lambda: server.get("/interval/").text == "0.005")


@pytest.mark.slow
def test_threads_and_leased_threads_keep_within_the_connections(env: Env) -> None:
    with cluster() as postgres, postgres.running():
        kept = {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True, "OPTIONS": {"application_name": "shop"}}
        databases = {"default": postgres.settings("postgres", **kept)}
        project = env(ROOT_URLCONF="shop.isolation_urls", WSGI_APPLICATION=None, DATABASES=databases)
        flags = ("--workers", "2", "--db-connections", "8", "--queue-timeout", "0")
        with serving(*flags, env=project) as server, ThreadPoolExecutor(40) as clients:
            paths = ["/query/", "/async-query/"] * 150
            answers = [clients.submit(server.get, path) for path in paths]
            seen = set()
            while not all(answer.done() for answer in answers):
                ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop'"
                seen.add(postgres.sql(ours)[0][0])
            assert {answer.result().status for answer in answers} == {200}
            assert 6 <= max(seen) <= 8  # both kinds of threads have some, in both workers


def test_plan_shows_the_plan_if_the_urls_cannot_be_loaded(env: Env) -> None:
    planned = run("manage.py", "prodserve", "plan", env=env(ROOT_URLCONF="shop.nowhere"))
    assert planned.returncode == 0
    assert "The URLconf cannot be loaded: " in planned.stdout
