"""The embedded Gunicorn. Runs in the command's process, which becomes the arbiter.

Order: bind, startup/prepare.py's steps, static files, load and test, listen, fork. Every step that can fail
runs before the port listens.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, NoReturn

import django
from django.conf import settings
from django.core.management.base import CommandError
from gunicorn.app.base import BaseApplication

from .arbiter import hooks
from .arbiter.arbiter import ProdserveArbiter, install_slot_hooks
from .arbiter.memory_guard import Headroom
from .arbiter.trial import Trial, ended, load_as, rehearse, scratch_directory, try_out, weigh
from .config.gunicorn import workers_user
from .config.private_server import PrivateServer
from .errors import Problem, ProdserveError, UsageError
from .logs import gunicorn_logger
from .logs.config import LogConfig
from .machine.proc_memory import read_memory
from .middleware.application import Application, build, unserved
from .plan.explain import measuring_line, startup_lines, to_dict
from .plan.gunicorn_settings import gunicorn_settings
from .plan.pipeline import load_key
from .plan.plan import Plan
from .project import footprint_cache, query_count, static_root
from .project.databases import close_connections
from .project.footprint import Footprint, footprint
from .scoreboard.board import Scoreboard
from .side_processes.command import check_start
from .startup import certificates, listeners, monkey_patching, unix_access
from .startup.announcer import Announcer, announcer, terminal
from .startup.browser_notes import browser_notes
from .startup.checks import Checks
from .startup.fork_safety import ForkSafetyCheck, kinds_of_threads
from .startup.origins import CALL_SITES
from .startup.prepare import prepare
from .staticfiles import FileCount, StaticFiles, describe, missing_names, prepare_static
from .staticfiles.media import MediaRoot
from .staticfiles.script_name import forget_if_told
from .supervisor import addresses, launch, reexec
from .supervisor.link import Supervised, SupervisorLink
from .supervisor.protocol import ServingFacts
from .tls.contexts import TLSContexts
from .utils import early_signals, fork_guard, working_directory
from .utils.fork import ChildError, ChildLateError, run_in_fork
from .utils.notice import Notice, note, part, warning
from .utils.tracebacks import cannot_start, during
from .worker.config import WorkerConfig

Say = Callable[[str], object]


def serve(
    plan: Plan,
    write: Say,
    checks: Checks,
    started: float,
    kept: Supervised | None,
    *,
    prepared: bool = False,
) -> NoReturn:
    """Serve this plan until a signal ends it, then exit the process. ``started`` is a monotonic time.

    ``kept`` is the data that a supervisor gave to this process, or None if no supervisor started it. Then the
    process turns itself into a supervisor, and continues as its child. ``prepared`` is true if
    startup/prepare.py's steps are done.
    """
    signal.signal(signal.SIGTERM, early_signals.stop)
    check_start(plan)
    sockets = addresses.take_inherited(plan, kept) if kept else addresses.bind_in_time(plan, write)
    generation = kept or (launch.supervised if plan.supervisor.value else launch.standalone)(plan, sockets)
    is_text = plan.log_format.value != "json"
    say = announcer(write, text=is_text, place=generation.run_dir, number=generation.number)
    arbiter_pid = os.getpid()
    if kept and kept.during_reload:
        module = sys.modules.get(plan.settings.value)
        working_directory.refuse_the_old(kept.links, [sys.argv[0], getattr(module, "__file__", None)])
        Headroom(plan).check(plan)
    if generation.run_dir is None and generation.number == 1 and not prepared:
        say(
            warning(
                Problem(
                    "No writable runtime directory: reload, stop and status cannot find this server.",
                    "Set XDG_RUNTIME_DIR to a directory that this user may write, or use signals.",
                    topic="reload",
                )
            )
        )
    for line in unix_access.warnings(plan.bind.value) if generation.number == 1 and not prepared else ():
        say(warning(line))
    try:
        with fork_guard.ended("The start"):
            if not prepared:
                plan, changed = prepare(plan, say)
                shown = _collected_early(plan)
                if changed or shown:
                    say(part("prepare", "loading the project again: it may read the new files and tables"))
                    reexec.prepared(started, {**generation.handed_on(), **shown})
            plan, static = _prepare_static_and_report(plan, say, checks)
        Server(plan, static, sockets, say, checks, started, generation).run()
    except (ProdserveError, CommandError):
        raise
    except Exception as error:  # Gunicorn's own errors are RuntimeErrors and others, each a sentence
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise listeners.taken_meanwhile(sockets) from error
        raise cannot_start(error) from error
    finally:
        if os.getpid() == arbiter_pid:  # exiting workers also reach this line
            for bound in sockets:
                bound.close()
            generation.end()
    raise AssertionError("the arbiter's loop ends by SystemExit")


def check(plan: Plan, write: Say, checks: Checks) -> None:
    """Do the same as serving up to the fork: bind the address, collect, check, load, handle one request.

    Nothing on disk has changed afterwards: files are collected into a directory that is removed.
    """
    sys.dont_write_bytecode = True
    say = Announcer(write, terminal())
    check_start(plan)
    addresses.try_out(plan, say)
    with ExitStack() as stack:
        scratch = None
        if plan.static_choice.mode == "collect":
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="prodserve-check-")))
        plan, static = _prepare_static_and_report(plan, say, checks, scratch)
        with say.step("checking the project"):
            checks.project()
        _load(plan, static, say, checks)


def _collected_early(plan: Plan) -> dict[str, str]:
    """Collect now if the project has already read STATIC_ROOT; return the variables for our directory."""
    if plan.static_choice.mode != "collect" or not static_root.has_read_static_root():
        return {}
    static = prepare_static(plan.static_choice, served_by=_workers_user(plan))
    static.undo()
    return {static_root.SHOWN: static.directory} if static.directory else {}


def _prepare_static_and_report(
    plan: Plan, say: Announcer, checks: Checks, scratch: Path | None = None
) -> tuple[Plan, StaticFiles]:
    """Prepare the static files and print the few lines that come before the address.

    The plan that it returns counts with what the databases allow.
    """
    with say.step("checking settings and databases"):
        plan, warnings = checks.settings(plan)
    count = FileCount()
    with during("The static files cannot be prepared"), say.step(count.__str__):
        static = prepare_static(
            plan.static_choice, served_by=_workers_user(plan), scratch=scratch, count=count
        )
        missing = missing_names()
    for line in startup_lines(plan, describe(static), django.__version__):
        say(line)
    if plan.media.value:
        say(part("media", str(MediaRoot.from_settings())))
    found: list[Problem | str] = [*warnings, *static.warnings, *missing]
    for each in dict.fromkeys(found):
        say(warning(each))
    return plan, static


def _workers_user(plan: Plan) -> int | None:
    """Return the user id of the workers if Gunicorn's ``user`` names one; they must read the files."""
    user = plan.gunicorn.get("user")
    return workers_user(user.value) if user else None


