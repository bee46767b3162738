"""``manage.py prodserve``: parse, plan, act. Runs in the command's process, which becomes the arbiter."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError

from ...cli import actions, arguments, check_report, messages, running
from ...errors import Interrupted, Problem, ProdserveError, UsageError
from ...project import static_root
from ...supervisor import reexec
from ...utils import early_signals, standard_streams, terminal, working_directory
from ...utils.notice import warning


class Parser(arguments.FlatParser, CommandParser):
    """Django's parser with the behaviour of FlatParser."""


class RefusalError(CommandError):
    """A ProdserveError on its way through Django, which handles only CommandError."""

    def __init__(self, error: ProdserveError) -> None:
        super().__init__(str(error), returncode=int(error.exit_code))
        self.error = error


class Command(BaseCommand):
    """Serve this project in production, sized for its machine."""

    help = arguments.DESCRIPTION
    requires_system_checks: list[str] = []  # noqa: RUF012, run by hand, to control the message
    as_json = False
    """Whether programs read the lines at start."""

    def get_version(self) -> str:
        return version_line()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        # Libraries wrap create_parser, and some drop its keywords: so the parser is configured afterwards.
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
                if (words := actions.reading(argv[2:])) is not None:
                    from ...cli import reading

                    return reading.run(words, sys.stdout)
                super().run_from_argv(argv)
        except ProdserveError as error:  # raised by the output, or by the parser before execute() is called
            self.refuse(error, argv[2:])

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run; report errors in prodserve's form if the command came from a command line."""
        terminal.choose(no_color=bool(options.get("no_color")), force_color=bool(options.get("force_color")))
        try:
            return super().execute(*args, **options)
        except CommandError as error:
            if not getattr(self, "_called_from_command_line", False) or options.get("traceback"):
                raise
            self.refuse(as_ours(error), options.get("action") or (), options)

    def refuse(self, error: ProdserveError, words: Any, flags: Mapping[str, Any] | None = None) -> NoReturn:
        """Write the error, and exit."""
        if check_report.is_wanted(words, flags):
            self.stdout.write(check_report.of_error(error))
            sys.exit(error.exit_code)
        layers = messages.typed_format(words) if flags is None else flags
        as_json = actions.serves(words) and messages.is_json(sys.stderr, layers, os.environ, settings_block())
        messages.write_error(error, self.stderr._out, as_json=as_json)
        sys.exit(error.exit_code)

    def handle(self, *, action: Any = None, **flags: Any) -> None:
        started = time.monotonic()
        early_signals.hand_over()
        if sys.platform == "win32":
            raise RefusalError(ProdserveError(*actions.WINDOWS, code="not-on-windows"))
        from ...supervisor.link import from_environment

        kept = from_environment(os.environ)
        began = reexec.take_prepared(os.environ)
        try:
            words, addresses = actions.split(action)
            action = actions.chosen(words)
            if addresses:  # call_command(action="8000"); the parser has moved addresses of a command line
                flags["bind"] = [*(flags.get("bind") or ()), *addresses]
            arguments.check_together(action, flags)
            if action == "serve":
                standard_streams.shield()
            if action in actions.READING_ACTIONS:
                from ...cli import reading

                reading.run(words, self.stdout)
            else:
                flags["names"] = words[1:]
                self.act(action, flags, began or started, kept, prepared=bool(began))
        except Exception as error:
            told = explained(error)
            if kept is not None:
                kept.failed(str(told or error) or repr(error), told.problems if told else ())
            if told is not None:
                raise RefusalError(told) from error
            raise
        except KeyboardInterrupt:
            raise RefusalError(Interrupted("Stopped before the server was ready.")) from None

    def act(
        self, action: str, flags: dict[str, Any], started: float, kept: Any, *, prepared: bool = False
    ) -> None:
        """Run the action; ProdserveError describes an error that the operator can correct."""
        working_directory.start()  # reports a removed directory first
        if chdir := flags.get("chdir") or os.environ.get("PRODSERVE_CHDIR"):
            working_directory.enter(chdir)
        if action in (*actions.CONTROL_ACTIONS, *actions.STATUS_ACTIONS):
            running.run(action, flags, self.say)
            return
        static_root.record_static_root()
        reexec.with_env_file(flags.get("env_file"), os.environ)
        # Late: the plan reads settings, and importing Gunicorn parses the environment.
        from ...cli.export_conf import render_conf, search_path
        from ...plan.explain import as_json, check_names, explain
        from ...plan.pipeline import inspect_now, with_road_table
        from ...staticfiles.script_name import settle
        from ...utils.tracebacks import during

        if action == "export":
            from ...cli.export import export

            with during("The project's settings cannot be used"):
                settle()
                export(flags["names"], flags, os.environ, self.stdout.write, self.complain)
            return
        names = check_names(flags["names"]) if action == "plan" else ()
        with during("The project's settings cannot be used"):
            settle()
            plan, project = inspect_now(flags)
        if action == "tune":
            self.tune(plan, project, flags)
            return
        if action == "plan":
            plan = with_road_table(plan)
        if flags.get("measure"):
            from ...server import measured

            plan = measured(plan)
        if flags.get("gunicorn_conf"):
            self.stdout.write(render_conf(plan, working_directory.here().name, search_path()), ending="")
        elif action == "plan":
            out = self.stdout._out
            width, details = terminal.width(out) or 80, flags["verbosity"] > 1
            text = explain(plan, names=names, details=details, width=width, colour=terminal.colours(out))
            self.stdout.write(as_json(plan, names) if flags.get("json") else text)
        else:
            self.start(action, plan, project, flags, started, kept, prepared=prepared)

    def tune(self, plan: Any, project: Any, flags: dict[str, Any]) -> None:
        """Measure the project; exit with 1 if the machine is too busy for a conclusion."""
        from ...tune.action import tune
        from ...tune.keep import keep

        def say(line: str) -> None:
            self.complain(f"tune: {line}")

        result = tune(plan, project, flags, self.stdout.write, say)
        if not result.is_conclusive:
            raise RefusalError(
                ProdserveError(
                    f"The machine is too busy to conclude: {result.busy}.",
                    "Measure again when it is quiet.",
                    topic="tune",
                )
            )
        say(keep(result, plan))

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
        """Check or serve; both kinds of checks run once the address is bound."""
        from ... import server
        from ...startup import checks, monkey_patching

        monkey_patching.refuse()
        skipped = flags.get("skip_checks")

        report = check_report.CheckReport(self.say, as_json=bool(flags.get("json")))
        say = report.say if action == "check" else self.say
        found = checks.Checks()
        if not skipped:
            checks.raise_on_errors(plan, project)
            preflight = checks.Preflight(plan, project)
            found = checks.Checks(preflight.settings, lambda: self.check_project(say), preflight.loaded)
        if action == "check":
            server.check(plan, say, found)
            self.stdout.write(report.summary())
        else:
            self.as_json = messages.is_json(self.stdout, {"log_format": plan.log_format.value})
            server.serve(plan, say, found, started, kept, prepared=prepared)

    def check_project(self, say: Callable[[str], object]) -> None:
        """Run Django's system checks; raise one error that lists all their errors, print the warnings."""
        from django.core import checks
        from django.core.checks.registry import Tags, registry

        from ...staticfiles.asking import silent_caches
        from ...utils.tracebacks import project_error

        silent = silent_caches()
        for line in silent:
            say(warning(line))
        tags = sorted(registry.tags_available() - {Tags.caches}) if silent else None
        try:
            settings.SECRET_KEY  # noqa: B018, reading it raises if it is empty: every session would
            found = [issue for issue in checks.run_checks(tags=tags) if not issue.is_silenced()]
        except CommandError:
            raise
        except Exception as error:  # checks import the URLconf and all its imports
            raise project_error("The project cannot be checked", error) from error
        if errors := [issue for issue in found if issue.is_serious()]:
            raise ProdserveError.of(map(system_check, errors))
        for issue in found:
            say(warning(system_check(issue)))

    def say(self, line: str) -> None:
        """Write one line immediately; in containers Python buffers standard output otherwise."""
        text = messages.said_as_json(line) if self.as_json else messages.said_as_text(line, self.stdout._out)
        self.stdout.write(text)
        self.stdout.flush()

    def complain(self, line: str) -> None:
        """Write one line next to the output that a file or a program gets."""
        self.stderr.write(messages.said_as_text(line, self.stderr._out), style_func=str)


