"""Code that runs around a fork: our hooks, and the user's in addition.

``on_starting`` and ``pre_fork`` run in the arbiter, ``post_worker_init`` and ``worker_exit`` in the worker's
main thread. Gunicorn ends the server when a hook raises, so each of the user's is guarded.
"""

from __future__ import annotations

import atexit
import functools
import gc
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from ..project.databases import close_connections
from ..signals import worker_started
from ..speedups.immortal import make_immortal
from ..startup import monkey_patching
from ..utils import fork_guard, standard_streams
from ..utils.names import full_name
from ..utils.outlet import drain
from ..worker import stop_signals

Hook = Callable[..., Any]

HOOK_NAMES = (
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_fork",
    "post_fork",
    "post_worker_init",
    "worker_int",
    "worker_abort",
    "pre_exec",
    "pre_request",
    "post_request",
    "child_exit",
    "worker_exit",
    "nworkers_changed",
    "on_exit",
    "on_dirty_starting",
    "dirty_post_fork",
    "dirty_worker_init",
    "dirty_worker_exit",
)
"""Gunicorn's hooks without a used result; ``ssl_context`` has one and passes through unchanged."""


_wanted = {"immortal": True}


def configure(*, immortal: bool) -> None:
    """Set whether the program is made immortal before the fork, from the plan's speedups."""
    _wanted["immortal"] = immortal


def on_starting(arbiter: Any) -> None:
    """Make the arbiter's lines visible, complete Gunicorn's refusals, and close connections.

    This closes connections, too, because not every fork calls ``pre_fork``.
    """
    from ..worker.refusals import mend_gunicorns

    restore_handlers(arbiter.log)
    close_connections()
    mend_gunicorns()


def restore_handlers(log: Any) -> None:
    """Make lines visible once the settings, and with them LOGGING, are loaded in this process."""
    from ..logs.gunicorn_logger import restore_handlers

    if settings.configured:  # not in plain Gunicorn's arbiter without preload
        restore_handlers(log, settings.LOGGING)


def pre_fork(arbiter: Any, worker: Any) -> None:
    """Close resources that two processes must not share, and keep memory shared."""
    close_connections()
    if not arbiter.WORKERS:
        freeze_heap()


def freeze_heap() -> None:
    """Keep garbage collections from touching loaded objects, so that workers do not copy their pages.

    4 x 4 threads, total PSS after load: 145 MB without preload, 114 with, 83 frozen, 74 if also warmed up.
    speedups/immortal.py saves memory in addition.
    """
    import_for_workers()
    gc.collect()
    if _wanted["immortal"]:
        make_immortal()
    gc.freeze()


def import_for_workers() -> None:
    """Import once what each worker would otherwise import itself, which saves 0.9 MiB in each worker."""
    random.Random(b"")  # Gunicorn seeds in the worker; seeding with bytes loads a C module
    if not settings.configured:
        return
    with suppress(ImportError, ImproperlyConfigured):  # the code that needs it then reports the error
        for connection in connections.all():
            connection.ops.compiler("SQLCompiler")
            if connection.settings_dict["OPTIONS"].get("pool"):
                import_module("psycopg_pool")


BOOT_ERROR = 3  # Gunicorn's exit code of a worker that failed to boot: it stops if no worker has served
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
"""Signals that wait while the arbiter forks a worker, until the worker has its handlers."""


def post_worker_init(worker: Any) -> None:
    """Let waiting signals in, make lines visible that loading has hidden, and send ``worker_started``.

    From now on, forks from your project are not workers.
    """
    refuse_patched(worker)  # before the first thread: it would run in a hub that no thread runs
    stop_signals.install_handlers(worker)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    restore_handlers(worker.log)
    fork_guard.mark(functools.partial(disown, worker), worker.log)
    if not hasattr(worker, "disown"):
        worker.wsgi = _no_way_back(worker.wsgi, worker.log)
    worker_started.send_robust(sender=type(worker), worker=worker)
    if fork_guard.PROCESS.is_copy:
        fork_guard.end("A receiver of worker_started", None, worker.log)
    refuse_patched(worker)


def refuse_patched(worker: Any) -> None:
    """End a worker that a hook, its loading or a receiver has patched; it has accepted no connection yet."""
    # Gunicorn's own gevent worker must be patched: it may use the configuration that ``plan`` writes.
    is_green = any(cls.__module__.startswith("gunicorn.workers.ggevent") for cls in type(worker).__mro__)
    if not is_green and (what := monkey_patching.found()):
        worker.log.critical("%s: %s %s", what, monkey_patching.CONSEQUENCE, monkey_patching.remedy())
        drain()
        os._exit(BOOT_ERROR)


