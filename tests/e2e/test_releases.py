"""Releases behind a link, as systemd and supervisor start them: no PWD, and a relative manage.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, copy_site, run, serving

pytestmark = pytest.mark.slow

RELOAD = ("manage.py", "prodserve", "reload")


class App:
    """A directory of releases; the link ``current`` leads to one."""

    def __init__(self, tmp_path: Path, env: Any) -> None:
        self.root = Path(os.path.realpath(tmp_path)) / "app"
        self.current = self.root / "current"
        self.first = self.root / "releases" / "r1"
        self.first.parent.mkdir(parents=True)
        copy_site(tmp_path).rename(self.first)
        self.switch(self.first)
        self.env = env()
        self.env.pop("PWD", None)

    def release(self, name: str) -> Path:
        """Add a release that answers with its name."""
        new = self.first.parent / name
        shutil.copytree(self.first, new, ignore=shutil.ignore_patterns("__pycache__"))
        urls = new / "shop" / "urls.py"
        urls.write_text(urls.read_text().replace('HttpResponse("hello")', f'HttpResponse("{name}")'))
        return new

    def switch(self, release: Path) -> None:
        """Let the link lead there, at once, as ``ln -sfn`` and ``mv -T`` do."""
        unfinished = self.root / "next"
        unfinished.symlink_to(release)
        unfinished.rename(self.current)


@pytest.fixture
def app(tmp_path: Path, env: Any) -> App:
    return App(tmp_path, env)


def test_a_reload_serves_where_the_link_leads_now(app: App) -> None:
    with serving(env=app.env, cwd=app.current) as server:
        assert f"note: reload follows the link {app.current}, which leads here" in server.output
        second = app.release("r2")
        app.switch(second)
        ended = run(*RELOAD, env=app.env, cwd=second)  # what a deploy has at hand: the new release
        assert ended.returncode == 0, ended.stderr
        assert server.get("/").text == "r2"
        shutil.rmtree(app.first)
        ended = run("-m", "django_prodserve", "reload", env=app.env, cwd=app.current)
        assert ended.returncode == 0, ended.stderr
        app.current.unlink()  # nobody typed it, so the server does without it
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("generation 4 serves")
        assert server.get("/").text == "r2"
        app.current.symlink_to(app.root / "releases" / "r9")
        ended = run("-m", "django_prodserve", "reload", env=app.env, cwd=second)
        assert ended.returncode == 1
        assert f"{app.current}, which leads to {app.root}/releases/r9, cannot be entered" in ended.stderr
        assert server.get("/").text == "r2"


@pytest.mark.parametrize("way", ["manage.py", "-m", "GUNICORN_CMD_ARGS"])
def test_chdir_is_followed_from_anywhere(app: App, tmp_path: Path, way: str) -> None:
    command = ("-m", "django_prodserve") if way == "-m" else ("manage.py", "prodserve")
    cwd = tmp_path if way == "-m" else app.current
    flags = ("--chdir", str(app.current))
    extra = {way: " ".join(flags)} if way == "GUNICORN_CMD_ARGS" else {}
    with serving(*([] if extra else flags), env=app.env | extra, cwd=cwd, command=command) as server:
        assert "reload follows" not in server.output
        app.switch(app.release("r2"))
        shutil.rmtree(app.first)
        ended = run("-m", "django_prodserve", "reload", *flags, env=app.env, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert server.get("/").text == "r2"
        status = run("-m", "django_prodserve", "status", env=app.env, cwd=app.current)
        assert status.returncode == 0, status.stderr
        ended = run(*command, "plan", "--chdir", "nowhere", env=app.env, cwd=app.root / "releases" / "r2")
        assert ended.returncode == 2
        assert "--chdir nowhere: it does not exist" in ended.stderr


def test_a_reload_of_the_same_release_behind_a_moved_link_fails_and_says_so(app: App) -> None:
    command = (str(app.first / "manage.py"), "prodserve")  # names one release for ever
    with serving(env=app.env, cwd=app.current, command=command) as server:
        assert run(*RELOAD, env=app.env, cwd=app.current).returncode == 0
        second = app.release("r2")
        app.switch(second)
        complaint = f"{app.current} leads to {second} now, but this reload would serve {app.first} again"
        ended = run(*RELOAD, env=app.env, cwd=app.first)
        assert ended.returncode == 1
        assert complaint in ended.stderr
        server.wait_for("Reload failed")
        server.process.send_signal(signal.SIGHUP)
        assert complaint in server.wait_for("Reload failed")
        assert server.get("/").text == "hello"


def test_without_a_supervisor_the_server_is_found_from_both_releases(app: App) -> None:
    with serving("--no-supervisor", env=app.env, cwd=app.current) as server:
        assert "reload follows" not in server.output
        second = app.release("r2")
        app.switch(second)
        for place in (app.current, second, app.first):
            ended = run("-m", "django_prodserve", "reload", env=app.env, cwd=place)
            assert ended.returncode == 1
            assert "has no supervisor" in ended.stderr


@pytest.mark.parametrize("action", ["serve", "reload", "status"])
def test_a_directory_that_is_gone_is_one_clear_message(app: App, tmp_path: Path, action: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    manage = app.first / "manage.py"
    for command in (f"-m django_prodserve {action}", f"{manage} prodserve {action}"):
        ended = subprocess.run(
            ["sh", "-c", f"mkdir -p {gone}; cd {gone}; rmdir {gone}; exec {sys.executable} {command}"],
            env=app.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 1
        assert f"The directory that this command was started in is gone: {gone}" in ended.stderr
        assert "Traceback" not in ended.stderr
