"""PostgreSQL goes away and comes back while a site serves: what is in flight fails, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .postgres import Postgres, cluster
from .serving import PATIENCE, Server, at_work, copy_site, serving, until

pytestmark = pytest.mark.slow

CLIENTS = 4
VIEW = """

def ask(request):
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_sleep(0.02)")
        return HttpResponse(cursor.fetchone()[0])


urlpatterns.append(path("ask/", ask))
"""
KILL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'shop'"
KEPT = {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with cluster() as made:
        yield made


@contextlib.contextmanager
def asking(server: Server) -> Iterator[list[int]]:
    """Ask the database all the time; the list holds every status."""
    statuses: list[int] = []

    def ask(over: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        while not over.is_set():
            connection.request("GET", "/ask/")
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    with at_work(ask, CLIENTS):
        yield statuses


def serves_well(statuses: list[int], count: int = 40) -> bool:
    """Say whether the last answers were all good."""
    return len(statuses) >= count and {*statuses[-count:]} == {200}


def test_only_what_is_in_flight_fails(env: Any, tmp_path: Path, postgres: Postgres) -> None:
    site = copy_site(tmp_path, VIEW)
    with ExitStack() as database:
        database.enter_context(postgres.running())
        postgres.sql("CREATE DATABASE shop")
        environ = env(DATABASES={"default": postgres.settings("shop", **KEPT)})
        flags = ("--workers", "2", "--threads", "2")
        with serving(*flags, env=environ, cwd=site) as server, asking(server) as statuses:
            workers = server.workers(2)
            until(lambda: serves_well(statuses))
            for _ in range(3):
                del statuses[:]
                until(lambda: postgres.sql(KILL)[0][0] > 0)
                until(lambda: serves_well(statuses))
                assert statuses.count(500) <= CLIENTS
                assert {*statuses} <= {200, 500}
            database.close()  # it stops
            until(lambda: 500 in statuses[-CLIENTS:])
            assert server.get("/").status == 200
            database.enter_context(postgres.running())
            del statuses[:]
            until(lambda: serves_well(statuses))
            assert statuses.count(500) <= CLIENTS
            assert server.workers(2) == workers
            server.lines = [line for line in server.output.splitlines() if "Traceback" not in line]