def version_line() -> str:
    """Return the versions that a bug report needs, on one line."""
    import platform

    from ...monitoring.server_facts import versions

    python = platform.python_implementation().replace("CPython", "Python")
    known = "prodserve {prodserve}, Django {django}, Gunicorn {gunicorn}, ".format(**versions())
    return f"{known}{python} {platform.python_version()}, worker class {default_worker_class()}"


def default_worker_class() -> str:
    """Return the worker class that serves unless the environment names another."""
    from ...config.options import Options

    return os.environ.get("PRODSERVE_WORKER_CLASS") or Options().worker_class


def settings_block() -> Mapping[str, Any]:
    """Return the settings of this server in Django's settings; empty if they cannot be read."""
    block = getattr(settings, "PRODSERVE", None) if settings.configured else None
    return block if isinstance(block, Mapping) else {}


def system_check(message: Any) -> Problem:
    """Return the problem that one of Django's checks found."""
    place = (
        ""
        if message.obj is None
        else f"{getattr(getattr(message.obj, '_meta', None), 'label', message.obj)}: "
    )
    check = str(message.id or "")
    return Problem(f"{place}{message.msg}", str(message.hint or ""), code=check, check=check)


def as_ours(error: CommandError) -> ProdserveError:
    """Return an error of Django in prodserve's form."""
    if isinstance(error, RefusalError):
        return error.error
    message, _, rest = str(error).partition("\n")
    kind = (
        UsageError if error.returncode == 2 or "options can't be used together" in message else ProdserveError
    )
    code = "system-check" if isinstance(error, SystemCheckError) else ""
    return kind(message, where=rest.strip(), code=code)


def explained(error: Exception) -> ProdserveError | None:
    """Return an error as one message; None if Django reports it, or if the output has failed."""
    if isinstance(error, ProdserveError):
        return error
    if isinstance(error, CommandError) or standard_streams.is_of_the_output(error):
        return None
    from ...utils.tracebacks import cannot_start

    return cannot_start(error)
