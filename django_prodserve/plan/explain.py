"""A plan as text, as JSON and as the lines at start: one loop over the same decisions. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..config.options import option_field
from ..errors import Problem, UsageError
from ..utils import terminal
from ..utils.decision import LEARNED, SET_EXPLICITLY
from ..utils.notice import Notice, note, part, warning
from ..utils.units import format_cpus
from .gunicorn_settings import gunicorn_settings
from .worker_classes import LOST

if TYPE_CHECKING:
    from ..utils.decision import Decision
    from .plan import Plan

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Machine": ("platform", "cpus", "memory"),
    "Project": ("settings", "application", "database"),
    "Address": (
        *("bind", "management_bind", "tls", "certfile", "keyfile", "redirect_http", "acme_webroot"),
        *("umask", "backlog"),
    ),
    "Processes": (
        *(
            "workers",
            "threads",
            "max_threads",
            "worker_class",
            "profile",
            "apply_advice",
            "concurrency_limit",
            "lanes",
            "worker_connections",
        ),
        *("asgi", "roads", "leases"),
        *("db_connections", "master_memory", "worker_memory", "side_processes", "side_memory"),
        *("preload", "warmup", "supervisor", "speedups"),
    ),
    "Timeouts": (
        *("timeout", "slow_request", "queue_timeout", "keep_alive", "graceful_timeout", "drain_delay"),
        *("max_lifetime", "max_requests", "max_requests_jitter"),
    ),
    "Requests": (
        *("max_body", "limit_request_line", "limit_request_fields", "limit_request_field_size"),
        *("trusted_proxies", "trusted_hops", "client_address_header"),
    ),
    "Static files": ("static", "private_static", "brotli", "media"),
    "Health": ("health_paths", "readiness_checks", "server_timing"),
    "Logs": (
        *("access_log", "access_log_sample", "access_log_min_duration"),
        *("log_format", "log_level", "log_redact"),
    ),
    "Start": (
        *("wait_for_db", "migrate", "collectstatic", "strict", "local", "allow_debug", "reload"),
        *("chdir", "env_file", "config"),
    ),
}
"""Every decision in its group in the output of ``plan``."""
COMPUTED = ("computed", "default")
MAX_VALUE = 20
"""Columns of a value; the reason of a wider one is on the next line."""


def explain(
    plan: Plan, *, names: Sequence[str] = (), details: bool = False, width: int = 80, colour: bool = False
) -> str:
    """Return every decision with its reason: explicit ones first, the rest in groups.

    ``names`` selects single decisions. ``details`` adds the source of each value, and the facts of the
    machine that could not be read. Lines are at most ``width`` columns wide.
    """
    shown = {name: decision for name, decision in plan.decisions() if not names or name in names}
    if names:
        lines = [line for name in names for line in _single(plan, name, shown[name], width, colour=colour)]
        return "\n".join(lines)
    explicit = {name: found for name, found in shown.items() if is_explicit(name, found)}
    groups = {"Set explicitly": tuple(explicit)}
    groups |= {
        title: tuple(name for name in group if name not in explicit) for title, group in GROUPS.items()
    }
    lines = terminal.wrapped(_summary(plan), width, "")
    for title, group in groups.items():
        rows = [_row(plan, name, shown[name], details=details) for name in group]
        if title == "Set explicitly":
            rows += [
                (f"gunicorn {name}", repr(setting.value), f"set by {setting.source}")
                for name, setting in plan.gunicorn.items()
            ]
        if rows:
            lines += ["", terminal.styled(title, "bold", on=colour), *_columns(rows, width)]
    notes = [*plan.notes, *lost_promises(plan)]
    lines += ["" for _ in (*notes, *plan.warnings)][:1]
    if details:
        notes += plan.details or ("Every limit of this machine could be read.",)
    for line in (*map(note, notes), *map(warning, plan.warnings)):
        lines += [row for text in line.split("\n") for row in terminal.wrapped(text, width, "  ")]
    return "\n".join(lines)


def lost_promises(plan: Plan) -> list[str]:
    """Return a line for each promise that the worker class cannot keep."""
    name = plan.worker_class.value
    return [f"{name} workers: {line}" for line in LOST.get(name, ())]


def check_names(words: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the requested decisions; raise UsageError with similar names."""
    known = [name for group in GROUPS.values() for name in group]
    typed = (word.lstrip("-").replace("-", "_").lower() for word in words)
    names = tuple(row.name if (row := option_field(name)) else name for name in typed)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError.of(
            Problem(f"There is no decision {_typed(name)!r} in the plan.", _near(name, known))
            for name in unknown
        )
    return names


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {_typed(close[0])}?" if close else "prodserve plan lists them."


def is_explicit(name: str, decision: Decision[Any]) -> bool:
    """Return whether the operator or the platform set this option; facts of the project are not options."""
    return option_field(name) is not None and decision.source not in (*COMPUTED, LEARNED)


def _summary(plan: Plan) -> str:
    size = f"{plan.workers.value} workers x {plan.threads.value} threads"
    if plan.workers.value == 1:
        size = size.replace("workers", "worker", 1)
    machine = f"{format_cpus(plan.cpus.value)}, memory {plan.show('memory', plan.memory.value)}"
    return f"{plan.settings.value}: {size} on {', '.join(plan.bind.value)}; {machine}"


def _row(plan: Plan, name: str, decision: Decision[Any], *, details: bool) -> tuple[str, str, str]:
    """Return name, value and reason of a decision."""
    reason = decision.why
    if is_explicit(name, decision):
        reason = f"set by {decision.source}" if reason == SET_EXPLICITLY else f"{reason} [{decision.source}]"
    elif details or decision.source not in COMPUTED:
        reason = f"{reason} [{decision.source}]"
    return _typed(name), plan.show(name, decision.value), reason