def disown(worker: Any) -> None:
    """In a copy of a worker, close the listeners, stop its loop, and call its class's ``disown``."""
    for listener in worker.sockets:
        listener.close()
    worker.alive = False
    if hasattr(worker, "disown"):
        worker.disown()


def _no_way_back(application: Any, log: Any) -> Any:
    """Return an application for Gunicorn's own worker classes that ends any copy of a worker."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Any:
        error = None
        try:
            return application(environ, start_response)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if fork_guard.PROCESS.is_copy:
                what = f"Request {environ.get('REQUEST_METHOD')} {environ.get('PATH_INFO')}"
                fork_guard.end(what, error, log)

    return guarded


def worker_exit(arbiter: Any, worker: Any) -> None:
    """Close the database connections. Gunicorn calls this in the arbiter, too, for an ended worker."""
    if worker.pid == os.getpid():
        close_connections()


OWN_HOOKS: dict[str, Hook] = {
    "on_starting": on_starting,
    "pre_fork": pre_fork,
    "post_worker_init": post_worker_init,
    "worker_exit": worker_exit,
}

CLOSING = {"pre_fork", "worker_exit"}
"""Hooks where ours runs last: a connection that the user's has just opened must not stay open."""
PER_REQUEST = {"pre_request", "post_request"}


def all_hooks(users: dict[str, Any]) -> dict[str, Hook]:
    """Return our hooks and the user's, combined."""
    return {name: hook(name, users.get(name)) for name in HOOK_NAMES if name in OWN_HOOKS or name in users}


def hook(name: str, users: Any = None) -> Hook:
    """Return our hook of this name and the user's as one; the user's may be a dotted path."""
    ours = OWN_HOOKS.get(name)
    if users is None:
        assert ours is not None
        return ours
    guarded = guard(name, _loaded(name, users), _title(users))
    if ours is None:
        return guarded
    pair = (guarded, ours) if name in CLOSING else (ours, guarded)

    @functools.wraps(ours)
    def both(*args: Any) -> None:
        for function in pair:
            function(*args)

    return both


def _loaded(name: str, users: Any) -> Hook:
    """Let Gunicorn's validator import a dotted path and adapt post_request's three signatures."""
    from ..config.gunicorn import new_config

    config = new_config()
    config.set(name, users)
    loaded: Hook = config.settings[name].get()
    return loaded


def _title(users: Any) -> str:
    """Return the user's name for this hook."""
    return users if isinstance(users, str) else full_name(users)


def guard(name: str, users: Hook, title: str) -> Hook:
    """Wrap the user's hook: an exception is logged with the hook's name and does not stop the server.

    ``sys.exit`` is not an error: a hook that calls it wants this process to end. So does a process that a
    hook forks.
    """

    asks = (
        name not in PER_REQUEST
    )  # a system call costs as much as the hook may; in a worker a flag shows that

    @functools.wraps(users)
    def guarded(*args: Any) -> None:
        pid = os.getpid() if asks else 0
        try:
            users(*args)
        except Exception:  # for any exception of a hook, Gunicorn would end the server
            args[0].log.exception("The hook %s (%s) raised; the server keeps serving.", name, title)
        finally:
            if fork_guard.PROCESS.is_copy or (asks and os.getpid() != pid):
                fork_guard.end(f"The hook {name} ({title})", sys.exc_info()[1], args[0].log)

    return guarded


def heartbeat_directory() -> str:
    """Return where workers can touch their heartbeat file without waiting for a disk."""
    for candidate in ("/dev/shm", "/run", None):
        with suppress(OSError):
            directory = candidate or tempfile.gettempdir()  # raises if it finds no directory
            with tempfile.TemporaryFile(dir=directory):
                return directory
    raise OSError("no directory is writable: /dev/shm, /run or the temporary directory is needed")


def exit_worker(ending: SystemExit) -> NoReturn:
    """End a worker as multiprocessing ends its processes: exit handlers run, but no objects are freed.

    Freeing writes to every object, and so copies every page that is shared with the arbiter. Two stopping
    workers of Wagtail took 107 MiB on top of 162, and the OOM killer killed the arbiter.
    """
    if fork_guard.PROCESS.is_copy:  # a copy of a Gunicorn worker; no copy of our own reaches this
        os._exit(1)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    standard_streams.flush()
    os._exit(ending.code if isinstance(ending.code, int) else bool(ending.code))
