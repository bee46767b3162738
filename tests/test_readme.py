"""The README says what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from django_prodserve import __version__
from django_prodserve.cli.arguments import ACTIONS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def block(name: str) -> str:
    """Return what stands in the README to be copied."""
    return README.partition(f"<!-- {name} line -->\n```sh\n")[2].partition("\n```")[0]


@pytest.mark.parametrize("name", ["serve", "test"])
def test_each_of_the_two_commands_is_one_copyable_line(name: str) -> None:
    assert block(name).count("\n") == 0
    assert block(name).startswith("python -m venv .venv && ")


def test_actions_and_version_are_named() -> None:
    assert all(
        re.search(rf"^prodserve {action} ", README, re.MULTILINE) for action in ACTIONS if action != "serve"
    )
    assert f"prodserve {__version__}" in README
    assert f'version = "{__version__}"' in PYPROJECT


def test_links_are_absolute_and_lead_to_files_of_this_release() -> None:
    """The package index shows the README, where nothing else is beside it."""
    home = re.search(r'^Homepage = "(.*)"$', PYPROJECT, re.MULTILINE)
    assert home is not None
    targets = [
        *re.findall(r"\]\(([^)]+)\)", README),
        *re.findall(r"^\[[\w-]+\]: (.*)$", README, re.MULTILINE),
    ]
    assert len(targets) > 20
    for target in targets:
        assert target.startswith("https://")
        if target.startswith(f"{home.group(1)}/blob/"):
            path = target.removeprefix(f"{home.group(1)}/blob/v{__version__}/")
            assert (ROOT / path).is_file(), target


def test_links_by_name_have_a_target() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    used = re.findall(r"\[([\w-]+)\](?![:(\[])", text)
    assert {*used} == {*re.findall(r"^\[([\w-]+)\]: ", text, re.MULTILINE)}


CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text()


def test_contributing_has_the_readmes_test_line() -> None:
    assert block("test") in CONTRIBUTING.splitlines()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_./]+(?:\.py|/))`", CONTRIBUTING))))
def test_files_and_folders_that_contributing_names_exist(path: str) -> None:
    assert any((base / path).exists() for base in (ROOT, ROOT / "django_prodserve"))


def test_every_folder_stands_in_contributing() -> None:
    folders = {path.name for path in (ROOT / "django_prodserve").iterdir() if (path / "__init__.py").exists()}
    assert {name for name in folders if f"`{name}/`" not in CONTRIBUTING} == set()
