"""PID 1 of a container: no default action for signals, and strangers' children to bury."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from .needs import need_program
from .serving import PATIENCE, Server, copy_site, until
from .test_reload import edit


@pytest.fixture
def contained() -> list[str]:
    """Return the words in front of a command that make it PID 1; skip where this user may not do that."""
    command = [need_program("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        command.insert(1, "--map-root-user")
        if subprocess.run([*command, "true"], capture_output=True).returncode:
            pytest.skip("this user may not make PID namespaces")
    return command


@contextmanager
def pid_one(
    command: list[str], site: Path, environ: dict[str, str]
) -> Iterator[tuple[Server, psutil.Process]]:
    """Start a server as PID 1; yield it and the process as it is seen from outside."""
    words = [*command, sys.executable, "manage.py", "prodserve", "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        words, cwd=site, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    server = Server(process)
    try:
        until(lambda: bool(psutil.Process(process.pid).children()))
        yield server, psutil.Process(process.pid).children()[0]
    finally:
        process.kill()
        process.wait()
        server._reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def test_a_signal_is_heard_from_our_first_import_on(env: Any, tmp_path: Path, contained: list[str]) -> None:
    site, gate = copy_site(tmp_path), tmp_path / "gate"
    os.mkfifo(gate)
    (site / "shop" / "late.py").write_text(f"open({str(gate)!r}).read()\n")
    edit(
        site / "shop" / "settings.py",
        "INSTALLED_APPS = [",
        'INSTALLED_APPS = ["django_prodserve", "shop.late",',
    )
    edit(site / "shop" / "settings.py", '    "django_prodserve",\n]', "]")
    with (
        pid_one(contained, site, env()) as (server, first),
        gate.open("w"),
    ):  # opens in the middle of the import
        first.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 128 + signal.SIGTERM
        server._reader.join(PATIENCE)
        assert "Traceback" not in server.output


def test_it_reloads_buries_strangers_and_stops(env: Any, tmp_path: Path, contained: list[str]) -> None:
    site = copy_site(tmp_path)
    leave = "__import__('subprocess').run(['sh', '-c', 'sleep 0.2 &']) and 'left one behind'"
    edit(site / "shop" / "urls.py", 'HttpResponse("hello")', f"HttpResponse({leave})")
    with pid_one(contained, site, env()) as (server, first):
        server.address = server.wait_for(" ready in ").split()[0]
        assert server.get("/").text == "left one behind"
        until(lambda: "sleep" in [child.name() for child in first.children()])
        until(lambda: len(first.children()) == 1)
        first.send_signal(signal.SIGHUP)
        server.wait_for("generation 2 serves")
        until(lambda: len(first.children()) == 1)
        assert server.get("/").status == 200
        first.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
