"""What this Django project is, read from its settings. Lives in the command, before anything starts.

Reads settings only: imports nothing of the project, opens no connection, changes nothing.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from .staticfiles import StaticChoice, choose_static


@dataclass(frozen=True, kw_only=True)
class Database:
    """One entry of DATABASES. ``max_age`` in seconds, None keeps connections for ever."""

    alias: str
    vendor: str
    where: str
    max_age: float | None
    pooled: bool

    @property
    def counts(self) -> bool:
        """Whether a connection occupies a place on a server; a file has no such limit."""
        return self.vendor not in {"sqlite", "dummy"}


@dataclass(frozen=True, kw_only=True)
class Project:
    """The facts that the plan needs about a project."""

    settings_module: str
    application: str
    """Dotted path of WSGI_APPLICATION; empty for Django's own."""
    asgi_only: bool
    debug: bool
    allowed_hosts: tuple[str, ...]
    databases: tuple[Database, ...]
    static: StaticChoice
    brotli: bool
    gunicorn_conf: bool
    """Whether a gunicorn.conf.py lies in the working directory."""

    @classmethod
    def inspect(cls, *, static: bool = True, collect: bool = True) -> Project:
        """Read the settings that are loaded now; ``static`` and ``collect`` are the operator's wishes."""
        application = getattr(settings, "WSGI_APPLICATION", None) or ""
        return cls(
            settings_module=getattr(settings, "SETTINGS_MODULE", "") or "(settings.configure)",
            application=application,
            asgi_only=not application and bool(getattr(settings, "ASGI_APPLICATION", None)),
            debug=bool(settings.DEBUG),
            allowed_hosts=tuple(settings.ALLOWED_HOSTS),
            databases=tuple(read_database(alias, entry) for alias, entry in settings.DATABASES.items()),
            static=choose_static(wanted=static, collect=collect),
            brotli=importlib.util.find_spec("brotli") is not None,
            gunicorn_conf=os.path.exists("gunicorn.conf.py"),
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
    return Database(
        alias=alias,
        vendor=vendor,
        where=where,
        max_age=None if max_age is None else float(max_age),
        pooled=bool((entry.get("OPTIONS") or {}).get("pool")),
    )
