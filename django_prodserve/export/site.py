"""Names and paths of the project, for exported files. Runs in the command, and only reads settings."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from ..project.settings_bootstrap import CONFIGURATION
from ..staticfiles.choice import Storage
from ..utils import command_line, working_directory

PLACEHOLDER = "site.example"
"""The domain of a project whose ALLOWED_HOSTS names none."""
GENERIC = {"app", "apps", "backend", "code", "conf", "config", "core", "current", "django", "project"}
GENERIC |= {"repo", "server", "settings", "site", "source", "src", "web", "website", "www"}
"""Names of directories and packages that do not name the site."""
LOCAL = re.compile(r"\*|localhost|\.localhost|[\d.]+|\[.*\]|.*[^a-z0-9.-].*|[^.]*", re.IGNORECASE)
"""Entries of ALLOWED_HOSTS that are not a domain: addresses, names without a dot, patterns."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """The facts of a project that a file names."""

    name: str
    domains: tuple[str, ...]
    """Domains of the site; empty if ALLOWED_HOSTS names none."""
    directory: str
    """The directory that the command runs in, by a link such as ``current`` if there is one."""
    program: tuple[str, ...]
    """The words that start prodserve there."""
    hidden: str = ""
    """A path below /home, /root or /run/user that the server reads; empty if there is none."""
    settings: str
    configuration: str = ""
    """The class of django-configurations."""
    user: str
    """The owner of the directory; the name of the site if that is root or unknown."""
    python: str
    """The version of Python, such as 3.13."""
    static_url: str = ""
    static_root: str = ""
    has_plain_storage: bool = False
    """Whether collectstatic writes plain names without compression, as Django does by default."""
    writable: Mapping[str, str]
    """Each directory that the project writes to, and what it writes there."""

    @property
    def domain(self) -> str:
        """The first domain, or the placeholder."""
        return self.domains[0] if self.domains else PLACEHOLDER

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables that choose the settings."""
        found = {"DJANGO_SETTINGS_MODULE": self.settings, CONFIGURATION: self.configuration}
        return {name: text for name, text in found.items() if text}

    @classmethod
    def inspect(cls) -> Site:
        """Read the facts of the project that is loaded now."""
        directory = working_directory.here().name
        base = str(getattr(settings, "BASE_DIR", "") or directory)
        module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
        name = site_name(module, base)
        program = find_program()
        read = (directory, program[0], os.path.realpath(sys.executable), base)
        return cls(
            name=name,
            domains=tuple(dict.fromkeys(find_domains(settings.ALLOWED_HOSTS))),
            directory=directory,
            program=program,
            hidden=next((path for path in read if is_hidden(path)), ""),
            settings=module,
            configuration=os.environ.get(CONFIGURATION, ""),
            user=find_owner(directory) or name,
            python=find_python(Path(directory)),
            static_url=str(settings.STATIC_URL or ""),
            static_root=str(settings.STATIC_ROOT or ""),
            has_plain_storage=Storage.from_settings().is_default,
            writable=collapse(find_writable(), directory),
        )


def site_name(module: str, base: str) -> str:
    """Return the name of the site: the package of its settings, or the directory above that has a name."""
    words = [module.partition(".")[0], *reversed(Path(base).parts)]
    slugs = (re.sub("[^a-z0-9]+", "-", word.lower()).strip("-") for word in words)
    return next((slug for slug in slugs if slug and slug not in GENERIC and slug[0].isalpha()), "site")


def find_domains(hosts: Any) -> Iterator[str]:
    """Yield the domains in ALLOWED_HOSTS; ``.shop.example`` counts as shop.example."""
    for host in hosts:
        if not LOCAL.fullmatch(str(host)):
            yield str(host).lower().removeprefix(".")


def is_hidden(path: str) -> bool:
    """Return whether a path is in one of the directories that ProtectHome=yes hides (systemd.exec)."""
    return path.startswith(tuple(f"/{place}/" for place in ("home", "root", "run/user")))


def find_program() -> tuple[str, ...]:
    """Return the words that start prodserve: the script next to this Python, or the module."""
    script = os.path.join(os.path.dirname(sys.executable), command_line.SCRIPT)
    if os.path.exists(script):
        return (working_directory.by_name(script),)
    return (working_directory.by_name(sys.executable), "-m", command_line.MODULE)


def find_owner(directory: str) -> str:
    """Return the name of the directory's owner; empty for root and for a user without a name."""
    with suppress(OSError, KeyError):
        uid = os.stat(directory).st_uid
        return pwd.getpwuid(uid).pw_name if uid else ""
    return ""


def find_python(directory: Path) -> str:
    """Return the version of Python that the project names, or the one that runs this command."""
    with suppress(OSError, UnicodeDecodeError):
        text = (directory / ".python-version").read_text()
        if found := re.match(r"\s*(?:cpython-?)?(3\.\d+)", text):
            return found[1]
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_writable() -> Iterator[tuple[str, str]]:
    """Yield directories that settings let the project write to, and what it writes there."""
    for alias, entry in settings.DATABASES.items():
        name = str(entry.get("NAME") or "")
        if "sqlite" in str(entry.get("ENGINE")) and os.path.isabs(name):
            yield os.path.dirname(name), f"SQLite, database {alias}"
    if settings.MEDIA_ROOT:
        yield str(settings.MEDIA_ROOT), "MEDIA_ROOT: uploads"
    for alias, entry in settings.CACHES.items():
        if "filebased" in str(entry.get("BACKEND")):
            yield str(entry.get("LOCATION") or ""), f"cache {alias}"
    for name in ("FILE_UPLOAD_TEMP_DIR", "SESSION_FILE_PATH", "EMAIL_FILE_PATH"):
        if place := getattr(settings, name, None):
            yield str(place), name
    handlers = settings.LOGGING.get("handlers", {}) if settings.LOGGING else {}
    for name, handler in handlers.items():
        if isinstance(handler, Mapping) and handler.get("filename"):
            yield os.path.dirname(str(handler["filename"])), f"log of the handler {name}"


def collapse(found: Iterator[tuple[str, str]], project: str = "") -> Mapping[str, str]:
    """Return each directory once, without those inside another and those in a temporary directory."""
    temporary = tuple(place for place in ("/tmp/", "/var/tmp/", "/dev/") if not project.startswith(place))
    places: dict[str, list[str]] = {}
    for path, what in found:
        if os.path.isabs(path) and not f"{path}/".startswith(temporary):
            places.setdefault(working_directory.by_name(os.path.normpath(path)), []).append(what)
    outer = {path for path in places for other in places if path.startswith(other.rstrip("/") + "/")}
    return {path: "; ".join(dict.fromkeys(places[path])) for path in sorted(places) if path not in outer}
