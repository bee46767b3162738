"""Plan -> a gunicorn.conf.py with which plain Gunicorn serves the project in the same way. Pure.

Every line carries its reason. Gunicorn runs the file before it changes into the project's directory. So the
file itself makes the project importable, because it imports the user's hooks.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..arbiter.hooks import HOOK_NAMES, OWN_HOOKS
from ..config.options import option_fields
from ..logs.config import LogConfig
from ..plan.gunicorn_settings import gunicorn_settings
from ..project.settings_bootstrap import CONFIGURATION
from ..utils import working_directory

if TYPE_CHECKING:
    from ..plan.plan import Plan

_LAYERS = "the layer around Django decides this, from the trusted proxies above"

FIXED = {
    "forwarded_allow_ips": _LAYERS,
    "secure_scheme_headers": _LAYERS,
    "forwarder_headers": _LAYERS,
    "logger_class": "times in UTC; lines do not depend on LOGGING; Gunicorn's routine lines are at debug",
    "proc_name": "the name in ps, where setproctitle is installed",
    "http_parser": "the other parser loses connections after large bodies",
    "worker_tmp_dir": "in memory, so that a heartbeat does not wait for a disk",
    "control_socket_disable": "its default path fails without HOME, and a second server would take it over",
}
"""Reasons for settings that no option decides."""


def render_conf(plan: Plan, directory: str, search_path: str) -> str:
    """Return a gunicorn.conf.py that serves this plan from ``directory`` without the prodserve command."""
    settings = gunicorn_settings(plan)
    code = {name: _code(name, value, _source(plan, name)) for name, value in settings.items()}
    reasons = {**FIXED, **dict(_reasons(plan))}
    hooks = {name: code.pop(name, "") for name in sorted(HOOK_NAMES) if name in code or name in OWN_HOOKS}
    code.setdefault("worker_tmp_dir", "hooks.heartbeat_directory()")
    lines = [
        '"""Written by `manage.py prodserve plan --gunicorn-conf`. Use: gunicorn -c /path/to/this/file"""',
        "",
        *_not_here(plan),
        "import os",
        "import sys",
        "",
        *_line(f"os.chdir({directory!r})", "where the plan was made; relative paths start here"),
        *_line(f"sys.path.insert(0, {search_path!r})", "of manage.py; hooks are imported below"),
        *(line for row in _environment(plan) for line in _variable(*row)),
        "",
        *_line("from django_prodserve.arbiter import hooks", "prodserve's hooks, which call the project's"),
        *_line("from django_prodserve.logs import gunicorn_logger", "prodserve's log lines"),
        *_line(
            f"gunicorn_logger.configure(gunicorn_logger.{LogConfig.of(plan)!r})", _why(plan, "log_format")
        ),
        *_line(f"hooks.configure(immortal={plan.speedups.value})", _why(plan, "speedups")),
        *_origins(plan, directory, {*code.values(), *hooks.values()}),
        "",
        *_line("wsgi_app = 'django_prodserve.wsgi:application'", "proxy trust, static files, Django"),
        *_line(f"chdir = {directory!r}", "otherwise Gunicorn returns to the directory in which it started"),
        *(line for name, text in code.items() for line in _line(f"{name} = {text}", reasons[name])),
        "",
        *(line for name, users in hooks.items() for line in _hook_line(name, users, reasons.get(name, ""))),
    ]
    return "\n".join(lines) + "\n"


def _not_here(plan: Plan) -> Iterator[str]:
    """Yield a comment on what plain Gunicorn does not start."""
    if names := plan.side_processes.value:
        yield f"# Plain Gunicorn starts nothing alongside the workers: start {', '.join(names)} yourself."
        yield ""


def _line(code: str, reason: str) -> Iterator[str]:
    """Yield a line with its reason. The reason may contain any text, and must not end the comment."""
    words = " ".join(reason.split())
    yield f"{code}  # {words}" if words else code


def _variable(name: str, text: str, reason: str) -> Iterator[str]:
    return _line(f"os.environ[{name!r}] = {text!r}", reason)


def _code(name: str, value: Any, source: str) -> str:
    """Return Python code that rebuilds this value, or loads it from the place that defines it."""
    if name == "umask" and isinstance(value, int):
        return f"0o{value:03o}"
    if path := _import_path(value):
        return repr(path)
    if isinstance(value, int) and not isinstance(value, bool):
        return repr(int(value))  # ssl's constants are enumerations
    with suppress(ValueError, SyntaxError):
        if ast.literal_eval(repr(value)) == value:
            return repr(value)
    return f"configured[{name!r}]" if _file(name, source) else f'settings.PRODSERVE["GUNICORN"][{name!r}]'


def _import_path(value: Any) -> str:
    """Return the dotted path of a function or class, or nothing if it has none."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    found = getattr(sys.modules.get(module or ""), name or "", None)
    return f"{module}.{name}" if name and found is value else ""


