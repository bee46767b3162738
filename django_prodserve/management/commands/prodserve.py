"""``manage.py prodserve``: parse, plan, act."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import __version__
from ...cli import arguments, control, status
from ...errors import ProdserveError
from ...project import static_root
from ...supervisor import reexec
from ...utils import early_signals, log_lines, standard_streams, working_directory


class Parser(arguments.FlatParser, CommandParser):
    """Django's parser with our manners."""


class Command(BaseCommand):
    """Serve this project in production, sized for its machine."""

    help = "Serve this project in production: sized for its machine, explained, with static files."
    requires_system_checks: list[str] = []  # noqa: RUF012, run by hand, where the message is ours

    def get_version(self) -> str:
        return __version__

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Libraries wrap create_parser, and not all of them pass keywords on: what we want is set behind it.
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.allow_abbrev = False
        made = type(parser)
        # Django names CommandParser in create_parser, so the parser's class is changed; a library's is kept.
        kind = Parser if made is CommandParser else type("Parser", (arguments.FlatParser, made), {})
        parser.__class__ = kind
        return parser

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            with standard_streams.for_a_reader():
                self._run(argv)
        except ProdserveError as error:  # its output cannot be written
            self.stderr.write(self.style.ERROR(f"prodserve: {error}"))
            sys.exit(1)

    def _run(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        except ProdserveError as error:  # raised by the parser, before there is an execute()
            self.stderr.write(self.style.ERROR(f"prodserve: {error}"))
            sys.exit(2)

    def handle(self, *, action: Any = None, **flags: Any) -> None:
        started = time.monotonic()
        early_signals.hand_over()
        if sys.platform == "win32":
            raise CommandError(arguments.WINDOWS)
        from ...supervisor.link import from_environment

        kept = from_environment(os.environ)
        began = reexec.take_prepared(os.environ)
        try:
            action = arguments.chosen_action(action)
            if action == "serve":
                standard_streams.shield()
            self.act(action, flags, began or started, kept, prepared=bool(began))
        except Exception as error:
            told = explained(error)
            if kept is not None:
                kept.failed(str(told or error) or repr(error))
            if told is not None:
                raise CommandError(str(told)) from error
            raise
        except KeyboardInterrupt:
            raise CommandError("stopped before it was ready", returncode=130) from None

    def act(
        self, action: str, flags: dict[str, Any], started: float, kept: Any, *, prepared: bool = False
    ) -> None:
        """Do what was asked; ProdserveError says what the operator can mend."""
        working_directory.start()  # one that is gone is told before anything
        if chdir := flags.get("chdir") or os.environ.get("PRODSERVE_CHDIR"):
            working_directory.enter(chdir)
        if action in arguments.CONTROL_ACTIONS:
            control.run(action, flags.get("bind"), self.say)
            return
        if action in arguments.STATUS_ACTIONS:
            wanted = {"as_json": bool(flags.get("json")), "live": bool(flags.get("watch"))}
            status.run(action, flags.get("bind"), self.say, **wanted)
            return
        if flags.get("watch"):
            status.refuse_live(action)
        static_root.record_static_root()
        reexec.with_env_file(flags.get("env_file"), os.environ)
        # Late: the plan reads settings, and importing Gunicorn parses the environment.
        from ...cli.export_conf import render_conf, search_path
        from ...plan.explain import as_json, explain
        from ...plan.pipeline import inspect_now
        from ...staticfiles.script_name import settle
        from ...utils.tracebacks import during

        wants_plan = [name for name in ("json", "gunicorn_conf", "measure") if flags.get(name)]
        if wants_plan and action != "plan":
            flag = "--" + wants_plan[0].replace("_", "-")
            raise ProdserveError(f"{flag} goes with plan: write prodserve plan {flag}")
        with during("The project's settings cannot be used"):
            settle()
            plan, project = inspect_now(flags)
        if flags.get("measure"):
            from ...server import measured

            plan = measured(plan)
        if flags.get("gunicorn_conf"):
            self.stdout.write(render_conf(plan, working_directory.here().name, search_path()), ending="")
        elif action == "plan":
            self.stdout.write(
                as_json(plan) if flags.get("json") else explain(plan, details=flags["verbosity"] > 1)
            )
        else:
            self.start(action, plan, project, flags, started, kept, prepared=prepared)

    def start(
        self,
        action: str,
        plan: Any,
        project: Any,
        flags: dict[str, Any],
        started: float,
        kept: Any,
        *,
        prepared: bool,
    ) -> None:
        """Check or serve; both kinds of checks run when the address is bound."""
        from ... import server
        from ...startup import checks, monkey_patching

        monkey_patching.refuse()
        skipped = flags.get("skip_checks")

        if not skipped:
            checks.raise_on_errors(plan, project)

        def preflight() -> list[str]:
            return [] if skipped else checks.preflight(plan, project)

        def check_project() -> None:
            if not skipped:
                self.check_project()

        if action == "check":
            server.check(plan, self.say, preflight, check_project)
            self.say("ready to serve")
        else:
            say = self.say_json if self.is_read_by_programs(plan.log_format.value) else self.say
            server.serve(plan, say, preflight, check_project, started, kept, prepared=prepared)

    def check_project(self) -> None:
        """Run Django's system checks; an exception in one of them is told in one message."""
        from django.core.checks.registry import Tags, registry

        from ...staticfiles.asking import silent_caches
        from ...utils.tracebacks import project_error

        silent = silent_caches()
        for line in silent:
            self.say(f"warning: {line}")
        tags = sorted(registry.tags_available() - {Tags.caches}) if silent else None
        try:
            settings.SECRET_KEY  # noqa: B018, reading it raises where it is empty: every session would
            self.check(display_num_errors=False, tags=tags)
        except CommandError:
            raise
        except Exception as error:  # checks import the URLconf and whatever it imports
            raise project_error("The project cannot be checked", error) from error

    def is_read_by_programs(self, form: str) -> bool:
        """Say whether the lines at start are JSON: they are in one log with those of the access log."""
        try:
            return log_lines.wants_json(form, self.stdout.fileno())
        except (OSError, ValueError, AttributeError):  # no file: call_command captures it
            return form == "json"

    def say_json(self, line: str) -> None:
        """Write one line at once, as JSON."""
        words = line.removeprefix("warning: ")
        level = "info" if words == line else "warning"
        self.stdout.write(log_lines.as_json(time.time(), level, "prodserve", words))
        self.stdout.flush()

    def say(self, line: str) -> None:
        """Write one line at once; containers buffer standard output otherwise."""
        style = self.style.WARNING if line.startswith("warning: ") else str
        self.stdout.write(style(line))
        self.stdout.flush()


def explained(error: Exception) -> ProdserveError | None:
    """Return an error as one message; None where Django tells it, or where the output has failed."""
    if isinstance(error, ProdserveError):
        return error
    if isinstance(error, CommandError) or standard_streams.is_of_the_output(error):
        return None
    from ...utils.tracebacks import cannot_start

    return cannot_start(error)
