"""The facts of this Django project, read from its settings. Runs in the command, before anything starts.

Reads settings only: imports nothing of the project, opens no connection, changes nothing.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from ..speedups.availability import speedups
from ..staticfiles import StaticChoice, choose_static
from ..utils import working_directory
from ..utils.decision import Decision
from .interpreter import why_no_supervisor


@dataclass(frozen=True, kw_only=True)
class Database:
    """One entry of DATABASES. ``max_age`` in seconds; None means that connections have no age limit."""

    alias: str
    vendor: str
    where: str
    max_age: float | None
    health_checks: bool = False
    pool_size: int | None = None
    """Maximum connections of the pool in each process; None without a pool."""
    deferred: bool = False
    """Whether transactions of this SQLite database begin as readers and may fail when they write."""

    @property
    def counts(self) -> bool:
        """Whether a connection counts against a limit of the server; a file has no such limit."""
        return self.vendor not in {"sqlite", "dummy"}

    @property
    def keeps_connections(self) -> bool:
        """Whether a thread keeps its own connection from one request to the next."""
        return self.counts and self.max_age != 0 and not self.pool_size

    @property
    def product(self) -> str:
        """The name of the database's software as its makers write it."""
        return PRODUCTS.get(self.vendor, self.vendor)


@dataclass(frozen=True, kw_only=True)
class Project:
    """The facts that the plan needs about a project."""

    settings_module: str
    application: str
    """Dotted path of WSGI_APPLICATION; empty for Django's own."""
    debug: bool
    allowed_hosts: tuple[str, ...]
    databases: tuple[Database, ...]
    static: StaticChoice
    brotli: bool
    gunicorn_conf: bool
    """Whether there is a gunicorn.conf.py in the working directory."""
    local_caches: tuple[str, ...] = ()
    """Caches in the memory of one process that the project relies on."""
    local_sessions: bool = False
    """Whether sessions are stored in such a cache."""
    local_channels: bool = False
    """Whether a channel layer is stored in the memory of one process."""
    ssl_redirect: bool = False
    prodserver: bool = False
    """Whether the other project, django-prodserver, is installed too."""
    daphne: bool = False
    """Whether daphne is an installed app, which replaces runserver."""
    link: str = ""
    """The link to the working directory, if the operator did not name it."""
    links: tuple[str, ...] = ()
    """Several such links, none of which is followed."""
    speedups: Decision[bool] = Decision(False, "nobody has looked")
    """Whether loaded library code may be changed in memory, and which."""
    no_supervisor: str = ""
    """Why no interpreter can be started, which a supervisor needs; mostly empty."""
    no_supervisor_is_certain: bool = False

    @property
    def keeps_connections(self) -> bool:
        """Whether a thread keeps its own connection to any database."""
        return any(database.keeps_connections for database in self.databases)

    @classmethod
    def inspect(cls, *, static: bool = True, collect: bool = True) -> Project:
        """Read the settings that are loaded now; ``static`` and ``collect`` are the operator's options."""
        application = getattr(settings, "WSGI_APPLICATION", None) or ""
        place = working_directory.here()
        no_supervisor, is_certain = why_no_supervisor()
        return cls(
            settings_module=getattr(settings, "SETTINGS_MODULE", "") or "(settings.configure)",
            application=application,
            debug=bool(settings.DEBUG),
            allowed_hosts=tuple(settings.ALLOWED_HOSTS),
            databases=tuple(read_database(alias, entry) for alias, entry in settings.DATABASES.items()),
            local_caches=read_local_caches(),
            local_sessions=bool(_session_cache() in _locmem_caches() and _uses_cache_sessions()),
            local_channels=any(
                str(layer.get("BACKEND", "")).endswith(".InMemoryChannelLayer")
                for layer in getattr(settings, "CHANNEL_LAYERS", {}).values()
            ),
            ssl_redirect=bool(settings.SECURE_SSL_REDIRECT),
            prodserver=any(str(app).startswith("django_prodserver") for app in settings.INSTALLED_APPS),
            daphne=any(str(app).partition(".")[0] == "daphne" for app in settings.INSTALLED_APPS),
            static=choose_static(wanted=static, collect=collect),
            brotli=importlib.util.find_spec("brotli") is not None,
            gunicorn_conf=os.path.exists("gunicorn.conf.py"),
            link=place.found,
            links=place.rivals,
            speedups=speedups(),
            no_supervisor=no_supervisor,
            no_supervisor_is_certain=is_certain,
        )


VENDORS = {
    "sqlite3": "sqlite",
    "spatialite": "sqlite",
    "postgresql": "postgresql",
    "postgis": "postgresql",
    "mysql": "mysql",
    "oracle": "oracle",
    "dummy": "dummy",
}
PRODUCTS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MySQL", "oracle": "Oracle"}


def read_database(alias: str, entry: dict[str, Any]) -> Database:
    """Describe one entry of DATABASES, without its password."""
    engine = str(entry.get("ENGINE") or "dummy").rpartition(".")[2]
    vendor = VENDORS.get(engine, engine)
    name = str(entry.get("NAME") or "")
    host = str(entry.get("HOST") or "")
    if vendor == "sqlite":
        where = os.path.basename(name) or ":memory:"
    else:
        where = f"{name}@{host}" if host else name
    max_age = entry.get("CONN_MAX_AGE", 0)
    options = entry.get("OPTIONS") or {}
    return Database(
        alias=alias,
        vendor=vendor,
        where=where,
        max_age=None if max_age is None else float(max_age),
        health_checks=bool(entry.get("CONN_HEALTH_CHECKS")),
        pool_size=_pool_size(options.get("pool")),
        deferred=vendor == "sqlite" and options.get("transaction_mode", "DEFERRED").upper() == "DEFERRED",
    )


def _pool_size(pool: Any) -> int | None:
    """Return the size of a psycopg pool: 4 by default; no more than min_size without max_size."""
    if not pool:
        return None
    sizes = pool if isinstance(pool, dict) else {}
    return int(sizes.get("max_size") or sizes.get("min_size") or 4)


def _locmem_caches() -> tuple[str, ...]:
    entries = settings.CACHES.items()
    return tuple(alias for alias, entry in entries if str(entry.get("BACKEND", "")).endswith(".LocMemCache"))


def _uses_cache_sessions() -> bool:
    return "backends.cache" in settings.SESSION_ENGINE


def _session_cache() -> str:
    return str(settings.SESSION_CACHE_ALIAS)


def read_local_caches() -> tuple[str, ...]:
    """Return the caches in process memory that are used: those that settings name, or a middleware needs.

    Django's own default is such a cache; a project without CACHES rarely knows of it or uses it.
    """
    named = settings.is_overridden("CACHES")
    cached = any("CacheMiddleware" in str(name) for name in settings.MIDDLEWARE)
    return _locmem_caches() if named or cached else ()
