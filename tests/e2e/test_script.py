"""The ``prodserve`` script: the same command as ``python -m django_prodserve``, from serving to stopping."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .serving import PATIENCE, copy_site, run, serving

SCRIPT = (str(Path(sys.executable).parent / "prodserve"),)


def test_a_server_is_started_found_reloaded_and_stopped(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "1", env=env(), cwd=site, command=SCRIPT) as server:
        assert server.get("/").text == "hello"
        assert len(server.arbiters()) == 1
        reloaded = run(*SCRIPT, "reload", env=env(), cwd=site)
        assert "generation 2 serves" in reloaded.stdout, reloaded.stderr
        for command in (SCRIPT, ("-m", "django_prodserve"), ("manage.py", "prodserve")):
            status = run(*command, "status", "--json", env=env(), cwd=site)
            assert json.loads(status.stdout)["pid"] == server.process.pid, status.stderr
        taken = run(*SCRIPT, "--bind", f"127.0.0.1:{server.port}", env=env(), cwd=site)
        assert f"this project's server (pid {server.process.pid})." in taken.stderr
        assert taken.returncode == 1
        stopped = run(*SCRIPT, "stop", env=env(), cwd=site)
        assert stopped.returncode == 0, stopped.stderr
        assert server.process.wait(PATIENCE) == 0


def test_modules_of_the_working_directory_come_first(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "urls.py").write_text("import sys\nraise RuntimeError(sys.path[:2])\n")
    environ = {name: value for name, value in env().items() if name != "PYTHONPATH"}
    found = [
        run(*command, "check", env=environ, cwd=site) for command in (SCRIPT, ("-m", "django_prodserve"))
    ]
    assert f"RuntimeError: ['{site}', '{site}']" in found[0].stderr
    assert found[0].stderr == found[1].stderr


def test_help_needs_neither_project_nor_django(env: Any, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from django_prodserve.__main__ import main\n"
        "try: main(['help', 'workers'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'django', 'gunicorn', 'psutil'} & set(sys.modules), sys.modules.keys()\n"
    )
    ended = run("-c", code, env=env(), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "PRODSERVE_WORKERS" in ended.stdout


def test_a_reader_that_has_gone_ends_it_quietly(env: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, *SCRIPT, "help"],
        cwd=tmp_path,
        env=env(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_what_djangos_checks_find_is_an_object_each(env: Any) -> None:
    site = env({"PRODSERVE_LOG_FORMAT": "json"}, MIDDLEWARE=[], STATICFILES_DIRS=["/nowhere"])
    ended = run(*SCRIPT, "--bind", "127.0.0.1:0", env=site)
    found = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert {line["level"] for line in found} == {"error"}
    assert {"admin.E408", "admin.E409", "admin.E410"} <= {line["code"] for line in found}
    assert all(line["message"] and f"({line['code']})" not in line["message"] for line in found)
    started = [json.loads(line) for line in ended.stdout.splitlines()]
    (workers,) = [line for line in started if line.get("part") == "workers"]  # progress may come before it
    assert {"event": "start", "part": "workers", "threads": 16}.items() <= workers.items()
