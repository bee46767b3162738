"""Everything here starts real processes."""

from __future__ import annotations

import functools
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import stock as stock_projects
from .groups import making_groups
from .needs import need_program
from .serving import environment


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every server in these tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server. What fails beside others on a busy machine runs once more; -rR names it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))


@pytest.fixture
def env(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Make an environment of its own for a server; keywords are Django settings."""

    def make(extra: Any = None, **site: Any) -> dict[str, str]:
        return environment(tmp_path, extra, **site)

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for localhost and shop.example; return the folder of cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("certificate")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:shop.example"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        [need_program("openssl"), "req", "-x509", *kind, *subject, *files], check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], stock_projects.Made]:
    """Make a stock project, once for all tests of a run."""

    @functools.cache
    def made(name: str) -> stock_projects.Made:
        return stock_projects.make(name, tmp_path_factory.mktemp(name))

    return made


@pytest.fixture
def make_group() -> Iterator[Callable[..., Path]]:
    """Give a function that makes a control group with limits, below another or below the own one."""
    with making_groups() as make:
        yield make
