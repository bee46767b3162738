"""The direction of imports is a test, not a wish."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "django_prodserve"

# Each module may import from the ones above it only.
LAYERS = [
    {
        "bootstrap",
        "copies",
        "errors",
        "outlet",
        "units",
        "decision",
        "forked",
        "signals",
        "timeouts",
        "introductions",
        "lines",
        "redaction",
        "log_form",
        "private_directory",
        "run_directory",
        "fingerprints",
        "env_file",
        "inside",
    },
    {"logs", "streams", "working_directory", "loaded", "unix_access"},
    {"early"},
    {"__init__", "proxy", "cgroups", "control", "restart", "identity", "routes", "per_request"},
    {"script_name", "speedups", "setting_faults"},
    {"parsers", "machine", "platforms", "failures", "listeners", "footprint"},
    {"kinds", "sizing", "patched"},
    {"options"},
    {"resolve", "gunicorn_sources"},
    {"staticfiles"},
    {"project", "databases", "local", "media", "measurements"},
    {"plan"},
    {"gunicorn_settings"},
    {"explain", "runtime", "pipeline"},
    {"readiness", "in_front", "dry_run"},
    {"health"},
    {"application"},
    {"trial"},
    {"worker"},
    {"checks", "locks", "watching"},
    {"status"},
    {"prepare"},
    {"gunicorn_conf", "server", "wsgi"},
    {"command_line"},
    {"management"},
    {"__main__"},
]
PURE = {
    "plan",
    "sizing",
    "decision",
    "units",
    "parsers",
    "proxy",
    "redaction",
    "log_form",
    "identity",
    "introductions",
    "options",
    "kinds",
    "resolve",
    "platforms",
    "cgroups",
}
STANDARD = set(__import__("sys").stdlib_module_names)


def modules() -> dict[str, list[Path]]:
    """Return the files of each top-level module of the package."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(top, []).append(path)
    return found


def imports(path: Path, *, everything: bool = True) -> set[str]:
    """Return the modules a file imports, ours by their top name, others as ``name``; not for types alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for each in ast.walk(tree)
        if isinstance(each, ast.If) and "TYPE_CHECKING" in ast.dump(each.test)
        for node in ast.walk(each)
    }
    found: set[str] = set()
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level < depth:
                continue  # inside a package of ours
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {f".{name.partition('.')[0]}" for name in names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
    return found - {".__version__"}


def test_every_module_has_its_layer() -> None:
    assert set(modules()) - {"apps"} == set().union(*LAYERS)


@pytest.mark.parametrize("depth", range(len(LAYERS)))
def test_no_module_imports_upwards(depth: int) -> None:
    above = set().union(*LAYERS[:depth], {"__init__"})
    for name in LAYERS[depth]:
        for path in modules()[name]:
            ours = {each[1:] for each in imports(path) if each.startswith(".")}
            assert ours <= above | {name}, f"{path.name} imports {ours - above}"


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_middle_is_pure(name: str) -> None:
    for path in modules()[name]:
        others = {each for each in imports(path) if not each.startswith(".")}
        assert others <= STANDARD, f"{name} imports {others - STANDARD}"


def test_policies_are_pure() -> None:
    for name in ("policies", "slot", "advice"):
        found = imports(PACKAGE / "runtime" / f"{name}.py")
        assert found <= STANDARD | {".units"}, name
        assert not found & {"time", "os", "logging"}, name


def test_only_the_far_edge_imports_gunicorn() -> None:
    users = {name for name, paths in modules().items() if any("gunicorn" in imports(path) for path in paths)}
    assert users <= {"server", "gunicorn_sources", "runtime", "worker"}


def test_modules_stay_small() -> None:
    for paths in modules().values():
        for path in paths:
            assert len(path.read_text().splitlines()) <= 500, path.name
