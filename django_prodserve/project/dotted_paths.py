"""Settings that name a missing module or object. Runs in the command, before anything is loaded.

Imports nothing: it searches for files, and for names in their text. It skips paths that this cannot decide:
loading the project reports them.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

_DEFINED = re.compile(r"^(?:class|def|async def)\s+(\w+)|^(\w+)\s*[:=]", re.MULTILINE)

_DYNAMIC = r"import \*|__getattr__|globals\(|sys\.modules"
"""Ways in which a module may define names that its text does not show."""


class BrokenPath(NamedTuple):
    """A setting whose value, or a part of it, names nothing."""

    setting: str
    path: str
    problem: str
    """The missing part: ``there is no module mysite.url``."""
    guess: str
    """The path that was probably meant; empty without a guess."""


def broken_paths(readiness_checks: Iterable[str] = ()) -> Iterator[BrokenPath]:
    """Yield the paths that name nothing, in Django's settings and among the readiness checks."""
    urlconf = getattr(settings, "ROOT_URLCONF", None)
    if isinstance(urlconf, str) and (found := _missing_module(urlconf)):
        yield BrokenPath("ROOT_URLCONF", urlconf, *found)
    for name, values in (
        ("WSGI_APPLICATION", [getattr(settings, "WSGI_APPLICATION", None)]),
        ("ASGI_APPLICATION", [getattr(settings, "ASGI_APPLICATION", None)]),
        ("MIDDLEWARE", settings.MIDDLEWARE),
        ("TEMPLATES", [*_context_processors()]),
    ):
        for path in values:
            if isinstance(path, str) and (found := _missing_object(path)):
                yield BrokenPath(name, path, *found)
    for path in readiness_checks:
        if path != "database" and (found := _missing_object(path)):
            yield BrokenPath("READINESS_CHECKS", path, *found)


def _context_processors() -> Iterator[str]:
    """Yield the context processors of every template engine: the first page imports them."""
    for engine in settings.TEMPLATES:
        options = engine.get("OPTIONS") if isinstance(engine, dict) else None
        found = options.get("context_processors") if isinstance(options, dict) else None
        yield from found if isinstance(found, (list, tuple)) else ()


def _missing_object(path: str) -> tuple[str, str] | None:
    """Return the missing part of ``module.object``, and a guess at the intended path."""
    module, _, name = path.rpartition(".")
    if not module:
        return "it has no dot: a module and an object in it are needed", ""
    if found := _missing_module(module):
        problem, guess = found
        return problem, f"{guess}.{name}" if guess else ""
    if module in sys.modules:
        loaded = sys.modules[module]
        if hasattr(loaded, name) or hasattr(loaded, "__getattr__"):
            return None
        names = [*vars(loaded)]
    else:
        text = _source(_find(module))
        if text is None or re.search(rf"\b{re.escape(name)}\b|{_DYNAMIC}", text):
            return None
        names = [first or second for first, second in _DEFINED.findall(text)]
        if not names or not _is_python(text):  # loading it reports the error
            return None
    return f"the module {module} has no {name}", _guess(module, name, names)


def _missing_module(path: str) -> tuple[str, str] | None:
    """Return the missing part of a module's path, and a guess at the intended path."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        name, parent = ".".join(parts[:end]), ".".join(parts[: end - 1])
        if name in sys.modules or _find(name) is not None:
            continue
        if parent and parent not in sys.modules and "__path__" in (_source(_find(parent)) or ""):
            return None  # it finds its modules in another way
        names = [module.name for module in pkgutil.iter_modules(_places(parent))] if parent else []
        guess = _guess(parent, parts[end - 1], names)
        rest = "".join(f".{part}" for part in parts[end:])
        return f"there is no module {name}", f"{guess}{rest}" if guess else ""
    return None


def _find(name: str) -> ModuleSpec | None:
    """Return the spec of a module, and import nothing; None if it is not found."""
    parent = name.rpartition(".")[0]
    with suppress(Exception):  # a finder of the project, or a module that replaces another one
        if not parent or parent in sys.modules:
            return importlib.util.find_spec(name)
        return PathFinder.find_spec(name, _places(parent))
    return None


def _places(package: str) -> list[str]:
    """Return the directories that contain a package's modules."""
    if package in sys.modules:
        return [*getattr(sys.modules[package], "__path__", ())]
    spec = _find(package)
    return [*(spec.submodule_search_locations or ())] if spec is not None else []


def _source(spec: ModuleSpec | None) -> str | None:
    """Return a module's text; None if there is none to read."""
    with suppress(OSError, ValueError):
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            return Path(spec.origin).read_text(encoding="utf-8")
    return None


def _is_python(text: str) -> bool:
    with suppress(SyntaxError, ValueError):
        ast.parse(text)
        return True
    return False


def _guess(parent: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1) or [
        known for known in names if known.startswith(name) or name.startswith(known)
    ]
    return f"{parent}.{close[0]}" if close else ""
