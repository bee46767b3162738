"""Files, logs and users that options name, checked before anything starts. Runs in the command's process.

Some values can only be judged by trying them. That happens in a fork, so that this process stays unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..config.gunicorn import make_logger, new_config
from ..errors import Problem, UsageError
from ..utils.fork import run_in_fork
from ..utils.paths import why_unseen
from .certificates import certificate_problems

if TYPE_CHECKING:
    from ..plan.plan import Plan

NEEDED = {"uvicorn": ("uvicorn", "uvicorn-worker")}
"""Packages that a worker class needs."""


def check_files(plan: Plan) -> None:
    """Raise one UsageError that lists everything that cannot be used."""
    problems = [*package_problems(plan), *certificate_problems(plan)]
    problems += webroot_problems(plan)
    problems += log_problems(plan.access_log.value, plan.access_log.source, "access-log")
    if log := plan.gunicorn.get("errorlog"):
        problems += log_problems(str(log.value), log.source, "logs")
    if pidfile := plan.gunicorn.get("pidfile"):
        problems += pidfile_problems(str(pidfile.value or ""), pidfile.source)
    problems += logging_problems(plan)
    problems += user_problems(plan)
    if problems:
        raise UsageError.of(problems)


def package_problems(plan: Plan) -> Iterator[Problem]:
    """Yield what the worker class needs and this environment has not."""
    chosen = plan.worker_class
    missing = [name for name in NEEDED.get(chosen.value, ()) if find_spec(name.replace("-", "_")) is None]
    if missing:
        yield Problem(
            f"{chosen.source} {chosen.value} needs {' and '.join(missing)}, which this environment lacks.",
            "Run pip install 'django-prodserve[uvicorn]'. Or remove the option: the default worker runs "
            "async views and websockets itself.",
            "",
            "file",
            "worker-class",
        )


def webroot_problems(plan: Plan) -> Iterator[Problem]:
    """Yield why the directory of --acme-webroot cannot be read."""
    found = plan.acme_webroot
    if found.value is None:
        return
    try:
        os.scandir(found.value).close()
    except OSError as error:
        why = error.strerror or str(error)
        fix = f"mkdir -p {found.value}, or name the directory that the certificate's client writes."
        yield Problem(f"{found.source} {found.value} cannot be used: {why}.", fix, "", "file", "acme-webroot")


LOGGING = ("logconfig_dict", "logconfig_json", "logconfig", "syslog", "syslog_addr", "syslog_facility")
"""Gunicorn's settings that only its logger can judge."""


def logging_problems(plan: Plan) -> Iterator[Problem]:
    """Yield why Gunicorn's logger refuses its settings: make one in a fork."""
    named = {name: plan.gunicorn[name] for name in LOGGING if name in plan.gunicorn}
    if not any(found.value for found in named.values()):
        return
    values = {name: found.value for name, found in named.items()}
    try:
        run_in_fork(lambda: make_logger(values), patience=LOGGER_SECONDS)
    except Exception as error:  # a handler of the project may raise any exception
        reason = str(error).strip().partition("\n")[0].removesuffix(".")
        sources = " and ".join(found.source for found in named.values())
        fix = "Correct the settings of the log, or remove them."
        yield Problem(f"{sources} cannot be used: {reason}.", fix, "", "gunicorn-setting", "logs")


LOGGER_SECONDS = 5.0
"""Patience with the logger: a syslog server may have to be resolved."""


def user_problems(plan: Plan) -> Iterator[Problem]:
    """Yield why the workers cannot run as the user or group that Gunicorn's settings name."""
    named = [plan.gunicorn[name] for name in ("user", "group") if name in plan.gunicorn]
    if not named or os.geteuid() == 0:
        return
    config = new_config()
    for name in ("user", "group"):
        if name in plan.gunicorn:
            config.set(name, plan.gunicorn[name].value)
    try:
        run_in_fork(lambda: _become(config.uid, config.gid))
    except OSError:
        given = " and ".join(f"{found.source} {found.value}" for found in named)
        yield Problem(
            f"{given} cannot be used: only root may start workers as another user, and this is user "
            f"{os.geteuid()}.",
            "Remove it and start the server as that user: User= in systemd.",
            "",
            "no-permission",
        )


def _become(uid: int, gid: int) -> None:
    if gid != os.getegid():
        os.setgid(gid)
    if uid != os.geteuid():
        os.setuid(uid)


def pidfile_problems(path: str, source: str) -> Iterator[Problem]:
    """Yield why the file with the pid cannot be made: Gunicorn writes a new one next to it."""
    directory = os.path.dirname(os.path.abspath(path))
    if not path or os.access(directory, os.W_OK | os.X_OK):
        return
    there = "this user may not write to it" if os.path.exists(directory) else "it does not exist"
    why = why_unseen(directory) or there
    yield Problem(
        f"{source} {path} cannot be written: {directory}: {why}.",
        "Name a directory that this user may write, or remove the setting: prodserve needs none.",
        "",
        "file",
    )


def log_problems(path: str | None, source: str, topic: str) -> Iterator[Problem]:
    """Yield why a log cannot be written."""
    if path is None or path == "-":
        return
    directory = os.path.dirname(os.path.abspath(path))
    fix = "Name a file that this user may write, or - for standard output."
    if reason := why_unseen(directory):
        why = f"the directory {directory} cannot be used: {reason}"
    elif not os.path.isdir(directory):
        why, fix = (
            f"the directory {directory} does not exist",
            f"mkdir -p {directory}, or - for standard output",
        )
    elif os.path.isdir(path):
        why = "it is a directory"
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        why = (
            "this user may not write it"
            if os.path.exists(path)
            else f"this user may not write to {directory}"
        )
    else:
        return
    yield Problem(f"{source} {path} cannot be written: {why}.", fix, "", "file", topic)