def _load(plan: Plan, static: StaticFiles, say: Announcer, checks: Checks) -> tuple[Application, Trial]:
    """Return the whole application, and the result of its test process; report a failed warm-up request."""
    with say.step("loading the project"):
        application = _build(plan, static, say)
    _check_loaded(plan, application, say, checks)
    trial = Trial()
    if plan.warmup.value != "off":
        with say.step(f"sending the warm-up request {plan.warmup.value}"):
            trial = try_out(application, plan.warmup.value)
    elif any(kinds_of_threads()):
        trial = try_out(None, "off")
    _tell(trial, say)
    with say.step("loading what the warm-up request has imported"):
        load_as(trial)
    monkey_patching.refuse()
    return application, trial


def _build(plan: Plan, static: StaticFiles, say: Say) -> Application:
    if (private := PrivateServer.from_environment()) is not None:
        query_count.start(private.queries)
    application = build(plan, static, say)
    monkey_patching.refuse()  # in the project's modules, which are all loaded now
    if plan.health_paths.value:
        say(part("health", str(application.health.paths)))
    return application


def _check_loaded(plan: Plan, application: Application, say: Say, checks: Checks) -> None:
    if (problem := unserved(plan)) is not None:
        say(warning(problem))
    plan = plan.with_road_table(application.road_table)
    if plan.has_loop:
        for each in checks.loaded(plan):
            say(warning(each))


def _tell(trial: Trial, say: Say) -> None:
    if trial.warning:
        say(warning(trial.warning))
    if trial.note:
        say(part("warm-up", trial.note))


SILENT = Announcer(lambda line: None)
"""Prints nothing: another announcer has printed the lines."""


def measured(plan: Plan) -> Plan:
    """Load the project, measure its memory, store that for later plans, and decide again."""
    static = prepare_static(plan.static_choice, served_by=_workers_user(plan))
    if plan.preload.value:
        found = _measure(plan, *_load(plan, static, SILENT, Checks()))
    else:
        found = _load_apart(plan, static, Checks(), SILENT).footprint
    if found is None:
        raise ProdserveError(
            "Nothing was measured.",
            "The test process failed, or --warmup off leaves it no request to send.",
        )
    footprint_cache.store(found, load_key(plan))
    return plan.replan(found)


def _measure(plan: Plan, application: Application, trial: Trial) -> Footprint | None:
    """Measure this process, loaded; None if no request may be sent or the test process fails."""
    hooks.configure(immortal=plan.speedups.value)
    return weigh(application, plan.warmup.value) if trial.answered else None


