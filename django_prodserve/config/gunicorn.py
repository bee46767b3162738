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
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

from ..errors import Problem
from ..utils.paths import why_unseen
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


def make_logger(settings: Mapping[str, object]) -> None:
    """Make Gunicorn's logger from these settings of the log; ValueError carries what it refuses."""
    from gunicorn.glogging import Logger

    config = new_config()
    for name, value in settings.items():
        config.set(name, value)
    try:
        Logger(config)
    except Exception as error:  # a handler of the project may raise any exception
        raise ValueError(reason_of(error)) from None


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
        message = f"{CMD_ARGS} is {text!r}, which Gunicorn refuses: {error}"
        problems.append(_wrong(message, "Correct it, or unset it."))
        return {}
    if given.pop("args", None):
        message = f"{CMD_ARGS} is {text!r}, but must hold options only, each with its dashes."
        problems.append(_wrong(message, f"For example: {CMD_ARGS}='--backlog 512'"))
    return {name: SourcedValue(value, CMD_ARGS) for name, value in given.items() if value is not None}


def _wrong(message: str, fix: str = "", code: str = "gunicorn-setting") -> Problem:
    return Problem(message, fix, code=code)


def read_config_file(named: SourcedValue, problems: list[Problem], notes: list[str]) -> Settings:
    """Return the settings of a gunicorn.conf.py. Other names in it are ignored, as Gunicorn ignores them.

    A name that is probably a misspelt setting is noted, because Gunicorn ignores it silently.
    """
    path = str(named.value).removeprefix("file:")
    wrong = f"{named.source} {path}"

    def unusable(message: str, fix: str, where: str = "") -> Settings:
        problems.append(Problem(f"{wrong}{message}", fix, where, "config-file", "config"))
        return {}

    if path.startswith("python:"):
        return unusable(": only files are read.", "Name the file of that module.")
    if not os.path.isfile(path):
        fix = f"Name a file that exists. Relative paths start in {os.getcwd()}"
        return unusable(f": {why_unseen(path) or 'there is no such file'}.", fix)
    try:
        names = runpy.run_path(path, run_name="__config__")
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {getattr(error, 'msg', '') or error}".rstrip(": ")
        return unusable(f" raises {text}", "Correct the file.", _line_of(error, path))
    known = new_config().settings
    notes += [f"{path}: {line}" for line in misspelt(names, known)]
    return {name: SourcedValue(value, f"{path}: {name}") for name, value in names.items() if name in known}


def _line_of(error: BaseException, path: str) -> str:
    """Return ``path, line N: code`` for the line of the file that raised; empty if none did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1].lineno}: {lines[-1].line}" if lines else ""


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
        elif problem := _refusal(config, name, value, source) or _refusal_at_start(config, name, source):
            problems.append(problem)
        else:
            accepted[name] = SourcedValue(value, source)
    return accepted


def _refusal(config: Any, name: str, value: object, source: str) -> Problem | None:
    """Return why Gunicorn rejects this setting; None if it accepts it."""
    if name not in config.settings:
        close = difflib.get_close_matches(name, list(config.settings), n=1)
        fix = f"Did you mean {close[0]}?" if close else "Remove it: Gunicorn has no such setting."
        return _wrong(f"{source} names no Gunicorn setting.", fix)
    try:
        config.set(name, value)
    except Exception as error:  # a validator may raise any exception: the operator needs its text
        if line := project_line(error):  # the name is the project's, and could not be imported
            reason = f"{type(error).__name__}: {reason_of(error)} ({line})"
            return _wrong(f"{source} is {value!r}, which cannot be imported: {reason}", code="project")
        return _wrong(f"{source} is {value!r}, which Gunicorn refuses: {error}", f"Correct {name} there.")
    return None


def _refusal_at_start(config: Any, name: str, source: str) -> Problem | None:
    """Return why Gunicorn would refuse a value that its validator accepts; None if it would not.

    Gunicorn finds these when it starts, or in the worker, and then ends with a bare "Error".
    """
    value = config.settings[name].value
    if not value:
        return None
    if name == "raw_env" and (odd := [entry for entry in value if "=" not in entry]):
        return _wrong(f"{source} holds {odd[0]!r}, but each entry must be NAME=VALUE.", 'Write "NAME=VALUE"')
    if name in FILES and not os.access(value, os.R_OK):
        return Problem(
            f"{source} {value} cannot be read: {_why_unreadable(value)}.",
            "Name a file that exists and that this user may read.",
            code="file",
        )
    if name == "http_protocols" and "h2" in value and find_spec("h2") is None:
        return _wrong(f"{source} names h2, but the package h2 is not installed.", "pip install h2")
    if name == "logger_class":
        return _refusal_of_logger(value, source)
    if name == "access_log_format":
        return _refusal_of_format(value, source)
    return None


def _refusal_of_format(value: str, source: str) -> Problem | None:
    from gunicorn.glogging import SafeAtoms

    try:
        value % SafeAtoms({})
    except (TypeError, ValueError) as error:
        message = f"{source} is {value!r}, which is not a format: {error}"
        return _wrong(message, 'For example: "%(h)s %(r)s %(s)s"')
    return None


FILES = ("logconfig", "logconfig_json", "ca_certs")
"""Settings that name a file which Gunicorn reads late, or does not miss."""


def _why_unreadable(path: str) -> str:
    if os.path.exists(path):
        return "this user may not read it"
    return why_unseen(path) or "there is no such file"


def _refusal_of_logger(named: object, source: str) -> Problem | None:
    from gunicorn.util import load_class

    if named == "simple":
        return None
    try:
        load_class(named, default="gunicorn.glogging.Logger", section="gunicorn.loggers")
    except Exception as error:  # the module may be the project's; Gunicorn's own text holds a traceback
        cause = error.__context__ or error
        line = project_line(cause)
        reason = f"{type(cause).__name__}: {reason_of(cause)}" + (f" ({line})" if line else "")
        return _wrong(
            f"{source} is {named!r}, which cannot be loaded: {reason}",
            "" if line else 'Name a class: "shop.logs.Logger"',
            "project" if line else "gunicorn-setting",
        )
    return None
