"""Plan -> a gunicorn.conf.py with which plain Gunicorn serves the project the same way. Pure.

Every line says why it is there. Gunicorn runs the file before it changes into the project's directory,
so the file itself makes the project importable: the user's hooks are imported by it.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from .gunicorn_settings import gunicorn_settings
from .options import Options, env_name
from .runtime.hooks import NAMES, OURS

if TYPE_CHECKING:
    from .plan import Plan

_LAYERS = "the layer around Django decides this, from the trusted proxies above"

FIXED = {
    "forwarded_allow_ips": _LAYERS,
    "secure_scheme_headers": _LAYERS,
    "forwarder_headers": _LAYERS,
    "logger_class": "times in UTC, lines that survive LOGGING, Gunicorn's chatter at debug",
    "proc_name": "the name in ps, where setproctitle is installed",
    "control_socket_disable": "its default place fails without HOME, and a second server would steal it",
}
"""Reasons for what no option decides."""


def render_conf(plan: Plan, directory: str, search_path: str) -> str:
    """Return a gunicorn.conf.py that serves this plan from ``directory``, without prodserve's own command."""
    settings = gunicorn_settings(plan)
    hooks = {name: settings.pop(name) for name in (*NAMES, "ssl_context") if name in settings}
    reasons = {**FIXED, **dict(_reasons(plan))}
    lines = [
        '"""Made by `manage.py prodserve plan --gunicorn-conf`. Use: gunicorn --config gunicorn.conf.py"""',
        "",
        "import os",
        "import sys",
        "",
        *_line(f"os.chdir({directory!r})", "where the plan was made; relative paths start here"),
        *_line(f"sys.path.insert(0, {search_path!r})", "where manage.py lies; hooks are imported below"),
        *(line for row in _environment(plan) for line in _variable(*row)),
        "",
        "from django_prodserve.runtime import hooks",
        "",
        *_line('wsgi_app = "django_prodserve.wsgi:application"', "proxy trust, static files, Django"),
        *_line(f"chdir = {directory!r}", "Gunicorn goes back to where it started otherwise"),
    ]
    if "worker_tmp_dir" not in settings:
        lines += _line("worker_tmp_dir = hooks.heartbeat_directory()", "a heartbeat must not wait for a disk")
    for name, value in settings.items():
        lines += _assignment(name, value, reasons.get(name, ""))
    lines += ["", *_hook_lines(hooks, plan, directory)]
    return "\n".join(lines) + "\n"


def _line(code: str, reason: str) -> Iterator[str]:
    """Yield a line with its reason, which may come from anywhere and must not end the comment."""
    words = " ".join(reason.split())
    yield f"{code}  # {words}" if words else code


def _variable(name: str, text: str, reason: str) -> Iterator[str]:
    return _line(f"os.environ[{name!r}] = {text!r}", reason)


def _assignment(name: str, value: Any, reason: str) -> Iterator[str]:
    text = f"0o{value:03o}" if name == "umask" and isinstance(value, int) else _literal(value)
    if text is None:
        return _line(f"# {name} is left out: {' '.join(repr(value).split())} is no text", reason)
    return _line(f"{name} = {text}", reason)


def _literal(value: Any) -> str | None:
    """Return Python that makes this value again, or None where its repr does not."""
    if isinstance(value, type):
        return repr(f"{value.__module__}.{value.__qualname__}")
    if isinstance(value, int) and not isinstance(value, bool):
        return repr(int(value))  # ssl's constants are enumerations
    try:
        same = ast.literal_eval(repr(value)) == value
    except (ValueError, SyntaxError):
        return None
    return repr(value) if same else None


def _reasons(plan: Plan) -> Iterator[tuple[str, str]]:
    for row in fields(Options):
        name = row.metadata.get("gunicorn")
        if name and name not in FIXED:
            yield name, _why(plan, row.name)
    for name, sourced in plan.gunicorn.items():
        yield name, sourced.source


def _why(plan: Plan, name: str) -> str:
    decision = getattr(plan, name)
    return f"{decision.why} [{decision.source}]"


def _environment(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield the variables that carry our layers' decisions into the process that loads them."""
    yield "DJANGO_SETTINGS_MODULE", plan.settings.value, "the settings that the plan was made for"
    texts = {
        "trusted_proxies": ",".join(plan.trusted_proxies.value) or "none",
        "trusted_hops": "" if plan.trusted_hops.value is None else str(plan.trusted_hops.value),
        "warmup": plan.warmup.value,
        "static": "on" if plan.static.value != "off" else "off",
        "collect": "on" if plan.collect.value else "off",
    }
    for name, text in texts.items():
        if text:
            yield env_name(name), text, _why(plan, name)


def _hook_lines(hooks: dict[str, Any], plan: Plan, directory: str) -> Iterator[str]:
    """Yield an assignment for each of our hooks and each of the user's, and where those are found."""
    sources = {name: plan.gunicorn[name].source for name in hooks}
    found = {name: _expression(name, each, sources[name]) for name, each in hooks.items()}
    files = {source[: -len(f": {name}")] for name, source in sources.items() if _is_in_file(name, source)}
    for path in files:  # one at most
        yield from _line("import runpy", "as prodserve reads a --config file")
        code = f'configured = runpy.run_path({os.path.join(directory, path)!r}, run_name="__config__")'
        yield from _line(code, "the hooks in it")
    if any(each.startswith("settings.") for each in found.values()):
        yield from _line("from django.conf import settings", "for hooks that have no import path")
    for name in sorted({*OURS, *hooks}):
        reason = "; ".join(filter(None, [_purpose(name), sources.get(name)]))
        if name == "ssl_context":
            yield from _line(f"ssl_context = {found[name]}", reason)
        else:
            arguments = ", ".join(filter(None, [repr(name), found.get(name)]))
            yield from _line(f"{name} = hooks.hook({arguments})", reason)


def _purpose(name: str) -> str:
    """Return the first sentence about our hook of this name, if there is one."""
    return (
        ((OURS[name].__doc__ if name in OURS else "") or "").partition("\n")[0].partition(". ")[0].rstrip(".")
    )


def _is_in_file(name: str, source: str) -> bool:
    return source.endswith(f": {name}")


def _expression(name: str, hook: Any, source: str) -> str:
    """Return Python that finds a hook of the user's again."""
    if isinstance(hook, str):
        return repr(hook)
    if _is_in_file(name, source):
        return f"configured[{name!r}]"
    module, attribute = getattr(hook, "__module__", None), getattr(hook, "__qualname__", "")
    if attribute and getattr(sys.modules.get(module or ""), attribute, None) is hook:
        return repr(f"{module}.{attribute}")
    return f'settings.PRODSERVE["GUNICORN"][{name!r}]'


def search_path() -> str:
    """The directory that Python searches first: where manage.py lies."""
    return os.path.abspath(sys.path[0] or os.getcwd())
