"""What an image of the project needs: its lock file, system packages, variables. Runs in the command.

Reads files of the project, and loads its settings in other processes to find the variables they require.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ProdserveError
from .variables import Tried, find_required

LOCKS: Mapping[str, tuple[str, ...]] = {
    "uv": ("uv.lock",),
    "poetry": ("poetry.lock",),
    "pip": (
        "requirements.txt",
        "requirements/production.txt",
        "requirements/prod.txt",
        "requirements/base.txt",
        "requirements-prod.txt",
        "requirements-production.txt",
    ),
}
"""Files that name exact versions, by the program that reads them; the first that exists counts."""

# Debian packages to compile a package, and to run it. Wheels with everything inside need none.
SYSTEM: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "psycopg2": (("gcc", "libc6-dev", "libpq-dev"), ("libpq5",)),
    "psycopg-c": (("gcc", "libc6-dev", "libpq-dev"), ("libpq5",)),
    "psycopg": ((), ("libpq5",)),
    "mysqlclient": (("default-libmysqlclient-dev", "gcc", "libc6-dev", "pkg-config"), ("libmariadb3",)),
}
BUNDLED = {"psycopg": "psycopg-binary", "psycopg2": "psycopg2-binary"}
"""Packages whose library another package brings along."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """How an image of this project is made."""

    manager: str
    lock: str
    names: frozenset[str]
    """Packages in the lock file, in lower case."""
    has_manage: bool = True
    required: Tried

    @property
    def is_complete(self) -> bool:
        """Whether the lock file installs prodserve itself."""
        return "django-prodserve" in self.names

    @property
    def packages(self) -> tuple[list[str], list[str]]:
        """Debian packages to build, and to run."""
        wanted = [
            needs
            for name, needs in SYSTEM.items()
            if name in self.names and BUNDLED.get(name) not in self.names
        ]
        build = {package for needs in wanted for package in needs[0]}
        return sorted(build), sorted({package for needs in wanted for package in needs[1]})

    @classmethod
    def inspect(cls, directory: Path, settings: Mapping[str, str]) -> Build:
        """Read the project in this directory; raise ProdserveError if it has no lock file."""
        for manager, files in LOCKS.items():
            for lock in files:
                if os.path.isfile(directory / lock):
                    return cls(
                        manager=manager,
                        lock=lock,
                        names=frozenset(package_names(directory / lock)),
                        has_manage=os.path.isfile(directory / "manage.py"),
                        required=find_required(directory, settings),
                    )
        raise ProdserveError(
            f"{directory} has no uv.lock, poetry.lock or requirements.txt: an image could not install it.",
            "pip freeze > requirements.txt",
            code="file",
            topic="export",
        )


NO_IMAGE = Build(manager="", lock="", names=frozenset(), required=Tried())
"""For files of servers that run outside containers."""


def package_names(lock: Path, depth: int = 0) -> Iterator[str]:
    """Yield the packages that a lock file names, also those of other files that it includes."""
    text = ""
    with suppress(OSError, UnicodeDecodeError):
        text = lock.read_text()
    if lock.suffix == ".lock":
        found = re.findall(r'^name = "([^"]+)"', text, re.MULTILINE)
    else:
        found = re.findall(r"^([A-Za-z0-9][\w.-]*)", text, re.MULTILINE)
        for name, extras in re.findall(r"^([\w.-]+)\[([^\]]*)\]", text, re.MULTILINE):
            found += [f"{name}-{extra.strip()}" for extra in extras.split(",")]
        for other in re.findall(r"^(?:-r|--requirement)[ =]*(\S+)", text, re.MULTILINE):
            if depth < 5:
                yield from package_names(lock.parent / other, depth + 1)
    yield from (re.sub("[-_.]+", "-", name).lower() for name in found)
