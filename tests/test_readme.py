"""The README says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from django_prodserve import __version__
from django_prodserve.cli.arguments import ACTIONS
from django_prodserve.config.options import option_fields
from django_prodserve.machine.platforms import RULES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def options_table() -> str:
    """Return the reference as it must stand in the README."""
    lines = ["| Flag | Default | What it does |", "| --- | --- | --- |"]
    for row in option_fields():
        lines.append(f"| `{row.flag}` | {row.default_text} | {row.help.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def test_the_options_reference_is_what_the_code_says() -> None:
    found = README.partition("<!-- options -->\n")[2].partition("<!-- /options -->")[0].strip()
    assert found == options_table(), f"The table should be:\n{options_table()}"


def block(name: str) -> str:
    """Return what stands in the README to be copied."""
    return README.partition(f"<!-- {name} line -->\n```sh\n")[2].partition("\n```")[0]


@pytest.mark.parametrize("name", ["serve", "test"])
def test_each_of_the_two_commands_is_one_copyable_line(name: str) -> None:
    assert block(name).count("\n") == 0
    assert block(name).startswith("python -m venv .venv && ")


def test_actions_platforms_and_version_are_named() -> None:
    assert all(re.search(rf"^  {action} ", README, re.MULTILINE) for action in ACTIONS)
    assert all(rule.name in README for rule in RULES)
    assert f"django-prodserve {__version__}," in README
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text()


def test_contributing_has_the_readmes_test_line() -> None:
    assert block("test") in CONTRIBUTING.splitlines()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_./]+(?:\.py|/))`", CONTRIBUTING))))
def test_files_and_folders_that_contributing_names_exist(path: str) -> None:
    assert any((base / path).exists() for base in (ROOT, ROOT / "django_prodserve"))


def test_every_folder_stands_in_contributing() -> None:
    folders = {path.name for path in (ROOT / "django_prodserve").iterdir() if (path / "__init__.py").exists()}
    assert {name for name in folders if f"`{name}/`" not in CONTRIBUTING} == set()