def _source(plan: Plan, name: str) -> str:
    return plan.gunicorn[name].source if name in plan.gunicorn else ""


def _file(name: str, source: str) -> str:
    """Return the --config file that a setting was read from, or nothing."""
    return source[: -len(f": {name}")] if source.endswith(f": {name}") else ""


def _origins(plan: Plan, directory: str, code: set[str]) -> Iterator[str]:
    """Yield lines that load values found only at their place of definition, such as a function in a file."""
    if any(line.startswith("settings.") for line in code):
        yield from _line("from django.conf import settings", "for what has no import path")
    if any(line.startswith("configured[") for line in code):
        path = next(filter(None, (_file(name, setting.source) for name, setting in plan.gunicorn.items())))
        yield from _line("import runpy", "for the --config file that the plan was made with")
        yield from _line(
            f'configured = runpy.run_path({os.path.join(directory, path)!r}, run_name="__config__")',
            "as prodserve reads it",
        )


def _reasons(plan: Plan) -> Iterator[tuple[str, str]]:
    for row in option_fields():
        if row.gunicorn and row.gunicorn not in FIXED:
            yield row.gunicorn, _why(plan, row.name)
    sync = plan.worker_class.value == "sync"
    yield "timeout", _why(plan, "timeout") if sync else "a heartbeat: whether Python still runs in a worker"
    for name, sourced in plan.gunicorn.items():
        yield name, sourced.source


def _why(plan: Plan, name: str) -> str:
    decision = getattr(plan, name)
    return f"{decision.why} [{decision.source}]"


def _environment(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield the variables that carry the decisions for our middleware into the process that loads it."""
    yield "DJANGO_SETTINGS_MODULE", plan.settings.value, "the settings that the plan was made for"
    if configuration := os.environ.get(CONFIGURATION):
        yield CONFIGURATION, configuration, "their class, for django-configurations"
    for row in option_fields():
        if row.name == "asgi" and plan.asgi.source == "default":
            continue  # set explicitly, hybrid bypasses an application in place of Django's
        text = row.typed(getattr(plan, row.name).value) if row.exported else ""
        if text:
            yield row.variable, text, _why(plan, row.name)


def _hook_line(name: str, users: str, source: str) -> Iterator[str]:
    """Yield an assignment for a hook of prodserve, of the user, or of both."""
    ours = (
        ((OWN_HOOKS[name].__doc__ if name in OWN_HOOKS else "") or "")
        .partition("\n")[0]
        .partition(". ")[0]
        .rstrip(".")
    )
    arguments = ", ".join(filter(None, [repr(name), users]))
    yield from _line(f"{name} = hooks.hook({arguments})", "; ".join(filter(None, [ours, source])))


def search_path() -> str:
    """Return the directory that Python searches first: the one of manage.py."""
    return working_directory.by_name(os.path.abspath(sys.path[0] or os.getcwd()))
