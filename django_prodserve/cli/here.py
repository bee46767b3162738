"""Decisions that this machine allows without the project, for ``prodserve help OPTION``.

Runs in a command without a project. Reads the environment and the machine, neither Django nor settings. A
plan that knows the project and its settings may decide otherwise.
"""

from __future__ import annotations

import os
from typing import Any

from ..config import resolve
from ..config.options import Options
from ..config.row import Row
from ..errors import Problem, ProdserveError
from ..machine.detect import Machine
from ..machine.platforms import Platform, detect
from ..plan import plan as planning
from ..plan import worker_classes
from ..plan.sizing import Sizing
from ..utils.decision import Decision

WITHOUT_PROJECT = "; without the project: prodserve plan shows it"


def decision(row: Row) -> str:
    """Return the decision on an option with its reason; empty if it depends on the project."""
    try:
        platform = detect(os.environ)
        wishes = planning.ResolvedOptions(_options(platform), platform)
        found = _decide(row, wishes)
    except (ProdserveError, OSError):
        return ""
    if found is None:
        return ""
    value = "none" if found.value is None else row.show(found.value)
    return f"{value}: {found.why} [{found.source}]{WITHOUT_PROJECT if row.computed else ''}"


def _options(platform: Platform) -> Options:
    """Return the options from variables and the platform. Errors in them are reported at the next start."""
    problems: list[Problem] = []
    environment = resolve.environment_layer(os.environ, problems)
    return resolve.resolve([environment, resolve.platform_layer(platform.name, platform.values)])


def _decide(row: Row, wishes: planning.ResolvedOptions) -> Decision[Any] | None:
    if not row.computed:
        return wishes.computed(row.name)
    machine = Machine.detect(environ=os.environ)
    if row.name == "bind":
        return planning.choose_bind(machine, wishes)
    cpus, memory = planning.choose_cpus(machine, wishes), planning.choose_memory(machine, wishes)
    if row.name in ("cpus", "memory"):
        return cpus if row.name == "cpus" else memory
    sizing = Sizing(
        cpus=cpus.value,
        memory=memory.value,
        profile=wishes.options.profile,
        worker_class=worker_classes.choose(wishes.computed("worker_class"), wishes.options.gunicorn).value,
        databases=1,
        stated_workers=wishes.stated("workers"),
        stated_threads=wishes.stated("threads"),
        db_connections=wishes.stated("db_connections"),
        footprint=None,
    )
    workers = sizing.workers()
    return {"workers": workers, "threads": sizing.threads(workers.value)}.get(row.name)
