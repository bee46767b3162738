"""``python -m django_prodserve``: the same command without manage.py.

Finds the settings as manage.py does, and turns an error of the settings module or of an app's import into
one message; under manage.py those end in Django's own traceback before any command of ours exists.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from .cli.arguments import CONTROL_ACTIONS, STATUS_ACTIONS, WINDOWS, chosen_action, control_parser
from .config import env_file
from .errors import ProdserveError
from .project import settings_bootstrap
from .utils import early_signals, standard_streams, working_directory

SETTINGS = "DJANGO_SETTINGS_MODULE"


def main(argv: list[str] | None = None) -> None:
    """Run the command; exit 2 for what was typed wrongly, 1 for what the project does wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    if sys.platform == "win32":
        _fail(WINDOWS, 1)
    if {*CONTROL_ACTIONS, *STATUS_ACTIONS} & set(arguments):
        _turn_to_the_running_server(arguments)
    from .management.commands.prodserve import Command

    command = Command()
    program = ["python -m django_prodserve", ""]
    try:
        # Parsed before Django is set up: --help, --version and a wrong flag need no project.
        parser = command.create_parser(*program)
        if (
            settings_bootstrap.has_configurations()
        ):  # which adds this flag to all commands once it is installed
            parser.add_argument("--configuration")
        parsed = parser.parse_args(arguments)
        chosen_action(parsed.action)
    except ProdserveError as error:
        _fail(str(error), 2)
    try:
        _enter(parsed)
        if chosen_action(parsed.action) not in CONTROL_ACTIONS:
            _apply_env_file(getattr(parsed, "env_file", None))
        set_up(parsed.settings, parsed.pythonpath, getattr(parsed, "configuration", None))
    except ProdserveError as error:
        if parsed.traceback:
            raise
        _fail(str(error), 1)
    command.run_from_argv([*program, *arguments])


def _turn_to_the_running_server(arguments: list[str]) -> None:
    """Act without Django: quickly, and also while the settings are broken. Ends the process."""
    early_signals.hand_over()
    try:
        parsed = control_parser("python -m django_prodserve").parse_args(arguments)
        action = chosen_action(parsed.action)
        if action not in (*CONTROL_ACTIONS, *STATUS_ACTIONS):
            return  # the word stood somewhere else, such as behind --bind
    except ProdserveError as error:
        _fail(str(error), 2)
    from .cli import control, status

    bind = getattr(parsed, "bind", None)
    try:
        with standard_streams.for_a_reader():
            _enter(parsed)
            if action in STATUS_ACTIONS:
                wanted = {"as_json": getattr(parsed, "json", False), "live": getattr(parsed, "watch", False)}
                status.run(action, bind, print, **wanted)
            else:
                control.run(action, bind, print)
    except ProdserveError as error:
        _fail(str(error), 1)
    sys.exit(0)


def _enter(parsed: argparse.Namespace) -> None:
    """Go where the project lies before it is looked for; every other relative path starts there."""
    working_directory.start()  # one that is gone is told before anything
    if path := getattr(parsed, "chdir", None) or os.environ.get("PRODSERVE_CHDIR"):
        working_directory.enter(path)


def _apply_env_file(path: str | None) -> None:
    """Put the file's values into the environment before settings are read; later the supervisor does."""
    path = path or os.environ.get("PRODSERVE_ENV_FILE")
    if path and env_file.APPLIED not in os.environ:
        try:
            env_file.apply(path, os.environ)
        except (OSError, ValueError) as error:
            raise ProdserveError(env_file.complaint(path, error)) from error


def set_up(settings: str | None, pythonpath: str | None, configuration: str | None = None) -> None:
    """Find the settings module, load it and every app; raise ProdserveError with the project's own line."""
    sys.path.insert(0, os.path.abspath(pythonpath) if pythonpath else os.getcwd())
    module = settings or os.environ.get(SETTINGS) or settings_bootstrap.default_of_manage_py(SETTINGS)
    if not module:
        raise ProdserveError(
            "No settings module: there is no manage.py here that names one.",
            "Run this where manage.py lies, or name it: --settings mysite.settings",
        )
    os.environ[SETTINGS] = module
    import django

    from .startup.origins import CALL_SITES
    from .utils.tracebacks import project_error

    CALL_SITES.record()

    try:
        settings_bootstrap.prepare_configurations(configuration)
        django.setup()
    except Exception as error:  # anything may happen in an import
        told = project_error(f"The settings {module} or an app of theirs cannot be loaded", error)
        if more := settings_bootstrap.imports_of_manage_py():
            told.hint += f"; manage.py imports {', '.join(more)} first: try `python manage.py prodserve`"
        raise told from error


def _fail(message: str, code: int) -> NoReturn:
    print(f"prodserve: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
