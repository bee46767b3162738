"""Files of ``prodserve export`` for a dull project: for its tests, and for the documents."""

from __future__ import annotations

from typing import Any

from django_prodserve.config.options import SourcedValue
from django_prodserve.config.resolve import platform_layer, resolve
from django_prodserve.config.side_processes import read
from django_prodserve.export.build import Build
from django_prodserve.export.facts import Facts
from django_prodserve.export.kinds import KINDS
from django_prodserve.export.servers import needed
from django_prodserve.export.variables import Tried
from django_prodserve.machine.platforms import detect
from django_prodserve.plan.pipeline import platform_variables
from django_prodserve.plan.plan import PlanInputs, make_plan

from .facts import project, site

BUILD = Build(
    manager="pip",
    lock="requirements.txt",
    names=frozenset({"django", "django-prodserve", "psycopg"}),
    required=Tried(substitutes={"SECRET_KEY": "only-for-the-build"}),
)


def facts(
    kind: str,
    site_facts: dict[str, Any] | None = None,
    build: Build = BUILD,
    processes: dict[str, Any] | None = None,
    servers: tuple[str, ...] = (),
    **stated: Any,
) -> Facts:
    """Return the facts for a file of this kind, with these options set by flags."""
    target = KINDS[kind].target
    platform = detect(target.environ)
    layers = [
        {name: SourcedValue(given, "--flag") for name, given in stated.items()},
        platform_variables(target.environ, []),
        platform_layer(platform.name, platform.values),
    ]
    decided = make_plan(
        PlanInputs(
            machine=target.machine(),
            platform=platform,
            project=project(),
            options=resolve(layers, processes=read({"PROCESSES": processes}, [])),
        )
    )
    if servers and (more := needed(decided, servers)):
        return facts(kind, site_facts, build, processes, servers, **{**more, **stated})
    return Facts.of(decided, site(**site_facts or {}), target, f"prodserve export {kind}", build, servers)


def exported(kind: str, site_facts: dict[str, Any] | None = None, **stated: Any) -> dict[str, str]:
    """Return the files of this kind: name to text."""
    return {file.name: file.text for file in KINDS[kind].render(facts(kind, site_facts, **stated))}
