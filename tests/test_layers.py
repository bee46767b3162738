"""The direction of imports is a test, not a wish."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "django_prodserve"

# From the top floor down: what is in a folder imports from the folders below it, and from its own.
FLOORS = [
    ["__main__"],
    ["management"],
    ["cli"],
    ["tune"],
    ["server", "wsgi", "apps"],
    ["arbiter"],
    ["worker"],
    ["monitoring"],
    ["middleware"],
    ["side_processes"],
    ["supervisor"],
    ["startup"],
    ["logs"],
    ["export"],
    ["plan"],
    ["project"],
    ["staticfiles"],
    ["asgi"],
    ["speedups"],
    ["config"],
    ["machine"],
    ["tls"],
    ["http"],
    ["scoreboard"],
    ["utils"],
    ["errors", "roads", "signals", "timeouts"],
]
"""Folders, and modules at the top of the package."""
PURE = [
    "asgi/scope",
    "config/kinds",
    "config/options",
    "config/parse_errors",
    "config/parsers",
    "config/resolve",
    "config/side_processes",
    "export/caddy",
    "export/check",
    "export/check_images",
    "export/check_proxies",
    "export/check_services",
    "export/compose",
    "export/container",
    "export/dockerfile",
    "export/facts",
    "export/finding",
    "export/haproxy",
    "export/kinds",
    "export/kubernetes",
    "export/layout",
    "export/nginx",
    "export/platforms",
    "export/procfile",
    "export/proxy",
    "export/reading",
    "export/servers",
    "export/supervisor",
    "export/systemd",
    "export/target",
    "logs/config",
    "logs/redaction",
    "machine/cgroups",
    "machine/platforms",
    "middleware/proxy_headers",
    "middleware/proxy_protocol",
    "middleware/request_id",
    "plan/learned_advice",
    "plan/notes",
    "plan/plan",
    "plan/sizing",
    "plan/tls",
    "project/learned",
    "tls/key_pairs",
    "tune/access_log",
    "tune/choices",
    "tune/costs",
    "tune/prediction",
    "tune/report",
    "tune/result",
    "utils/decision",
    "utils/units",
]
POLICIES = [
    "arbiter/policies",
    "monitoring/advice",
    "monitoring/learning",
    "plan/capacity",
    "scoreboard/slot",
    "side_processes/policies",
]
STANDARD = set(__import__("sys").stdlib_module_names)


@cache
def modules() -> dict[str, Path]:
    """Return the file of each module, by its path below the package."""
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def imports(name: str, *, types: bool = True) -> set[str]:
    """Return the modules of ours that a module imports, by path, and others as ``:name``."""
    tree = ast.parse(modules()[name].read_text())
    for_types = {
        id(node)
        for statement in ast.walk(tree)
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        for node in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if not types and id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*name.split("/")[: -node.level], *(node.module or "").split(".")]
            found |= {_module([*filter(None, base), alias.name]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(":" + (node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {":" + alias.name.partition(".")[0] for alias in node.names}
    return found - {name}


def _module(parts: list[str]) -> str:
    """Return the module that these words lead to: the last one may be a name in it."""
    known = modules()
    for count in range(len(parts), 0, -1):
        path = "/".join(parts[:count])
        if path in known:
            return path
        if f"{path}/__init__" in known:
            return f"{path}/__init__"
    return "__init__"


def _floor(name: str) -> int:
    place = name.partition("/")[0]
    return next((floor for floor, places in enumerate(FLOORS) if place in places), len(FLOORS))


def test_every_folder_has_its_floor() -> None:
    places = {name.partition("/")[0] for name in modules()}
    assert places - {"__init__"} == {place for floor in FLOORS for place in floor}


@pytest.mark.parametrize("name", modules())
def test_no_module_imports_upwards(name: str) -> None:
    if name == "__init__":  # what must come before everything else is imported here
        return
    above = {
        imported
        for imported in imports(name)
        if not imported.startswith(":") and _floor(imported) < _floor(name)
    }
    assert not above, f"{name} imports {above}"


def test_no_circle_of_modules() -> None:
    """Also not inside a folder, and also not for types."""
    edges = {
        name: {imported for imported in imports(name) if not imported.startswith(":")} for name in modules()
    }
    while ends := [name for name, found in edges.items() if not found & edges.keys()]:
        for name in ends:
            del edges[name]
    assert not edges


@pytest.mark.parametrize("name", PURE)
def test_the_middle_is_pure(name: str) -> None:
    others = {imported[1:] for imported in imports(name, types=False) if imported.startswith(":")}
    assert others <= STANDARD, f"{name} imports {others - STANDARD}"


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_pure(name: str) -> None:
    found = imports(name, types=False)
    assert {imported[1:] for imported in found if imported.startswith(":")} <= STANDARD - {
        "time",
        "os",
        "logging",
    }


def test_only_the_far_edge_imports_gunicorn() -> None:
    users = {name.partition("/")[0] for name in modules() if ":gunicorn" in imports(name)}
    assert users <= {"server", "config", "logs", "monitoring", "http", "arbiter", "worker"}


@pytest.mark.parametrize("name", modules())
def test_modules_stay_small(name: str) -> None:
    assert len(modules()[name].read_text().splitlines()) <= 500
