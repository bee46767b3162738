"""``prodserve export`` as an operator runs it: the same bytes anywhere, without a secret; files are safe."""

from __future__ import annotations

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
        (["export", "systemd", "--output"], "--output needs a value.", "--output deploy"),
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
