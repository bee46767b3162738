"""The steps of a manage.py before Django loads the settings, for entry points that run without it.

Runs in the command's process, before ``django.setup()``. Reads manage.py, and executes nothing of it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

CONFIGURATION = "DJANGO_CONFIGURATION"
"""The variable that names the class of settings for django-configurations."""
USUAL = {"__future__", "django", "os", "pathlib", "sys", "typing"}


def default_of_manage_py(variable: str) -> str:
    """Return the value that ./manage.py gives to an environment variable; empty if it gives none."""
    for node in ast.walk(_manage_py()):
        words: list[Any] = []
        if isinstance(node, ast.Call):
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            words = [getattr(part, "value", None) for part in (node.targets[0].slice, node.value)]
        if len(words) == 2 and words[0] == variable and isinstance(words[1], str):
            return words[1]
    return ""


def imports_of_manage_py() -> list[str]:
    """Return the unusual packages that ./manage.py imports: it may prepare more than a name."""
    return sorted({name.partition(".")[0] for name in _imports(_manage_py())} - USUAL)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _manage_py() -> ast.AST:
    try:
        with open("manage.py", encoding="utf-8") as source:
            return ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def has_configurations() -> bool:
    """Return whether django-configurations is installed."""
    return importlib.util.find_spec("configurations") is not None


def prepare_configurations(typed: str | None = None) -> None:
    """Let django-configurations load the settings if a flag, a variable or manage.py names a class."""
    name = typed or os.environ.get(CONFIGURATION) or default_of_manage_py(CONFIGURATION)
    if name and has_configurations():
        os.environ[CONFIGURATION] = name
        if "configurations.importer" not in sys.modules or not _is_installed():
            import_module("configurations.importer").install()


def _is_installed() -> bool:
    return bool(getattr(sys.modules["configurations.importer"], "installed", False))
