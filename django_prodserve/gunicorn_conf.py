"""Plan -> a gunicorn.conf.py with which plain Gunicorn serves the project the same way. Pure."""

from __future__ import annotations

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


def render_conf(plan: Plan, directory: str, search_path: str) -> str:
    """Return a gunicorn.conf.py that serves this plan from ``directory``, without prodserve's own command."""
    settings = gunicorn_settings(plan)
    hooks = {name: settings.pop(name) for name in (*NAMES, "ssl_context") if name in settings}
    reasons = dict(_reasons(plan))
    lines = [
        '"""Made by `manage.py prodserve plan --gunicorn-conf`. Use: gunicorn --config gunicorn.conf.py"""',
        "",
        "import os",
        "",
        "from django_prodserve.runtime import hooks",
        "",
        f'os.environ["DJANGO_SETTINGS_MODULE"] = {plan.settings.value!r}',
        *(f"os.environ[{name!r}] = {text!r}" for name, text in _environment(plan)),
        "",
        'wsgi_app = "django_prodserve.wsgi:application"',
        f"chdir = {directory!r}",
        *([f"pythonpath = {search_path!r}"] if search_path != directory else []),
        "worker_tmp_dir = hooks.heartbeat_directory()",
    ]
    lines += [_assignment(name, value, reasons.get(name, "")) for name, value in settings.items()]
    lines += ["", *_hook_lines(hooks)]
    return "\n".join(lines) + "\n"


def _assignment(name: str, value: Any, reason: str) -> str:
    text = f"0o{value:03o}" if name == "umask" and isinstance(value, int) else repr(value)
    return f"{name} = {text}" + (f"  # {reason}" if reason else "")


def _reasons(plan: Plan) -> Iterator[tuple[str, str]]:
    for row in fields(Options):
        name = row.metadata.get("gunicorn")
        if name:
            yield name, getattr(plan, row.name).why
    for name, sourced in plan.gunicorn.items():
        yield name, sourced.source


def _environment(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield the variables that carry our layers' decisions into the process that loads them."""
    yield env_name("trusted_proxies"), ",".join(plan.trusted_proxies.value)
    if plan.trusted_hops.value is not None:
        yield env_name("trusted_hops"), str(plan.trusted_hops.value)
    yield env_name("warmup"), plan.warmup.value
    yield env_name("static"), "on" if plan.static.value != "off" else "off"
    yield env_name("collect"), "on" if plan.collect.value else "off"


def _hook_lines(hooks: dict[str, Any]) -> Iterator[str]:
    """Yield an assignment for each of our hooks and each of the user's that has an import path."""
    for name in sorted({*OURS, *hooks}):
        users = _import_path(hooks.get(name))
        if name in hooks and users is None:
            yield f"# {name}: {hooks[name]!r} has no import path, so it cannot be written here."
        if name == "ssl_context" and users:
            yield f"ssl_context = {users!r}"
        elif name in OURS or users:
            yield f"{name} = hooks.hook({name!r}, {users!r})"


def _import_path(hook: Any) -> str | None:
    """Return the dotted path of a hook, or None where it has none."""
    if hook is None or isinstance(hook, str):
        return hook
    module, name = getattr(hook, "__module__", ""), getattr(hook, "__qualname__", "")
    importable = module and name.isidentifier() and module not in {"__main__", "__config__"}
    return f"{module}.{name}" if importable else None


def search_path() -> str:
    """The directory that Python searches first: where manage.py lies."""
    return os.path.abspath(sys.path[0] or os.getcwd())
