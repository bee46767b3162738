"""Our ASGI handler answers as Django's does, and what happens inside it. One process runs all of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parent / "asgi"


def _names(file: str, pattern: str) -> list[str]:
    """Return what a module of the project defines; it cannot be imported with these settings."""
    return re.findall(pattern, (PROJECT / file).read_text(), re.MULTILINE)


CASES = _names("parity.py", r'^    "([^"]+)": (?:case|post)\(')
SCENES = _names("scenes.py", r"^@scene\nasync def (\w+)")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the project's requests and scenes; return what came of each."""
    directory = tmp_path_factory.mktemp("asgi")
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.asgi.settings",
        "ASGI_TESTS_DATABASE": str(directory / "db.sqlite3"),
    }
    path = directory / "results.json"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.asgi", str(path)],
        env=environ,
        cwd=PROJECT.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_all_of_it_ran(results: dict[str, Any]) -> None:
    assert set(results["parity"]) | {"CSP"} == set(CASES) | {"CSP", "threads"}
    assert set(results["scenes"]) == set(SCENES)
    assert results["parity"]["threads"] == {"busy": 0, "waiting": 0, "ended": True}


@pytest.mark.parametrize("way", ["messages", "direct"])
@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_djangos(name: str, way: str, results: dict[str, Any]) -> None:
    """Status, headers in their order, body, log, and how it ends."""
    if name not in results["parity"]:
        pytest.skip("this Django has no such middleware")
    stock, ours = results["parity"][name]["stock"], results["parity"][name][way]
    if name == "broken sync stream":  # Django reads all of it first; here the client gets what there was
        assert ours[0].pop("body").startswith("part 0\npart 1\n")
        assert stock[0]["body"] == ""
        stock = [{key: value for key, value in stock[0].items() if key != "body"}]
    assert ours == stock


def test_the_cases_are_what_they_claim(results: dict[str, Any]) -> None:
    """A table of equal errors would prove nothing."""
    answers = {name: results["parity"][name]["stock"] for name in CASES if name in results["parity"]}
    statuses = {each["status"] for seen in answers.values() for each in seen}
    assert statuses == {200, 204, 301, 302, 304, 400, 403, 404, 405, 410, 418, 500, 503}
    fine = [name for name, seen in answers.items() if all(each["status"] == 200 for each in seen)]
    assert len(fine) > 40
    assert any("PermissionDenied" in line or "Forbidden" in line for line in answers["raised 403"][0]["log"])


@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, results: dict[str, Any]) -> None:
    assert results["scenes"][name] == "", results["scenes"][name]