def _columns(rows: Sequence[tuple[str, str, str]], width: int) -> Iterator[str]:
    """Yield rows as columns; a value that is wider than its column has the reason below it."""
    names = max(len(name) for name, _, _ in rows)
    values = min(MAX_VALUE, max(len(value) for _, value, _ in rows))
    indent = " " * (2 + names + 2 + values + 2)
    for name, value, reason in rows:
        head = f"  {name:<{names}}  {value:<{values}}"
        if len(value) <= values:
            yield from terminal.wrapped(f"{head}  {reason}", width, indent)
        else:
            yield from terminal.wrapped(head, width, " " * (2 + names + 2))
            yield from terminal.wrapped(f"{indent}{reason}", width, indent)


def _single(plan: Plan, name: str, decision: Decision[Any], width: int, *, colour: bool) -> Iterator[str]:
    """Yield all details of one decision."""
    head = f"{_typed(name)}: {plan.show(name, decision.value)}"
    yield from terminal.wrapped(head if not colour else terminal.styled(head, "bold", on=True), width, "  ")
    source = "" if decision.source in decision.why else f" [{decision.source}]"
    yield from terminal.wrapped(f"  {decision.why}{source}", width, "  ")
    if (row := option_field(name)) is not None:
        ways = f'{row.flag}, the variable {row.variable}, or PRODSERVE = {{"{row.key}": ...}} in the settings'
        yield from terminal.wrapped(f"  Set it with {ways}.", width, "  ")
        takes_over = "needs a restart" if name in ("bind", "management_bind", "redirect_http") else TAKEN_OVER
        yield from terminal.wrapped(f"  A running server {takes_over}.", width, "  ")


TAKEN_OVER = "takes a variable or a setting over with prodserve reload; another flag needs a restart"


def _typed(name: str) -> str:
    return name.replace("_", "-")


def as_json(plan: Plan, names: Sequence[str] = ()) -> str:
    """Return the same as JSON: decisions, all or some, Gunicorn's settings, notes and warnings."""
    document = {
        "decisions": {
            name: {"value": decision.value, "why": decision.why, "source": decision.source}
            for name, decision in plan.decisions()
            if not names or name in names
        },
        "gunicorn": gunicorn_settings(plan),
        "notes": [*plan.notes, *lost_promises(plan)],
        "warnings": [{"message": found.message, "fix": found.fix} for found in plan.warnings],
    }
    return json.dumps(document, indent=2, default=repr)


def to_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan of a running server for operators: decisions as people read them."""
    return {
        "decisions": {
            name: {"value": plan.show(name, decision.value), "why": decision.why, "source": decision.source}
            for name, decision in plan.decisions()
        },
        "notes": [*plan.notes, *lost_promises(plan)],
        "warnings": [" ".join(filter(None, (found.message, found.fix))) for found in plan.warnings],
    }


def startup_lines(plan: Plan, static: str, django: str) -> Iterator[str]:
    """Yield the few lines that an operator reads before the address."""
    yield Notice(
        f"django-prodserve {__version__}, Django {django}, settings {plan.settings.value}",
        **{"event": "start", "version": __version__, "django": django, "settings": plan.settings.value},
    )
    yield workers_line(plan)
    if plan.apply_advice.value:
        yield part("advice", plan.apply_advice.why)
    yield part("static", static)
    yield part("database", plan.database.value)
    if plan.platform.value != "none":
        yield part("platform", f"{plan.platform.value} ({plan.platform.why}): {_taken(plan)}")
    yield from map(note, plan.notes)
    yield from map(warning, plan.warnings)


def workers_line(plan: Plan) -> Notice:
    """Return the line on the number of workers and threads, and the reason."""
    counted = f"{plan.workers.value} x {plan.threads.value} threads: {_because(plan)}"
    if plan.max_threads.value > plan.threads.value:
        counted += f"; up to {plan.max_threads.value} threads"
    line = part("workers", counted)
    line.fields |= {"workers": plan.workers.value, "threads": plan.threads.value}
    line.fields |= {"max_threads": plan.max_threads.value}
    line.fields |= {"cpus": plan.cpus.value, "memory": plan.memory.value, "profile": plan.profile.value}
    return line


def measuring_line(before: Plan, plan: Plan) -> Iterator[str]:
    """Yield the changes that a measurement makes to the lines at start."""
    sizes = [(one.workers.value, one.threads.value) for one in (before, plan)]
    if sizes[0] != sizes[1]:
        yield workers_line(plan)
    yield from (warning(found) for found in plan.warnings if found not in before.warnings)


def _taken(plan: Plan) -> str:
    """Return the values that the platform decided, directly or through its variables."""
    said = {plan.platform.value, "PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"}
    taken = [
        f"{name.replace('_', '-')} {plan.show(name, decision.value)}"
        for name, decision in plan.decisions()
        if decision.source in said and decision.value is not None
    ]
    return ", ".join(taken) or "it changes no value"


def _because(plan: Plan) -> str:
    workers: Decision[int] = plan.workers
    said = f"{workers.why} [{workers.source}]" if not workers.is_computed else workers.why
    machine = f"{format_cpus(plan.cpus.value)}, {plan.show('memory', plan.memory.value)}"
    few = f" ({plan.threads.why})" if plan.has_few_threads else ""
    return f"{said}; {machine}; profile {plan.profile.value}{few}"
