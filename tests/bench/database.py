"""Whether threads that follow the load stay within what a small PostgreSQL allows, also over its restart.

    python -m tests.bench.database [--seconds 600] [--connections 40]

Crowds of clients ask for a view whose query takes half a second, again and again, with pauses in which the
threads end. The database restarts in the middle. Prints the connections that were open at most and at the
end, and what clients saw, and exits 1 if the server had more connections than its plan allows.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from tests.e2e.postgres import Postgres, cluster
from tests.e2e.serving import PATIENCE, Server, at_work, copy_site, environment, run, serving, until

VIEWS = '''

def ask(request: HttpRequest) -> HttpResponse:
    """Let the database wait."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.5)")
    return HttpResponse()


urlpatterns.append(path("ask/", ask))
'''
CROWD, CLIENTS_OF_A_PAUSE = 120, 2
CROWD_SECONDS, PAUSE_SECONDS = 25.0, 80.0
"""In a pause the threads end: each after a minute."""
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'"


class Site(NamedTuple):
    """The project, and the environment of its commands."""

    path: Path
    env: dict[str, str]


class Watch:
    """The connections that the server has open, at most and now; -1 while the database is away."""

    def __init__(self, postgres: Postgres) -> None:
        self.postgres, self.most, self.now = postgres, 0, 0

    def look(self, over: threading.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(psycopg.Error):
                where = {
                    "host": "127.0.0.1",
                    "port": self.postgres.port,
                    "user": "site",
                    "dbname": "postgres",
                }
                with psycopg.connect(**where, autocommit=True) as connection:  # type: ignore[arg-type]
                    while not over.wait(0.1):
                        [(self.now,)] = connection.execute(OPEN).fetchall()
                        self.most = max(self.most, self.now)
            self.now = -1
            over.wait(0.2)


@contextlib.contextmanager
def clients(server: Server, count: int, seen: Counter[str]) -> Iterator[None]:
    """Ask all the time, each client on its own connection."""

    def ask(over: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        while not over.is_set():
            try:
                connection.request("GET", "/ask/")
                answer = connection.getresponse()
                answer.read()
                seen[str(answer.status)] += 1
                over.wait(0.0 if answer.status == 200 else 1.0)
            except (OSError, http.client.HTTPException) as error:
                seen[type(error).__name__] += 1
                connection.close()
        connection.close()

    with at_work(ask, count):
        yield


def rounds(server: Server, watch: Watch, seconds: float, site: Site) -> None:
    """Send crowds and pauses for so long, and print what each brought."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen: Counter[str] = Counter()
        with clients(server, CROWD, seen):
            time.sleep(CROWD_SECONDS)
        threads, most = total(server, site, "threads"), watch.now
        with clients(server, CLIENTS_OF_A_PAUSE, seen):
            time.sleep(PAUSE_SECONDS)
        print(
            f"crowd: {threads} threads, {most} connections; pause: {total(server, site, 'threads')} threads, "
            f"{watch.now} connections; answers {dict(seen)}",
            flush=True,
        )


def total(server: Server, site: Site, name: str) -> int:
    words = ("manage.py", "prodserve", "status", "--json", "--bind", str(server.port))
    found: dict[str, Any] = json.loads(run(*words, env=site.env, cwd=site.path).stdout)
    return sum(int(worker[name]) for worker in found["workers"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--connections", type=int, default=40)
    parser.add_argument("--kept", type=int, default=0, help="seconds of CONN_MAX_AGE")
    wanted = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(cluster())
        with (postgres.directory / "data" / "postgresql.conf").open("a") as file:
            file.write(f"max_connections = {wanted.connections}\n")
        database = stack.enter_context(contextlib.ExitStack())
        database.enter_context(postgres.running())
        postgres.sql("CREATE ROLE shop LOGIN")
        postgres.sql("CREATE DATABASE shop OWNER shop")
        default = postgres.settings("shop", CONN_MAX_AGE=wanted.kept) | {"USER": "shop"}
        env = environment(directory, DATABASES={"default": default})
        site = Site(copy_site(directory, VIEWS), env)
        server = stack.enter_context(serving("--workers", "2", env=env, cwd=site.path))
        print(next(line for line in server.output.splitlines() if line.lstrip().startswith("workers")))
        watch = Watch(postgres)
        stack.enter_context(at_work(watch.look, 1))
        rounds(server, watch, wanted.seconds / 2, site)
        with clients(server, CROWD, seen := Counter()):
            time.sleep(3)
            database.close()
            time.sleep(3)
            stack.enter_context(postgres.running())
            time.sleep(10)
        print(f"restarted in a crowd: {dict(seen)}", flush=True)
        rounds(server, watch, wanted.seconds / 2, site)
        until(lambda: watch.now <= 4, patience=90)  # two workers, CONN_MAX_AGE
        server.lines = [
            line for line in server.output.splitlines() if "Traceback" not in line
        ]  # the restart's
        log = "\n".join(path.read_text(errors="replace") for path in postgres.directory.glob("*.log"))
        refused = log.count("too many clients") + log.count("remaining connection slots")
        budget = total(server, site, "max_threads") + 2
        print(f"at most {watch.most} connections of {budget}, {watch.now} at the end, {refused} refused")
        return int(watch.most > budget or refused > 0)


if __name__ == "__main__":
    sys.exit(main())
