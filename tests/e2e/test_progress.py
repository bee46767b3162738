"""A start that takes its time says what it does: over and over on a terminal, line by line elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, copy_site, run, serving

pytestmark = pytest.mark.slow

COMMAND = ("manage.py", "prodserve")
SLOW_TO_LOAD = """
import time
time.sleep(2.2)
def dawdle(request):
    time.sleep(1.2)
    return HttpResponse("at last")
urlpatterns = [path("", dawdle), *urlpatterns[1:]]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a project that takes seconds to load, to warm up and to collect."""
    site = copy_site(tmp_path, SLOW_TO_LOAD)
    (site / "assets").mkdir()
    noise = os.urandom(150_000).hex()
    for number in range(40):
        (site / "assets" / f"{number}.js").write_text(f"// {number}\n{noise}")
    return site


def settings(site: Path, tmp_path: Path) -> dict[str, Any]:
    extra = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PRODSERVE_LOG_FORMAT": "auto", "TERM": "xterm"}
    return {"extra": extra, "STATICFILES_DIRS": [str(site / "assets")]}


def test_off_a_terminal_each_step_has_a_line(env: Any, tmp_path: Path, site: Path) -> None:
    how = settings(site, tmp_path)
    flags = ("--workers", "1", "--warmup", "/", "--bind", "127.0.0.1:0")
    ended = run(*COMMAND, "check", *flags, env=env(**how), cwd=site)
    assert ended.returncode == 0, ended.stderr
    for title in ("checking the project", "sending the warm-up request /"):
        assert re.search(rf"^{title} \([12] s\)$", ended.stdout, re.MULTILINE), ended.stdout
    assert "\x1b" not in ended.stdout
    with serving(
        *flags[:-2],
        env=env(**{**how, "extra": {**how["extra"], "PRODSERVE_LOG_FORMAT": "json"}}),
        cwd=site,
        address="unknown",
    ) as server:
        server.wait_for(" ready in ")
        assert server.stop() == 0
    messages = [json.loads(line).get("message", "") for line in server.output.splitlines()]
    assert any(message.startswith("checking the project (") for message in messages)


@pytest.mark.parametrize("number", [1, 2])
def test_workers_that_load_the_project_themselves_say_how_many_have(
    env: Any, site: Path, number: int
) -> None:
    """And the address is printed when they answer, not before."""
    flags = ("--workers", str(number), "--no-preload", "--warmup", "off")
    with serving(*flags, env=env(), cwd=site) as server:
        said = server.output
        assert re.search(
            rf"^loading the project in the workers: [01]/{number} \([12] s\)$", said, re.MULTILINE
        )
        assert said.index("in the workers: ") < said.index(" ready in ")
        assert len(server.workers()) == number


def on_a_terminal(command: list[str], cwd: Path, environ: dict[str, str], until: bytes) -> str:
    """Run a command on a terminal of 60 columns until it has said something; stop it; return all it said."""
    ours, theirs = os.openpty()
    subprocess.run(["stty", "cols", "60"], stdin=theirs, check=True)
    process = subprocess.Popen(command, cwd=cwd, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while until not in said:
            said += os.read(ours, 4096)
        process.terminate()
        while part := _read(ours):
            said += part
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(ours)
    return said.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # nobody has the other end any more
        return b""


def test_on_a_terminal_progress_is_written_over(env: Any, tmp_path: Path, site: Path) -> None:
    command = [sys.executable, *COMMAND, "--workers", "1", "--warmup", "/", "--bind", "127.0.0.1:0"]
    said = on_a_terminal(command, site, env(**settings(site, tmp_path)), b" ready in ")
    assert re.search(r"(collecting|hashing|compressing) static files: \d+/\d+ \.\.\. \d s\r+\x1b\[K", said), (
        said
    )
    assert re.search(r"checking the project \.\.\. 1 s\r+\x1b\[K", said), said
    assert re.search(r"sending the warm-up request / \.\.\. 1 s\r+\x1b\[K", said), said
    assert re.search(r"ready in \d+\.\d s  Ctrl-C stops it\r\n", said), said
    assert re.search(r"\[INFO\] Stopping: no requests running, at most 25 s\.\r\n", said), said
    assert re.search(r"\[INFO\] Stopped after \d\.\d s\.\r\n", said), said
    for line in said.split("\r\n"):  # nothing of a step is left in what can be read
        assert " ... " not in line.rpartition("\x1b[K")[2], line
