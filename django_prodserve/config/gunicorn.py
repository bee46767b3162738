"""Gunicorn's own settings, as the operator gives them: PRODSERVE["GUNICORN"], GUNICORN_CMD_ARGS, --config.

Runs in the command, before anything starts. Gunicorn's own ``Config`` validates every value here, because a
wrong value found later ends the master with a bare "Error".
"""

from __future__ import annotations

import difflib
import os
import runpy
import shlex
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

from ..errors import Problem, ProdserveError, UsageError
from ..utils.tracebacks import project_line, reason_of
from .options import SourcedValue

Settings = dict[str, SourcedValue]

CMD_ARGS = "GUNICORN_CMD_ARGS"

# gunicorn.config reads these while it is imported, and raises there on WEB_CONCURRENCY=auto.
READ_AT_IMPORT = ("WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS")

REFUSED = {
    "daemon": ("a service manager must see the server it started", "Leave it in the foreground"),
    "reload": (
        "it would serve old code: the project is loaded before the workers are forked",
        "Use --reload",
    ),
}
UNUSED = {
    "wsgi_app": "WSGI_APPLICATION in the settings decides",
    "check_config": "use `prodserve check`",
    "print_config": "use `prodserve plan`",
    "pythonpath": "use --pythonpath",
    "paste": "Django is served, not a Paste application",
    "reuse_port": "the workers share one listener, so no connection is lost when one of them ends",
}


@contextmanager
def _clean_environment() -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in READ_AT_IMPORT if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def new_config() -> Any:
    """Return a new ``gunicorn.config.Config`` with Gunicorn's defaults, independent of the environment."""
    with _clean_environment():
        from gunicorn.config import Config

        return Config()


def workers_user(named: object) -> int:
    """Return the user id that Gunicorn's ``user`` setting means; ``named`` is already validated."""
    config = new_config()
    config.set("user", named)
    uid: int = config.uid
    return uid


def read_block(block: object, problems: list[Problem]) -> Settings:
    """Return the settings in ``PRODSERVE["GUNICORN"]``."""
    if not isinstance(block, Mapping):
        message = f"PRODSERVE['GUNICORN'] is {block!r}, but must be a dictionary."
        problems.append(Problem(message, 'PRODSERVE["GUNICORN"] = {"backlog": 512}', code="gunicorn-setting"))
        return {}
    return {
        str(name): SourcedValue(value, f"PRODSERVE['GUNICORN'][{name!r}]") for name, value in block.items()
    }


def read_cmd_args(text: str, problems: list[Problem]) -> Settings:
    """Return the settings in ``GUNICORN_CMD_ARGS``; BaseApplication alone would ignore them."""

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    parser = new_config().parser()
    parser.error = refuse
    try:
        given = vars(parser.parse_args(shlex.split(text)))
    except (ValueError, SystemExit) as error:
        problems.append(_wrong(f"{CMD_ARGS} is {text!r}, which Gunicorn refuses: {error}"))
        return {}
    if given.pop("args", None):
        message = f"{CMD_ARGS} is {text!r}, but must hold options only, each with its dashes."
        problems.append(_wrong(message, f"For example: {CMD_ARGS}='--backlog 512'"))
    return {name: SourcedValue(value, CMD_ARGS) for name, value in given.items() if value is not None}


def _wrong(message: str, fix: str = "", code: str = "gunicorn-setting") -> Problem:
    return Problem(message, fix, code=code)


def read_config_file(path: str, notes: list[str]) -> Settings:
    """Return the settings of a gunicorn.conf.py. Other names in it are ignored, as Gunicorn ignores them.

    A name that is probably a misspelt setting is noted, because Gunicorn ignores it silently.
    """
    path = path.removeprefix("file:")
    if path.startswith("python:"):
        raise _unusable(f"--config {path}: only files are read.", "Name the file of that module.")
    if not os.path.isfile(path):
        fix = f"Name a file that exists. Relative paths start in {os.getcwd()}"
        raise _unusable(f"--config {path}: there is no such file.", fix)
    try:
        names = runpy.run_path(path, run_name="__config__")
    except (Exception, SystemExit) as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == path),
            None,
        )
        where = f"{path}, line {getattr(error, 'lineno', None) or line}"
        raise ProdserveError(
            f"--config {where}: {type(error).__name__}: {error}", code="config-file", topic="config"
        ) from error
    known = new_config().settings
    notes += [f"{path}: {line}" for line in misspelt(names, known)]
    return {name: SourcedValue(value, f"{path}: {name}") for name, value in names.items() if name in known}


def _unusable(message: str, fix: str) -> UsageError:
    return UsageError(message, fix, code="config-file", topic="config")


def misspelt(names: Mapping[str, object], known: Collection[str]) -> Iterator[str]:
    """Yield a line for each value whose name is similar to a setting that the file does not set.

    Functions, classes, modules and names that begin with an underscore are helpers of the file.
    """
    for name, value in names.items():
        if name in known or name.startswith("_") or callable(value) or isinstance(value, ModuleType):
            continue
        close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=CLOSE)
        if close and close[0] not in names:
            yield f"{name} is not used: it names no Gunicorn setting. Did you mean {close[0]}?"


CLOSE = 0.8
"""Required similarity of two names: keep_alive and keepalive reach it, num_workers and workers do not."""


def validated(settings: Mapping[str, SourcedValue], problems: list[Problem], notes: list[str]) -> Settings:
    """Return the settings that Gunicorn accepts and prodserve uses; others become problems or notes."""
    config = new_config()
    accepted: Settings = {}
    for name, (value, source) in settings.items():
        if name in REFUSED and value:
            reason, fix = REFUSED[name]
            problems.append(_wrong(f"{source}: Gunicorn's {name} is refused: {reason}.", fix))
        elif name in UNUSED or name in REFUSED:
            notes.append(f"{source} is not used: {UNUSED.get(name, 'it is off in any case')}.")
        elif problem := _refusal(config, name, value, source):
            problems.append(problem)
        else:
            accepted[name] = SourcedValue(value, source)
    return accepted


def _refusal(config: Any, name: str, value: object, source: str) -> Problem | None:
    """Return why Gunicorn rejects this setting; None if it accepts it."""
    if name not in config.settings:
        close = difflib.get_close_matches(name, list(config.settings), n=1)
        return _wrong(f"{source} names no Gunicorn setting.", f"Did you mean {close[0]}?" if close else "")
    try:
        config.set(name, value)
    except Exception as error:  # a validator may raise any exception: the operator needs its text
        if line := project_line(error):  # the name is the project's, and could not be imported
            reason = f"{type(error).__name__}: {reason_of(error)} ({line})"
            return _wrong(f"{source} is {value!r}, which cannot be imported: {reason}", code="project")
        return _wrong(f"{source} is {value!r}, which Gunicorn refuses: {error}")
    return None
