"""Machines and projects for tests of the pure middle."""

from __future__ import annotations

from typing import Any

from django_prodserve.config.options import Options, SourcedValue
from django_prodserve.config.resolve import resolve
from django_prodserve.export.site import Site
from django_prodserve.machine.detect import Machine
from django_prodserve.machine.platforms import NOWHERE, Platform
from django_prodserve.plan.plan import Plan, PlanInputs, make_plan
from django_prodserve.project.detect import Database, Project
from django_prodserve.staticfiles import StaticChoice
from django_prodserve.utils.decision import Decision
from django_prodserve.utils.units import GIB


def machine(cpus: float = 2.0, memory: int | None = 8 * GIB, **facts: Any) -> Machine:
    """Return a machine; every other fact is dull."""
    known = {
        "cpus_why": "two of them",
        "quota": None,
        "memory_total": memory,
        "memory_limit": None,
        "memory_limit_why": "no limit",
        "memory_effective": memory,
        "memory_effective_why": "MemTotal, no limit found",
        "pids_limit": None,
        "container": None,
        "cpu_weight": None,
        "limits_visible": True,
        "notes": (),
    }
    return Machine(cpus=cpus, **{**known, **facts})


def postgresql(alias: str = "default") -> Database:
    """Return a database whose server counts connections."""
    return Database(alias=alias, vendor="postgresql", where="shop@db", max_age=0)


def project(**facts: Any) -> Project:
    """Return a project as startproject makes it."""
    known: dict[str, Any] = {
        "settings_module": "shop.settings",
        "application": "shop.wsgi.application",
        "debug": False,
        "allowed_hosts": ("shop.example",),
        "databases": (Database(alias="default", vendor="sqlite", where="db.sqlite3", max_age=0),),
        "static": StaticChoice(mode="collect", why="STATIC_ROOT is unset"),
        "brotli": True,
        "gunicorn_conf": False,
        "speedups": Decision(True, "as tested"),
    }
    return Project(**{**known, **facts})


def wishes(source: str = "test", **stated: Any) -> Options:
    """Return options as if somebody had stated these."""
    return resolve([{name: SourcedValue(value, source) for name, value in stated.items()}])


def plan(
    machine_: Machine | None = None,
    project_: Project | None = None,
    platform: Platform = NOWHERE,
    fork_safe: bool = True,
    **stated: Any,
) -> Plan:
    """Decide for dull facts and these wishes."""
    return make_plan(
        PlanInputs(
            machine=machine_ or machine(),
            platform=platform,
            project=project_ or project(),
            options=wishes(**stated),
            fork_safe=fork_safe,
        )
    )


def site(**facts: Any) -> Site:
    """Return the names and paths of a project in /srv/shop."""
    known: dict[str, Any] = {
        "name": "shop",
        "domains": ("shop.example", "www.shop.example"),
        "directory": "/srv/shop/current",
        "program": ("/srv/shop/venv/bin/prodserve",),
        "settings": "shop.settings",
        "user": "shop",
        "python": "3.13",
        "static_url": "/static/",
        "static_root": "",
        "writable": {"/srv/shop/media": "MEDIA_ROOT: uploads"},
    }
    return Site(**{**known, **facts})
