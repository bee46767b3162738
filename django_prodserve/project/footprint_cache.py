"""The last measurement of a project, kept from one start to the next for as long as its code is the same.

Read by the plan, before anything is loaded; written after loading. One small file for each project in a
private directory. The same code is: the same content of INSTALLED_APPS and MIDDLEWARE, the same way to load,
no change of date of any directory that packages are installed in, nor of date or size of any other module
that was loaded when it was measured. That is one stat() for each of these: 1 to 5 ms for a large project.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from django.conf import settings

from .. import __version__
from ..utils.private_directory import PRIVATE, bases, is_ours, make_project, project_key
from ..utils.tracebacks import is_own
from .footprint import Footprint

FOLDER = "footprints"
STALE = 30 * 86400.0  # seconds; each release directory of a project is another project here


def load(way: Sequence[object]) -> Footprint | None:
    """Return what was measured last for this code, loaded this ``way``; None where nothing fits."""
    for base in bases():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if not (is_ours(base) and is_ours(base / FOLDER)):
                continue
            kept = json.loads(_file(base).read_text())
            if kept["code"] == code(kept["modules"], way):
                return Footprint(**kept["footprint"])
    return None


def store(found: Footprint, way: Sequence[object]) -> bool:
    """Write a measurement of the modules that are loaded now; False where no directory can be written."""
    modules = own_modules()
    kept = {"code": code(modules, way), "footprint": asdict(found), "modules": modules}
    for base in bases():
        with contextlib.suppress(OSError):
            folder = make_project(base, base / FOLDER, mode=PRIVATE)
            _write(_file(base), json.dumps(kept))
            _prune(folder)
            return True
    return False


def code(modules: Sequence[str], way: Sequence[object]) -> str:
    """Return a text that changes with the code."""
    installed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    facts = [
        *(__version__, sys.version, settings.INSTALLED_APPS, settings.MIDDLEWARE, way),
        *(_facts(path) for path in (*installed, *modules)),
    ]
    return hashlib.blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def own_modules() -> list[str]:
    """Return the files of loaded modules that no installer put there."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return sorted(file for file in files if isinstance(file, str) and is_own(file))


def _facts(path: str) -> tuple[str, int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return path, facts.st_mtime_ns, 0 if os.path.isdir(path) else facts.st_size


def _file(base: Path) -> Path:
    return base / FOLDER / f"{project_key()}.json"


def _write(path: Path, text: str) -> None:
    """Write a file that is never seen half done."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _prune(folder: Path) -> None:
    """Remove what projects left that are no longer there."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another server prunes at the same moment
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
