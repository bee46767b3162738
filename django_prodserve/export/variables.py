"""Find the variables that settings require, by trying. Runs in the command, and loads settings in processes.

Each try starts with an empty environment and without .env files, as the build of an image does. A try that
fails names the variable that was read last and is absent. The next try has a substitute for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_TRIES = 20
PATIENCE = 60  # seconds for one try; an import of a large project takes ten

PROBE = """
import builtins, io, json, os, pathlib, sys

reads = []
record = reads.append
stat, opened = os.stat, io.open


class Recording(type(os.environ)):
    def __getitem__(self, name):
        record(name)
        return super().__getitem__(name)


def hides(path):
    name = os.path.basename(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
    return name == ".env" or name.startswith(".env.")


def hiding(function):
    def hidden(path, *args, **more):
        if hides(path):
            raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
        return function(path, *args, **more)

    return hidden


has_configuration = "DJANGO_CONFIGURATION" in os.environ
os.environ.__class__ = Recording
os.stat, io.open = hiding(stat), hiding(opened)
builtins.open = io.open
if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10 keeps the functions of its import
    accessor.stat, accessor.open = staticmethod(os.stat), staticmethod(io.open)
sys.path.insert(0, os.getcwd())
error = ""
try:
    if has_configuration:
        import configurations

        configurations.setup()
    import django
    from django.conf import settings

    django.setup()
    settings.SECRET_KEY
except BaseException as raised:
    error = f"{type(raised).__name__}: {raised}"
reads = list(reads)
absent = [name for name in set(reads) if name not in os.environ]
print("\\n" + json.dumps({"reads": reads, "absent": absent, "error": error}))
"""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Variables without which settings cannot be loaded, each with a substitute; an error that remains."""

    substitutes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def find_required(directory: Path, settings: Mapping[str, str]) -> Tried:
    """Try until settings can be loaded, or until no variable explains the error."""
    found: dict[str, str] = {}
    values: dict[str, Iterator[str]] = {}
    error = ""
    for _ in range(MOST_TRIES):
        result = _try(directory, {**settings, **found})
        if not (error := result["error"]):
            return Tried(substitutes=dict(sorted(found.items())))
        name = _culprit([name for name in result["reads"] if name in {*found, *result["absent"]}], error)
        value = next(values.setdefault(name, substitutes(name)), "") if name else ""
        if not value:
            break
        found[name] = value
    return Tried(error=" ".join(error.split())[:200])


def _culprit(reads: list[str], error: str) -> str:
    """Return the variable that an error is about: one that it names, or the one that was read last."""
    own = [name for name in reads if not name.startswith(("_", "PYTHON", "LC_", "DJANGO_SETTINGS"))]
    named = [name for name in own if name in error or ("SECRET_KEY" in error and "SECRET" in name)]
    return next(reversed(named or own), "")


def substitutes(name: str) -> Iterator[str]:
    """Yield values to try for a variable, the likeliest first."""
    plain, number = "only-for-the-build", "1"
    database, broker = "sqlite:////tmp/only-for-the-build.sqlite3", "redis://localhost:6379/0"
    words = set(name.upper().split("_"))
    if words & {"REDIS", "BROKER", "CACHE", "CELERY"}:
        yield broker
    if words & {"URL", "DSN", "DATABASE", "DB"}:
        yield database
    if words & {"PORT", "TIMEOUT", "AGE", "COUNT", "SIZE", "DEBUG", "ENABLED", "USE"}:
        yield number
    yield from (plain, number, "localhost", database, broker, "https://localhost", "{}")


def _try(directory: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Load the settings in a new process; return the absent variables that it read, and its error."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
    ended = None
    with suppress(OSError, subprocess.TimeoutExpired):
        ended = subprocess.run(
            [sys.executable, "-c", PROBE],
            cwd=directory,
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
    with suppress(ValueError, IndexError, AttributeError):
        result = json.loads(ended.stdout.decode().strip().split("\n")[-1])  # type: ignore[union-attr]
        if isinstance(result, dict):
            return result
    return {"reads": [], "absent": [], "error": "the settings end the process that loads them"}
