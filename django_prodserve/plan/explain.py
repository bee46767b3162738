"""A plan as text, as JSON and as the words at start: one loop over the same decisions. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..utils.notice import Notice
from ..utils.units import format_cpus
from .gunicorn_settings import gunicorn_settings

if TYPE_CHECKING:
    from ..utils.decision import Decision
    from .plan import Plan


def explain(plan: Plan, *, details: bool = False) -> str:
    """Return every decision on a line: name, value, reason, source; then notes and warnings."""
    rows = [(name, plan.show(name, each.value), each) for name, each in plan.decisions()]
    width = max(len(name) for name, _, _ in rows)
    values = min(28, max(len(value) for _, value, _ in rows))
    lines = [
        f"{name.replace('_', '-'):<{width}}  {value:<{values}}  {each.why}  [{each.source}]"
        for name, value, each in rows
    ]
    lines += [
        f"{'gunicorn':<{width}}  {name} = {each.value!r}  [{each.source}]"
        for name, each in plan.gunicorn.items()
    ]
    lines += [f"note: {note}" for note in (*plan.notes, *(plan.details if details else ()))]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join(lines)


def as_json(plan: Plan) -> str:
    """Return the same as JSON: decisions, Gunicorn's settings, notes and warnings."""
    document = {
        "decisions": {
            name: {"value": each.value, "why": each.why, "source": each.source}
            for name, each in plan.decisions()
        },
        "gunicorn": gunicorn_settings(plan),
        "notes": plan.notes,
        "warnings": plan.warnings,
    }
    return json.dumps(document, indent=2, default=repr)


def to_dict(plan: Plan) -> dict[str, Any]:
    """Return what an operator may see of a running server's plan: decisions as people read them."""
    return {
        "decisions": {
            name: {"value": plan.show(name, each.value), "why": each.why, "source": each.source}
            for name, each in plan.decisions()
        },
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }


def startup_lines(plan: Plan, static: str, django: str) -> Iterator[str]:
    """Yield the few lines that an operator reads before the address."""
    yield Notice(
        f"django-prodserve {__version__}, Django {django}, settings {plan.settings.value}",
        **{"event": "start", "version": __version__, "django": django, "settings": plan.settings.value},
    )
    yield workers_line(plan)
    yield _part("static", static)
    yield _part("database", plan.database.value)
    if plan.platform.value != "none":
        yield _part("platform", f"{plan.platform.value} ({plan.platform.why}): {_taken(plan)}")
    for note in plan.notes:
        yield f"note: {note}"
    for warning in plan.warnings:
        yield f"warning: {warning}"


def _part(name: str, text: str) -> Notice:
    """Return a line on a part of the server; its name is a field for programs, and padded for people."""
    return Notice(f"{name:<10}{text}", message=f"{name}: {text}", event="start", part=name)


def workers_line(plan: Plan) -> Notice:
    """Return the line on how many serve, and why."""
    counted = f"{plan.workers.value} x {plan.threads.value} threads: {_because(plan)}"
    line = _part("workers", counted)
    line.fields |= {"workers": plan.workers.value, "threads": plan.threads.value}
    line.fields |= {"cpus": plan.cpus.value, "memory": plan.memory.value, "profile": plan.profile.value}
    return line


def measuring_line(before: Plan, plan: Plan) -> Iterator[str]:
    """Yield what a measurement changes about the words at start."""
    sizes = [(each.workers.value, each.threads.value) for each in (before, plan)]
    if sizes[0] != sizes[1]:
        yield workers_line(plan)
    for warning in plan.warnings:
        if warning not in before.warnings:
            yield f"warning: {warning}"


def _taken(plan: Plan) -> str:
    """What the platform decided, directly or through its variables."""
    said = {plan.platform.value, "PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"}
    taken = [
        f"{name.replace('_', '-')} {plan.show(name, each.value)}"
        for name, each in plan.decisions()
        if each.source in said and each.value is not None
    ]
    return ", ".join(taken) or "nothing was taken from it"


def _because(plan: Plan) -> str:
    workers: Decision[int] = plan.workers
    said = f"{workers.why} [{workers.source}]" if not workers.is_computed else workers.why
    machine = f"{format_cpus(plan.cpus.value)}, {plan.show('memory', plan.memory.value)}"
    return f"{said}; {machine}; profile {plan.profile.value}"
