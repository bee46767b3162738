"""What is compared: one row for each server."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Server:
    """How to start a server, and what the project must know about it."""

    name: str
    command: str  # for python; {port} and {work}, the bench's temporary directory, are filled in
    needs: str  # the module that must be importable
    static: str = "whitenoise"  # as Django middleware, "mount" for a server's own, "" where we decide
    app: str = ""  # in INSTALLED_APPS
    views: str = ""  # "async" for the site with async views and websockets, "sync" for the same without them

    def argv(self, port: int, work: Path) -> list[str]:
        return [sys.executable, *shlex.split(self.command.format(port=port, work=work))]

    @property
    def missing(self) -> str:
        """Say why this server cannot be measured here, if so."""
        return "" if importlib.util.find_spec(self.needs) else f"no module named {self.needs}"

    def environment(self, port: int) -> dict[str, str]:
        return {
            "BENCH_STATIC": self.static,
            "BENCH_APP": self.app,
            "BENCH_PORT": str(port),
            "BENCH_VIEWS": self.views,
        }


GUNICORN = "-m gunicorn benchsite.wsgi --bind 127.0.0.1:{port}"
SERVERS = {
    server.name: server
    for server in [
        Server(
            "prodserve",
            "manage.py prodserve --bind 127.0.0.1:{port}",
            needs="gunicorn",
            static="",
            app="django_prodserve",
        ),
        Server("sync-2n+1", f"{GUNICORN} --workers {2 * CPUS + 1}", needs="gunicorn"),
        Server("sync-w4", f"{GUNICORN} -w 4", needs="gunicorn"),
        Server("gthread-2x4", f"{GUNICORN} --workers 2 --threads 4", needs="gunicorn"),
        Server(
            "granian",
            "-m granian benchsite.wsgi:application --interface wsgi --port {port} --workers 2"
            " --blocking-threads 4 --static-path-mount {work}/static",
            needs="granian",
            static="mount",
        ),
        Server(
            "uvicorn",
            "-m uvicorn benchsite.asgi:application --port {port} --workers 2 --no-access-log",
            needs="uvicorn",
        ),
        Server(
            "waitress", "-m waitress --listen 127.0.0.1:{port} benchsite.wsgi:application", needs="waitress"
        ),
        Server("runserver", "manage.py runserver 127.0.0.1:{port} --noreload --nostatic", needs="django"),
        # The peer apps as their own documentation shows them, with Gunicorn.
        Server("django-prodserver", "manage.py server web", "django_prodserver", app="django_prodserver"),
        Server(
            "django-webserver",
            "manage.py gunicorn --bind 127.0.0.1:{port}",
            needs="django_webserver",
            app="django_webserver",
        ),
    ]
}


PRODSERVE = "manage.py prodserve --bind 127.0.0.1:{port} --workers 2"
GRANIAN = "-m granian benchsite.async_site:application --interface asgi --port {port} --workers 2"
ASGI_SERVERS = {
    server.name: server
    for server in [
        Server("prodserve-sync", PRODSERVE, "gunicorn", static="", app="django_prodserve", views="sync"),
        Server("prodserve-async", PRODSERVE, "gunicorn", static="", app="django_prodserve", views="async"),
        # With the loop and the parser that uvicorn[standard] installs; no middleware that runs in threads.
        Server(
            "uvicorn-async",
            "-m uvicorn benchsite.async_site:application --port {port} --workers 2 --no-access-log",
            needs="uvicorn",
            static="mount",
            views="async",
        ),
        Server(
            "gunicorn-asgi",
            "-m gunicorn benchsite.async_site:application --bind 127.0.0.1:{port} -k asgi --workers 2",
            needs="gunicorn",
            static="mount",
            views="async",
        ),
        Server("granian-asgi", GRANIAN, "granian", static="mount", views="async"),
        # The same with our middleware and handler.
        *(
            Server(f"prodserve-{name}", f"{PRODSERVE} -k {name}", needs, "", "django_prodserve", "async")
            for name, needs in (("asgi", "gunicorn"), ("uvicorn", "uvicorn_worker"))
        ),
    ]
}
"""For async views; compare.py and bars.py know them."""


def choose(wanted: str) -> list[Server]:
    """Return the rows of ``a,b``; what follows a name are options added to its command."""
    chosen = []
    for entry in filter(None, map(str.strip, wanted.split(","))):
        name, _, options = entry.partition(" ")
        server = (SERVERS | ASGI_SERVERS)[name]
        chosen.append(replace(server, name=entry, command=f"{server.command} {options}"))
    return chosen
