"""Programs in which sys.executable is no interpreter: they serve without supervisor; the plan says why."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.project import interpreter

from ..facts import plan, project
from .serving import run, serving

pytestmark = pytest.mark.slow

PROGRAM = (
    "import os, sys\n"
    "exec(sys.argv.pop(1))\n"
    "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings'\n"
    "from django.core.management import execute_from_command_line\n"
    "execute_from_command_line(['app', *sys.argv[1:]])\n"
)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("sys.frozen, sys.executable = True, '/bin/true'", "this program is frozen"),
        ("sys.executable = ''", "names no interpreter (sys.executable is empty)"),
        ("sys.executable = None", "names no interpreter (sys.executable is empty)"),
        ("sys.executable = '/nowhere/python'", "/nowhere/python (sys.executable) cannot be executed"),
        ("sys.executable = '/bin/sleep'", "/bin/sleep (sys.executable) does not look like a Python"),
    ],
)
def test_it_serves_without_a_supervisor(env: Any, how: str, why: str) -> None:
    command = ("-c", PROGRAM, how, "prodserve")
    if "None" not in how and "frozen" not in how:  # those two are served
        planned = run(*command, "plan", "supervisor", env=env())
        assert planned.returncode == 0, planned.stderr
        assert planned.stdout.splitlines()[0] == "supervisor: off"
        assert why in " ".join(planned.stdout.split())
        return
    with serving("--workers", "1", "--supervisor", env=env(), command=command) as server:
        assert server.get("/").text == "hello"
        assert len(server.arbiters()) == 1
        assert server.arbiters()[0] == server.process.pid
        ended = run("-m", "django_prodserve", "reload", "--bind", str(server.port), env=env())
        assert ended.returncode == 1
        assert why in ended.stderr


def test_an_interpreter_of_an_odd_name_keeps_where_that_is_asked_for() -> None:
    doubtful = project(no_supervisor="/srv/bin/runtime does not look like one")
    assert plan(project_=doubtful).supervisor.value is False
    assert plan(project_=doubtful, supervisor=True).supervisor.value is True
    certain = project(no_supervisor="this program is frozen", no_supervisor_is_certain=True)
    assert plan(project_=certain, supervisor=True).supervisor.value is False


@pytest.mark.parametrize(
    "name", ["python", "python3.11", "python3.14t", "Python", "pypy3", ".python-wrapped"]
)
def test_names_of_interpreters(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / name))
    assert interpreter.why_no_supervisor() == ("", False)
