"""Projects whose settings, or whose commands, are prepared by a library of others before Django sees them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from .needs import need_package
from .serving import complaints, copy_site, run, serving

MANAGE, BY_NAME = ("manage.py", "prodserve"), ("-m", "django_prodserve")

CONFIGURED = """
import os, sys
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    os.environ.setdefault("DJANGO_CONFIGURATION", "Production")
    from configurations.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""

WRAPPED = """
import os, sys
from django.core.management import base, execute_from_command_line

def wrapped(name, wrap):
    setattr(base.BaseCommand, name, wrap(getattr(base.BaseCommand, name)))

class Parser(base.CommandParser):
    def format_help(self):
        return "helped\\n" + super().format_help()

def create_parser(original):
    def create_parser(self, prog_name, subcommand):
        parser = original(self, prog_name, subcommand)
        parser.add_argument("--extra")
        parser.__class__ = Parser
        return parser
    return create_parser

def execute(original):
    def execute(self, *args, **options):
        self.stdout.write(f"before with {options['extra']}")
        return original(self, *args, **options)
    return execute

def run_from_argv(original):
    return lambda self, argv: original(self, argv)

wrapped("create_parser", create_parser)
wrapped("execute", execute)
wrapped("run_from_argv", run_from_argv)
if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
"""


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """Make a project whose settings are a class."""
    need_package("configurations")
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    text = settings.read_text().replace('globals().update(json.loads(os.environ.get("SITE", "{}")))', "")
    body = "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
    settings.write_text(
        f"from configurations import Configuration\n\nclass Production(Configuration):\n{body}"
    )
    (site / "manage.py").write_text(CONFIGURED)
    wsgi = site / "shop" / "wsgi.py"
    wsgi.write_text(wsgi.read_text().replace("from django.core.wsgi", "from configurations.wsgi"))
    return site


@pytest.mark.parametrize(
    "entry", [MANAGE, pytest.param(BY_NAME, marks=pytest.mark.slow)], ids=["manage.py", "-m"]
)
def test_django_configurations(env: Any, configured: Path, entry: tuple[str, ...]) -> None:
    command = (*entry, "--configuration", "Production")
    with serving("--supervisor", "--workers", "1", env=env(), cwd=configured, command=command) as server:
        assert server.get("/").text == "hello"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("generation 2 serves")
        assert server.get("/").text == "hello"
        ended = run(*command, "status", env=env(), cwd=configured)
        assert "generation 2" in ended.stdout, ended.stderr
    planned = run(*entry, "plan", "--gunicorn-conf", env=env(), cwd=configured)
    assert "DJANGO_CONFIGURATION" in planned.stdout, planned.stderr


def test_a_configuration_that_nothing_names_is_one_message(env: Any, configured: Path) -> None:
    text = CONFIGURED.replace('os.environ.setdefault("DJANGO_CONFIGURATION", "Production")', "pass")
    (configured / "manage.py").write_text(text)
    ended = run(*BY_NAME, "plan", env=env(), cwd=configured)
    assert ended.returncode == 1
    assert "manage.py imports configurations first: try `python manage.py prodserve`" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(complaints(ended)) == 3, ended.stderr


def test_methods_of_commands_that_others_have_wrapped(env: Any, tmp_path: Path) -> None:
    """By hands that knew Django's signatures of their day, without keywords."""
    site = copy_site(tmp_path)
    (site / "manage.py").write_text(WRAPPED)
    ended = run(*MANAGE, "plan", "--extra", "this", "--cpus", "3", env=env(), cwd=site)
    assert ended.returncode == 0, ended.stderr
    assert "before with this\n" in ended.stdout
    assert "\n  cpus        3 CPUs  set by --cpus\n" in ended.stdout
    ended = run(*MANAGE, "--cpu", "3", env=env(), cwd=site)  # nothing is abbreviated
    assert "error: Unknown option --cpu.\n  Fix:  Did you mean --cpus?" in ended.stderr
    assert run(*MANAGE, "--help", env=env(), cwd=site).stdout.startswith("helped\n")
