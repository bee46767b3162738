"""What the README's first screen says is pasted on a fresh project, word by word, and serves."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import Server, environment

pytestmark = pytest.mark.slow

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = README.partition("## Quickstart\n")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    """Return what the quickstart gives to be copied."""
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@contextlib.contextmanager
def pasted(block: str, cwd: Path, env: dict[str, str]) -> Iterator[Server]:
    """Run a block in a shell; its last line serves. What pip would install is installed."""
    *lines, serves = [line for line in block.splitlines() if not line.startswith("pip install ")]
    assert serves.startswith("prodserve")
    script = "\n".join(["set -e", *lines, f"exec {serves}"])
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    server = Server(process)
    try:
        server.address = server.wait_for(" ready in ").split()[0]
        yield server
        assert server.stop(signal.SIGINT) == 0, server.output
    finally:
        process.kill()
        process.communicate()


def test_the_quickstart_works_as_it_is_printed(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in {"prodserve": "django_prodserve", "django-admin": "django"}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (commands / name).chmod(0o755)
    (commands / "python").symlink_to(sys.executable)
    env = environment(tmp_path, {"PRODSERVE_BIND": "127.0.0.1:0"})
    env["PATH"] = f"{commands}:{env['PATH']}"
    first, second = blocks("sh")
    (settings,) = blocks("python")

    with pasted(first, tmp_path, env) as server:
        assert server.get("/admin/").status == 302
        assert server.get("/admin/login/").status == 200
        assert server.get("/static/admin/css/base.css").status == 200
        for line in settings.splitlines():
            if line.startswith(("DEBUG", "SECRET_KEY")):
                assert line in server.output, "it prints what production needs as the README has it"

    path = tmp_path / "mysite" / "mysite" / "settings.py"
    path.write_text(path.read_text() + settings)
    with pasted(second, tmp_path / "mysite", env) as server:
        assert server.get("/readyz").status == 200
        assert server.get("/admin/login/").status == 200
        assert server.get("/", headers={"Host": "shop.example"}).status == 404
        assert server.get("/", headers={"Host": "evil.example"}).status == 400
        assert "applying sessions.0001_initial" in server.output