class LoadedApart(NamedTuple):
    """What is known of a project that another process has loaded."""

    trial: Trial
    footprint: Footprint | None
    road_table: str | None


def _load_apart(plan: Plan, static: StaticFiles, checks: Checks, say: Announcer) -> LoadedApart:
    """Check and load in a separate process, which is measured; errors appear before we listen."""
    path = plan.warmup.value

    def load() -> tuple[Trial, str, list[str]]:
        with during("The application cannot be loaded"):  # here, where the import path to the error is known
            returning, lines = tuple(kinds_of_threads()), list[str]()
            checks.project()
            application = _build(plan, static, lines.append)
            _check_loaded(plan, application, lines.append, checks)
            trial = Trial() if path == "off" else rehearse(application, path, scratch, weighs=True)
            return replace(trial, threads=returning), application.road_table, lines

    close_connections()
    master = read_memory()
    with scratch_directory() as scratch:
        road_table, lines = None, list[str]()
        try:
            with say.step("loading the project"):
                trial, road_table, lines = run_in_fork(load)
        except (ProdserveError, CommandError):
            raise
        except Exception as error:  # an exception of a check or of an import in the project
            if not isinstance(error, ChildLateError):
                reason = str(error) if isinstance(error, ChildError) else repr(error)
                raise ProdserveError(f"Loading the application failed: {reason}") from error
            trial = Trial(warning=ended(path, error))
    for line in lines:
        say(line)
    _tell(trial, say)
    reading = footprint(master, trial.reading, preloaded=False) if trial.reading else None
    return LoadedApart(trial, reading, road_table)


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn's application object: passes our settings, our sockets and the wrapped application to it."""

    def __init__(
        self,
        plan: Plan,
        static: StaticFiles,
        sockets: Sequence[socket.socket],
        say: Announcer,
        checks: Checks,
        started: float,
        generation: SupervisorLink,
    ) -> None:
        self.plan, self.static, self.generation = plan, static, generation
        self.sockets = sockets[:-1] if plan.management_bind.value else sockets
        """Those of the site, and behind them the one for plain HTTP, if there is one."""
        self.has_redirect = plan.redirect_http.value is not None
        self.management = sockets[-1] if plan.management_bind.value else None
        self.management_host = (plan.management_bind.value or "").removeprefix("unix:").rpartition(":")[0]
        self.say, self.checks, self.started = say, checks, started
        self.worker_config = WorkerConfig()
        self.tls: TLSContexts | None = None  # also if Gunicorn's own workers serve TLS
        self.arbiter: ProdserveArbiter | None = None
        self.board: Scoreboard | None = None
        """Shared memory of all processes: the arbiter creates it before the first worker."""
        self.alive, self.trial = ForkSafetyCheck(), Trial()
        self.addresses, self.redirects, self.notes = list[str](), list[str](), list[str]()
        super().__init__()

    def do_load_config(self) -> None:
        """Load the settings; Gunicorn's own version turns every error into a bare line and exit 1."""
        self.load_default_config()
        self.load_config()
        self.cfg.validate()

    def load_config(self) -> None:
        """Apply the data of this process: our sockets and all hooks; then the plan."""
        wanted = gunicorn_settings(self.plan)
        users_hooks = {name: wanted[name] for name in hooks.HOOK_NAMES if name in wanted}
        heartbeats = wanted.get("worker_tmp_dir") or hooks.heartbeat_directory()
        if not os.access(heartbeats, os.W_OK):
            raise UsageError(
                f"worker_tmp_dir {heartbeats} is not a directory that this user may write.",
                "Name one in memory, such as /dev/shm, or remove the setting.",
                code="file",
            )
        # Gunicorn closes the descriptor that it gets: with a copy, we clean up our own.
        copies = [f"fd://{os.dup(socket.fileno())}" for socket in self.sockets]
        ours = {"bind": copies, "worker_tmp_dir": heartbeats, **hooks.all_hooks(users_hooks)}
        for name, value in ours.items():
            self.cfg.set(name, value)
        self.cfg.set("when_ready", self._when_ready(self.cfg.when_ready))
        install_slot_hooks(self.cfg)
        self.apply(self.plan)

    def apply(self, plan: Plan) -> None:
        """Serve this plan: set Gunicorn's settings and the workers' configuration, before the first fork."""
        self.plan, self.worker_config = plan, WorkerConfig.from_plan(plan)
        gunicorn_logger.configure(LogConfig.of(plan))
        hooks.configure(immortal=plan.speedups.value)
        kept = {"bind", "worker_tmp_dir", *hooks.HOOK_NAMES}
        if self.generation.supervisor:
            kept.add("pidfile")  # the supervisor's pid is the one that stays
        for name, value in gunicorn_settings(plan).items():
            if name not in kept:
                self.cfg.set(name, value)
        if self.arbiter is not None and self.arbiter.num_workers != self.cfg.workers:
            self.arbiter.num_workers = self.cfg.workers  # the setter calls the hook nworkers_changed

    def _when_ready(self, users: Callable[[ProdserveArbiter], None]) -> Callable[[ProdserveArbiter], None]:
        def when_ready(arbiter: ProdserveArbiter) -> None:
            self.listen()
            users(arbiter)

        return when_ready

    def load(self) -> Application:
        """Load and test; Gunicorn calls this before the socket listens, or in the worker."""
        with fork_guard.ended("Loading the project"):
            if self.cfg.preload_app:
                application, self.trial = _load(self.plan, self.static, self.say, self.checks)
            else:  # the test process has already reported the lines that each worker would repeat
                application = _build(self.plan, self.static, SILENT)
        passed = self.plan.gunicorn
        forget_if_told(passed["forwarder_headers"].value if "forwarder_headers" in passed else "")
        if self.arbiter is not None:
            gunicorn_logger.restore_handlers(self.arbiter.log, settings.LOGGING)
        if self.cfg.preload_app:
            with self.say.step("measuring the project's memory"):
                found = _measure(self.plan, application, self.trial)
            self.apply_loaded(application.road_table, found)
            if application.async_part is not None:
                application.async_part.leases.limit = self.plan.leases.value
        return application

    def apply_loaded(self, road_table: str | None, found: Footprint | None) -> None:
        """Plan again with what is known of the loaded project, and serve that plan."""
        before = self.plan
        after = before if road_table is None else before.with_road_table(road_table)
        if found is not None:
            footprint_cache.store(found, load_key(before))
            after = after.replan(found)
        if after is before:
            return
        self.apply(after)
        for line in measuring_line(before, after):
            self.say(line)

    def listen(self) -> None:
        """Begin to listen on the management address, too, and print what concerns the fork that follows.

        After it the arbiter closes these sockets, so this is the moment to name the addresses.
        """
        for line in self.alive.lines(preloaded=self.cfg.preload_app, returning=self.trial.threads):
            self.say(warning(line))
        CALL_SITES.stop()
        tls = bool(self.cfg.is_ssl)
        site = self.sockets[: len(self.plan.bind.value)]
        self.addresses = [listeners.url(socket, tls=tls) for socket in site]
        self.redirects = [listeners.url(socket, tls=False) for socket in self.sockets[len(site) :]]
        self.notes = [*browser_notes(self.plan, site, tls=tls, loaded=self.cfg.preload_app)]
        if self.management is not None:
            self.management.listen(self.cfg.backlog)

    def announce(self) -> None:
        """Print the addresses, now that the workers answer there."""
        if self.management is not None:
            self.say(f"management {listeners.url(self.management, tls=False)}")
        for address in self.redirects:
            self.say(part("redirect", f"{address} to https"))
        seconds, addresses = time.monotonic() - self.started, self.addresses
        if not self.generation.during_reload:  # otherwise the supervisor reports that it serves
            how_to_stop = "  Ctrl-C stops it" if os.isatty(1) and self.generation.number == 1 else ""
            line = f"{'  '.join(addresses)}  ready in {seconds:.1f} s{how_to_stop}"
            self.say(Notice(line, event="ready", addresses=addresses, seconds=round(seconds, 2)))
        for line in self.notes:
            self.say(note(line))
        self.say.keep(self.generation.run_dir)

    def facts(self) -> ServingFacts:
        """Return the facts to record about a server that serves."""
        place, start = working_directory.here(), working_directory.start()
        return {
            "real": place.real,
            "links": {**start.links, **place.links},
            "settings": self.plan.settings.value,
            "binds": list(self.plan.bind.value),
            "workers": self.cfg.workers,
            "seconds_to_stop": self.plan.drain_delay.value + self.plan.graceful_timeout.value,
        }

    def explained(self) -> dict[str, Any]:
        """Return the plan with its reasons, for operators."""
        return to_dict(self.plan)

    def run(self) -> NoReturn:
        for variable in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
            os.environ.pop(variable, None)  # already parsed as addresses; Gunicorn would use them again
        if self.cfg.preload_app:
            with fork_guard.ended("The check of the project"), self.say.step("checking the project"):
                self.checks.project()
        else:
            self.trial, found, road_table = _load_apart(self.plan, self.static, self.checks, self.say)
            self.apply_loaded(road_table, found)
        self.tls = certificates.contexts(self.plan, self.cfg)
        ProdserveArbiter(self).run()
        raise AssertionError("the arbiter's loop ends by SystemExit")
