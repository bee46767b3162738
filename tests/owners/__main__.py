"""Run Django's and asgiref's own tests with what a server changes in them: ``python -m tests.owners``.

For the Django and asgiref that this Python has; their sdists are downloaded into its environment. Exit 1
where a test fails with the changes, twice, and passes without them.

    python -m tests.owners                    all of it: 2 to 4 minutes
    python -m tests.owners i18n cache         some of Django's packages
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(sys.prefix) / "owners"
PACKAGES = [
    *(
        "asgi",
        "async",
        "backends",
        "cache",
        "csrf_tests",
        "dispatch",
        "handlers",
        "i18n",
        "messages_tests",
        "middleware",
        "requests_tests",
    ),
    *("sessions_tests", "settings_tests", "signals", "staticfiles_tests", "template_backends"),
    *("test_client", "test_client_regress"),
    *("template_tests", "timezones", "transaction_hooks", "transactions", "urlpatterns"),
    *("urlpatterns_reverse", "view_tests", "wsgi"),
]
BESIDE = ("jinja2", "tblib", "tzdata", "pytest", "pytest-asyncio")
"""What their tests need and this environment may lack; installed beside it."""
ENOUGH = {"django": 2500, "asgiref": 60}
"""Fewest tests of a whole run; fewer mean that they were not found."""

Run = Callable[[str, Iterable[str]], tuple[int, set[str]]]


def main(labels: list[str]) -> int:
    """Compare; return the exit code."""
    worse = compare("django", labels or PACKAGES, run_django, whole=not labels)
    if not labels:
        worse |= compare("asgiref", ["tests"], run_asgiref, whole=True)
    for name in sorted(worse):
        print(f"fails with the changes and passes without: {name}")
    return bool(worse)


def compare(owner: str, labels: list[str], run: Run, *, whole: bool) -> set[str]:
    """Return the tests that fail with our changes and pass without."""
    began = time.monotonic()
    ran, failed = run("with", labels)
    assert ran >= (ENOUGH[owner] if whole else 1), f"{owner}: only {ran} tests ran"
    print(f"{owner} {version(owner)}: {ran} tests, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    assert len(failed) * 20 < ran or not whole, "nearly all fail: something that they need is missing"
    if not failed:
        return set()
    again = sorted({where(name) for name in failed})
    _, without = run("without", again)
    suspects = failed - without
    print(f"{owner}: {len(failed) - len(suspects)} of these fail without the changes, too")
    if suspects:
        suspects &= run("with", sorted({where(name) for name in suspects}))[1]
    return suspects


def where(name: str) -> str:
    """Return what to run for a test: itself, or the class that unittest names where its setUpClass failed."""
    return name.partition("(")[2].rstrip(")") if name.endswith(")") else name


def run_django(how: str, labels: Iterable[str]) -> tuple[int, set[str]]:
    """Run these of Django's tests; return how many ran, and which failed."""
    tests = sdist("django") / "tests"
    command = [sys.executable, "runtests.py", "--settings=owners_settings", "--parallel=2", "-v0", *labels]
    return report(how, command, tests)


def run_asgiref(how: str, labels: Iterable[str]) -> tuple[int, set[str]]:
    """Run these of asgiref's tests; return how many ran, and which failed."""
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "asgiref_plugin", "-p", "no:cacheprovider"]
    return report(how, [sys.executable, "-m", "pytest", "-q", *plugins, *labels], sdist("asgiref"))


def report(how: str, command: list[str], directory: Path) -> tuple[int, set[str]]:
    """Run a command with the changes or without; return what it reports."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "report.json"
        environ = {
            **os.environ,
            "PRODSERVE_OWNERS": how,
            "PRODSERVE_OWNERS_REPORT": str(path),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(beside())]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        ended = subprocess.run(
            command, cwd=directory, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not path.exists():
            raise SystemExit(f"{' '.join(command)} did not run:\n{ended.stdout[-5000:]}")
        found = json.loads(path.read_text())
    if found["failed"]:
        print(ended.stdout[-20_000:])
    return found["ran"], set(found["failed"])


def sdist(name: str) -> Path:
    """Return the directory of the source distribution of what is installed, downloaded once."""
    wanted = f"{name}-{version(name)}"
    if not (CACHE / wanted).is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            pip("download", "--no-binary", ":all:", "--no-deps", "-d", scratch, f"{name}=={version(name)}")
            archive = next(Path(scratch).glob("*.tar.gz"))
            with tarfile.open(archive) as opened:
                opened.extractall(CACHE, filter="data")
    return CACHE / wanted


def beside() -> Path:
    """Return a directory with what their tests need besides, installed once."""
    directory = CACHE / "beside"
    if not directory.is_dir():
        pip("install", "--target", str(directory), *BESIDE)
    return directory


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True)


if __name__ == "__main__":
    CACHE.mkdir(exist_ok=True)
    sys.exit(main(sys.argv[1:]))
