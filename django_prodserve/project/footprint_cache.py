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
from collections.abc import Sequence
from dataclasses import asdict

from django.conf import settings

from .. import __version__
from ..utils import private_files
from ..utils.private_directory import project_key
from ..utils.tracebacks import is_own
from .footprint import Footprint

FOLDER = "footprints"


def load(way: Sequence[object]) -> Footprint | None:
    """Return the last measurement of this code, loaded this ``way``; None if none matches."""
    for _, text in private_files.found(FOLDER, _name()):
        with contextlib.suppress(ValueError, LookupError, TypeError):
            kept = json.loads(text)
            if kept["code"] == code(kept["modules"], way):
                return Footprint(**kept["footprint"])
    return None


def store(found: Footprint, way: Sequence[object]) -> bool:
    """Write a measurement of the modules that are loaded now; False if no directory can be written."""
    modules = own_modules()
    kept = {"code": code(modules, way), "footprint": asdict(found), "modules": modules}
    try:
        private_files.write(FOLDER, _name(), json.dumps(kept))
    except OSError:
        return False
    return True


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


def _name() -> str:
    return f"{project_key()}.json"
