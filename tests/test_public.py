"""What users may rely on, in one text file, so that every change shows in a review."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prodserve.cli.arguments import ACTIONS
from django_prodserve.config.options import option_fields
from django_prodserve.export.kinds import KINDS

from .facts import plan

SNAPSHOT = Path(__file__).parent / "public.txt"


def surface() -> Iterator[str]:
    """Yield a line for every promise."""
    yield from (f"action {name}" for name in ACTIONS)
    yield from (f"option {row.flag} {row.variable} {row.key}" for row in option_fields())
    yield "option --json"
    yield "option --watch"
    yield "option --gunicorn-conf"
    yield "option --measure"
    yield "option --output"
    yield "option --force"
    yield "option --check"
    yield "option --server"
    yield "option --from"
    yield "option --seconds"
    yield "option --html"
    yield "option --yes"
    yield from (f"export {name}" for name in KINDS)
    yield "signal worker_started"
    yield "decorator roads.run_in_threads"
    yield "decorator roads.run_on_loop"
    yield "decorator timeouts.request_timeout"
    yield "exception timeouts.RequestTimeout"
    yield "decorator logs.unlogged"
    yield "filter logs.RequestIDFilter"
    yield "formatter logs.JSONFormatter"
    yield "context variable logs.request_id"
    yield "option --skip-checks"
    yield from (f"plan.decisions.{name}" for name, _ in plan().decisions())


def test_the_public_surface_changes_only_on_purpose() -> None:
    assert "\n".join(surface()) + "\n" == SNAPSHOT.read_text()


@pytest.mark.parametrize(
    "start",
    [
        "from django_prodserve.__main__ import main; main([])",
        "from django_prodserve.management.commands.prodserve import Command\n"
        "Command().run_from_argv(['manage.py', 'prodserve'])",
    ],
)
def test_on_windows_one_sentence_names_what_works(start: str) -> None:
    code = (
        "import asyncio, sys, django.core.management.base\n"  # these look at the platform themselves
        "from django.conf import settings; settings.configure()\n"
        "sys.platform = 'win32'\n"
        "for name in ('fcntl', 'pwd', 'grp', 'gunicorn', 'gunicorn.app.base'): sys.modules[name] = None\n"
        f"{start}\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "WSL" in ended.stderr
    assert "container" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
