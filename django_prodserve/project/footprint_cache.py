"""The last measurement of a project, kept from one start to the next while its code stays the same.

The plan reads it before the project is loaded; the command writes it after loading. It is one small file for
each project in a private directory. The code is the same if all of these are unchanged:

- the content of INSTALLED_APPS and MIDDLEWARE, and the way to load;
- the modification time of every directory that packages are installed in;
- modification time and size of every other module that was loaded at the measurement.

That is one stat() for each directory and module: 1 to 5 ms for a large project.
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
STALE = 30 * 86400.0  # seconds; each release directory of a project counts as another project here


def load(way: Sequence[object]) -> Footprint | None:
    """Return the last measurement of this code, loaded this ``way``; None if none matches."""
    for base in bases():
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if not (is_ours(base) and is_ours(base / FOLDER)):
                continue
            kept = json.loads(_file(base).read_text())
            if kept["code"] == code(kept["modules"], way):
                return Footprint(**kept["footprint"])
    return None


def store(found: Footprint, way: Sequence[object]) -> bool:
    """Write a measurement of the modules that are loaded now; False if no directory can be written."""
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
    """Write a file so that readers never see it half written."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _prune(folder: Path) -> None:
    """Remove the files of projects that no longer exist."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another server prunes at the same moment
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
