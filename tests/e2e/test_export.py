"""``prodserve export`` as an operator runs it: the same bytes anywhere, without a secret; files are safe."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.export.kinds import KINDS

from .serving import complaints, copy_site, run

SECRETS = {"SECRET_KEY": "key-4711", "DATABASE_PASSWORD": "password-4711"}
ELSEWHERE = {
    "PORT": "4711",
    "DYNO": "web.1",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "WEB_CONCURRENCY": "7",
    "FORWARDED_ALLOW_IPS": "*",
    "INVOCATION_ID": "4711",
}


def export(*words: str, env: Any, cwd: Path) -> str:
    ended = run("manage.py", "prodserve", "export", *words, env=env, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_all_kinds_are_the_same_anywhere_and_hold_no_secret(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    (site / "requirements.txt").write_text("django-prodserve\n")
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "PASSWORD": "password-4711"}
    settings = {"DATABASES": {"default": database}, "SECRET_KEY": "key-4711"}
    text = export(*KINDS, env=env(**settings), cwd=site)
    assert export(*KINDS, env=env({**SECRETS, **ELSEWHERE}, **settings), cwd=site) == text
    assert "4711" not in text
    assert f"/{site.name}\n" in text


def test_output_writes_files_and_replaces_none(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    words = ["systemd-socket", "--output", "deploy"]
    assert export(*words, env=env(), cwd=site) == (
        "deploy/shop.service written\ndeploy/shop.socket written\n"
    )
    assert "deploy/shop.service is up to date" in export(*words, env=env(), cwd=site)
    (site / "deploy" / "shop.service").write_text("edited")
    ended = run("manage.py", "prodserve", "export", *words, env=env(), cwd=site)
    assert ended.returncode == 1
    assert complaints(ended) == [
        "prodserve: error: deploy/shop.service exists, and differs from what export writes.",
        "  Fix:  To replace it: --force. To compare: prodserve export WHAT | diff FILE -",
    ]
    assert "deploy/shop.service written" in export(*words, "--force", env=env(), cwd=site)


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["export"], "export needs the kind of file.", "For example: prodserve export systemd."),
        (["export", "sistemd"], "There is no export 'sistemd'.", "Did you mean systemd?"),
        (["export", "systemd", "--force"], "--force works with --output.", "--output DIR --force"),
        (["export", "systemd", "--output"], "--output needs a value.", "--output DIR"),
        (["export", "systemd", "--local"], "--local tries a project on this machine", "Remove --local."),
        (
            ["plan", "--output", "x"],
            "--output works with export, not with plan.",
            "prodserve export --output",
        ),
        (["export", "systemd", "--timeout", "soon"], "--timeout is 'soon'", "--timeout 30s"),
    ],
)
def test_a_wrong_line_is_one_message(env: Any, words: list[str], message: str, fix: str) -> None:
    ended = run("manage.py", "prodserve", *words, env=env())
    assert ended.returncode == 2
    error, hint = complaints(ended)
    assert message in error
    assert fix in hint
    assert ended.stdout == ""


def test_a_variable_that_is_no_option_is_refused_as_in_a_start(env: Any) -> None:
    ended = run("manage.py", "prodserve", "export", "nginx", env=env({"PRODSERVE_TIMOUT": "60"}))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaints(ended) == [
        "prodserve: error: Unknown variable PRODSERVE_TIMOUT.",
        "  Fix:  Did you mean PRODSERVE_TIMEOUT?",
    ]


def test_what_is_left_out_is_told(env: Any) -> None:
    ended = run(*["manage.py", "prodserve", "export", "nginx"], env=env({"GUNICORN_CMD_ARGS": "--timeout 7"}))
    assert ended.returncode == 0
    assert complaints(ended) == [
        "warning: GUNICORN_CMD_ARGS of this shell is in no file: it describes this machine.",
        '  Fix:  Use PRODSERVE["GUNICORN"] in the settings, or set GUNICORN_CMD_ARGS for the server',
    ]
    assert ended.stdout == run("manage.py", "prodserve", "export", "nginx", env=env()).stdout


SETTINGS = """
import os, pathlib
SECRET_KEY = os.environ["SHOP_SECRET"]
WORDS = int(os.environ["SHOP_WORDS"])
ALLOWED_HOSTS = os.environ.get("HOSTS", "shop.example").split(",")
INSTALLED_APPS = ["django.contrib.staticfiles", "django.contrib.admin", "django.contrib.auth",
                  "django.contrib.contenttypes", "django.contrib.messages", "django_prodserve"]
BASE_DIR = pathlib.Path(__file__).parent
STATIC_URL, STATIC_ROOT = "/static/", BASE_DIR / "collected"
"""


def test_the_build_line_collects_with_nothing_but_its_own_variables(env: Any, tmp_path: Path) -> None:
    (tmp_path / "shop_settings.py").write_text(SETTINGS)
    environ = env({"DJANGO_SETTINGS_MODULE": "shop_settings", "SHOP_SECRET": "key-4711", "SHOP_WORDS": "5"})
    words = ["-m", "django_prodserve", "export", "dockerfile"]
    ended = run(*words, env=environ, cwd=tmp_path)
    assert ended.returncode == 1
    assert "has no uv.lock, poetry.lock or requirements.txt" in complaints(ended)[0]
    (tmp_path / "requirements.txt").write_text("django-prodserve\n")
    ended = run(*words, env=environ, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "4711" not in ended.stdout
    assert "#   - variables that the settings require: SHOP_SECRET, SHOP_WORDS\n" in ended.stdout
    (line,) = re.findall(r"^RUN (.*\\\n.*collectstatic --no-input)", ended.stdout, re.MULTILINE)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    line = line.replace("python -m", "PYTHONPATH=. python -m")
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, env={"PATH": path}, check=True, capture_output=True)
    assert (tmp_path / "collected" / "admin" / "css" / "base.css").exists()


def test_check_finds_what_was_edited(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    unit = site / "shop.service"
    unit.write_text(export("systemd", "--graceful-timeout", "40", env=env(), cwd=site))
    words = ("export", "--check", "shop.service")
    assert export(*words[1:], env=env(), cwd=site) == "shop.service: its numbers agree with the plan\n"
    unit.write_text(unit.read_text().replace("--graceful-timeout=40", "--graceful-timeout=60"))
    ended = run("manage.py", "prodserve", *words, env=env(), cwd=site)
    assert ended.returncode == 1
    assert complaints(ended) == [
        "prodserve: error: shop.service: TimeoutStopSec 45 ends before the server: drain 0 s + graceful "
        "timeout 60 s.",
        "  Fix:  Set it to 65, or lower --graceful-timeout",
    ]
    assert ended.stdout == ""
    (site / "notes").write_text("hello")
    for name, message in {
        "notes": "notes shows no kind of file.",
        "gone": "gone cannot be read: No such",
    }.items():
        ended = run("manage.py", "prodserve", "export", "--check", name, env=env(), cwd=site)
        assert ended.returncode in (1, 2)
        assert message in complaints(ended)[0]
