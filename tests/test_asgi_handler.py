"""Our ASGI handler answers as Django's does, and what happens inside it.

One process with the settings of another project runs all of it, so this is one test with many parts.
"""

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


def run(directory: Path) -> dict[str, Any]:
    """Run the project's requests and scenes; return what came of each."""
    environ = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.asgi.settings",
        "ASGI_TESTS_DATABASE": str(directory / "db.sqlite3"),
    }
    path = directory / "results.json"
    command = [sys.executable, "-m", "tests.asgi", str(path)]
    root = PROJECT.parent.parent
    ended = subprocess.run(command, env=environ, cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "ResourceWarning" not in ended.stderr, ended.stderr
    assert "never retrieved" not in ended.stderr, ended.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def written(file: str, pattern: str) -> int:
    """Return how often a line of this form is in a module of the project."""
    return len(re.findall(pattern, (PROJECT / file).read_text(), re.MULTILINE))


STATUSES = {200, 204, 301, 302, 304, 400, 403, 404, 405, 410, 418, 500, 503}


def test_answers_and_scenes(tmp_path: Path, subtests: pytest.Subtests) -> None:
    results = run(tmp_path)
    threads, parity, scenes = results["threads"], results["parity"], results["scenes"]
    assert threads == {"busy": 0, "waiting": 0, "ended": True}
    assert len(scenes) == sum(written(path.name, "^@scene$") for path in PROJECT.glob("scenes_*.py")) > 30
    assert (
        len(parity) >= written("parity.py", r'^    "[^"]+": (case|post)\(') - 1 > 80
    )  # one is for new Djangos
    # A table of equal errors would prove nothing.
    assert {answer["status"] for ways in parity.values() for answer in ways["stock"]} == STATUSES
    assert sum(all(answer["status"] == 200 for answer in ways["stock"]) for ways in parity.values()) > 40
    for name, ways in parity.items():
        with subtests.test(name):
            stock = ways.pop("stock")
            for ours in ways.values():
                if (
                    name == "broken sync stream"
                ):  # Django reads all of it first; our client gets what there was
                    assert ours[0].pop("body").startswith("part 0\npart 1\n")
                    assert stock[0].pop("body", "") == ""
                assert ours == stock
    for name, error in scenes.items():
        with subtests.test(name):
            assert not error, error
