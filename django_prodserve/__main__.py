"""``prodserve`` and ``python -m django_prodserve``: the same command without manage.py.

Finds the settings as manage.py does. Turns an error of the settings module, or of an app's import, into one
message. Under manage.py those end in Django's own traceback before any command of prodserve exists.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from .cli import actions, check_report, messages
from .cli.arguments import check_together, control_parser
from .config import env_file
from .errors import ExitCode, ProdserveError, UsageError
from .project import settings_bootstrap
from .utils import command_line, early_signals, standard_streams, terminal, working_directory

SETTINGS = "DJANGO_SETTINGS_MODULE"


def main(argv: list[str] | None = None) -> None:
    """Run the command. The exit code is one of errors.EXIT_CODES."""
    arguments = sys.argv[1:] if argv is None else argv
    if sys.platform == "win32":
        _fail(ProdserveError(*actions.WINDOWS, code="not-on-windows"), arguments)
    _search_here()
    program = command_line.name(sys.argv[0])
    if {*actions.CONTROL_ACTIONS, *actions.STATUS_ACTIONS, *actions.READING_ACTIONS, *actions.ALIASES} & set(
        arguments
    ):
        _without_django(program, arguments)
    from .management.commands.prodserve import Command

    command = Command()
    names = [program, ""]
    try:
        # Parsed before Django is set up: --help, --version and a wrong flag need no project.
        parser = command.create_parser(*names)
        if (
            settings_bootstrap.has_configurations()
        ):  # once installed, django-configurations adds this flag to all commands
            parser.add_argument("--configuration")
        with standard_streams.for_a_reader():
            parsed = parser.parse_args(arguments)
        terminal.choose(no_color=parsed.no_color, force_color=parsed.force_color)
        check_together(actions.chosen(parsed.action), vars(parsed))
        _enter(parsed)
        _apply_env_file(getattr(parsed, "env_file", None))
        set_up(parsed.settings, parsed.pythonpath, getattr(parsed, "configuration", None))
    except ProdserveError as error:
        if "--traceback" in arguments:
            raise
        _fail(error, arguments)
    command.run_from_argv([*names, *arguments])


def _search_here() -> None:
    """Make the script search the working directory first, as ``-m`` does; its own one has no modules."""
    is_script = command_line.is_script(sys.argv[0]) and not getattr(sys.flags, "safe_path", False)
    if is_script and os.path.realpath(sys.path[0]) == os.path.dirname(os.path.realpath(sys.argv[0])):
        sys.path[0] = os.getcwd()


def _without_django(program: str, arguments: list[str]) -> None:
    """Run without Django: quickly, and also while the settings are broken. Ends the process."""
    early_signals.hand_over()
    try:
        with standard_streams.for_a_reader():
            if (words := actions.reading(arguments)) is not None:
                from .cli import reading

                reading.run(words, sys.stdout)
                sys.exit(ExitCode.DONE)
            parsed = control_parser(program).parse_args(arguments)
            terminal.choose(no_color=parsed.no_color, force_color=parsed.force_color)
            action = actions.chosen(parsed.action)
            if action not in (*actions.CONTROL_ACTIONS, *actions.STATUS_ACTIONS):
                return  # the word was in another position, such as after --bind
            check_together(action, vars(parsed))
            _enter(parsed)
            from .cli import running  # late: these read the scoreboard

            running.run(action, vars(parsed), print)
    except ProdserveError as error:
        _fail(error, arguments)
    sys.exit(ExitCode.DONE)


def _enter(parsed: argparse.Namespace) -> None:
    """Change to the project's directory before the project is found; other relative paths start there."""
    working_directory.start()  # reports a removed directory first
    if path := getattr(parsed, "chdir", None) or os.environ.get("PRODSERVE_CHDIR"):
        working_directory.enter(path)


def _apply_env_file(path: str | None) -> None:
    """Set the file's variables before settings are read; later the supervisor does so."""
    source = "--env-file" if path else "PRODSERVE_ENV_FILE"
    path = path or os.environ.get("PRODSERVE_ENV_FILE")
    if path and env_file.APPLIED not in os.environ:
        try:
            env_file.apply(path, os.environ)
        except (OSError, ValueError) as error:
            raise env_file.refusal(path, error, source=source) from error


def set_up(settings: str | None, pythonpath: str | None, configuration: str | None = None) -> None:
    """Load the settings module and every app; raise ProdserveError with the project's own line."""
    sys.path.insert(0, os.path.abspath(pythonpath) if pythonpath else os.getcwd())
    named = settings or os.environ.get(SETTINGS)
    module = named or settings_bootstrap.default_of_manage_py(SETTINGS)
    if not module:
        has_one = os.path.exists("manage.py")
        raise UsageError(
            f"manage.py here names no {SETTINGS}." if has_one else f"No manage.py in {os.getcwd()}.",
            ("Name the settings" if has_one else "Go to the project's directory (cd), or name the settings")
            + ": --settings mysite.settings",
            code="no-settings",
        )
    os.environ[SETTINGS] = module
    import django

    from .startup.origins import CALL_SITES

    CALL_SITES.record()

    try:
        settings_bootstrap.prepare_configurations(configuration)
        django.setup()
    except Exception as error:  # an import may raise any exception
        raise _not_loaded(
            module, error, named="--settings" if settings else SETTINGS if named else ""
        ) from error


def _not_loaded(module: str, error: Exception, *, named: str) -> ProdserveError:
    """Return the error for the settings module or the app that could not be loaded."""
    from .utils.tracebacks import app_at_fault, project_error

    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(f"{missing}.")):
        fix = f"Correct {named}" if named else f"Correct {SETTINGS} in manage.py"
        message = f"Cannot load settings module {module!r}: there is no module {missing!r} in {sys.path[0]}."
        kind = UsageError if named else ProdserveError
        return kind(message, f"{fix}, or go to the project's directory (cd).", code="no-settings")
    app = app_at_fault(error)
    what = f"Cannot load app {app!r}" if app else f"Cannot load settings module {module!r}"
    told = project_error(what, error, "app-not-loaded" if app else "settings-not-loaded")
    if app and missing and (app == missing or app.startswith(f"{missing}.")):
        told.hint = f"Correct {app!r} in INSTALLED_APPS, or install its package for {sys.executable}."
    if more := settings_bootstrap.imports_of_manage_py():
        told.hint = f"manage.py imports {', '.join(more)} first: try `python manage.py prodserve`"
    return told


def _fail(error: ProdserveError, arguments: list[str]) -> NoReturn:
    if check_report.is_wanted(arguments):
        print(check_report.of_error(error), flush=True)
        sys.exit(error.exit_code)
    as_json = actions.serves(arguments) and messages.is_json(
        sys.stderr, messages.typed_format(arguments), os.environ
    )
    messages.write_error(error, sys.stderr, as_json=as_json)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
