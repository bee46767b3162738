"""Decide how to serve a project's static files, from its settings and the contents of STATIC_ROOT.

Lives in the command's process; changes nothing and writes nothing, so ``plan`` may call it. Importing this
module imports neither WhiteNoise nor staticfiles: the project may not have installed the latter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import STATICFILES_STORAGE_ALIAS, settings
from django.core.files.storage import FileSystemStorage
from django.http.request import validate_host
from django.utils.module_loading import import_string

from ..errors import ProdserveError
from ..utils.private_directory import is_writable
from ..utils.tracebacks import project_error
from .place import Place
from .script_name import without_known

DJANGO_DEFAULT = "django.contrib.staticfiles.storage.StaticFilesStorage"
OURS = "django_prodserve.staticfiles.storage.LenientStorage"
LOST = "plain names, cached for a minute, compressed only if a .gz or .br file exists"
FIX = "Set XDG_CACHE_HOME to a writable directory, or run collectstatic"


@dataclass(frozen=True, kw_only=True)
class StaticChoice:
    """How static files are served, and why. ``compressed``: through our own storage."""

    mode: Literal["off", "project", "root", "collect", "finders"]
    why: str
    url: str = ""
    root: str = ""
    compressed: bool = False
    warning: str = ""
    elsewhere: str = ""
    """The other host to which pages point for files, although STATIC_ROOT has none that it could serve."""
    written: str = ""
    """Where files may appear while the site runs: STATIC_ROOT."""
    through: str = ""
    """The middleware that the files pass, as text; empty if they are answered before Django."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The project's ``STORAGES["staticfiles"]``, read without creating it: that may use the network."""

    entry: dict[str, Any]
    kind: type

    @classmethod
    def from_settings(cls) -> Storage:
        """Read the setting; a missing entry counts as Django's default."""
        entry = settings.STORAGES.get(STATICFILES_STORAGE_ALIAS) or {"BACKEND": DJANGO_DEFAULT}
        try:
            return cls(entry=entry, kind=import_string(entry["BACKEND"]))
        except ImportError as error:
            message = f'STORAGES["staticfiles"] cannot be imported: {error}.'
            raise ProdserveError(message, f"Correct {entry['BACKEND']!r}, or install it.") from error
        except Exception as error:  # the module is the project's, or the entry is not such a dictionary
            raise project_error('STORAGES["staticfiles"] cannot be imported', error) from error

    @property
    def is_default(self) -> bool:
        return bool(self.entry["BACKEND"] == DJANGO_DEFAULT)

    @property
    def is_local(self) -> bool:
        return issubclass(self.kind, FileSystemStorage)

    @property
    def is_hashing(self) -> bool:
        from django.contrib.staticfiles.storage import HashedFilesMixin

        return issubclass(self.kind, HashedFilesMixin)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.entry.get("OPTIONS") or {})

    @property
    def root(self) -> str:
        """Return the directory to which collectstatic would write."""
        place = (self.options.get("location") if self.is_local else None) or settings.STATIC_ROOT
        return str(place or "")

    @property
    def url(self) -> str:
        """Return the path at which clients request files, as WhiteNoise derives it."""
        explicit: str | None = getattr(settings, "WHITENOISE_STATIC_PREFIX", None)
        path = urlsplit(self.options.get("base_url") or settings.STATIC_URL or "").path
        path = (explicit or without_known(path)).strip("/")
        return f"/{path}/" if path else "/"

    @property
    def other_host(self) -> str:
        """Return the host in STATIC_URL if it is not one of the site's hosts, or an empty text."""
        host = urlsplit(self.options.get("base_url") or settings.STATIC_URL or "").hostname or ""
        own = [name for name in settings.ALLOWED_HOSTS if name != "*"]
        return "" if validate_host(host, own) else host

    def ours(self) -> dict[str, Any]:
        """Return the entry for hashed and compressed files, with the project's options."""
        return {"BACKEND": OURS, "OPTIONS": self.options}


def choose_static(*, wanted: bool = True, collect: bool = True) -> StaticChoice:
    """Decide from the settings and the contents of STATIC_ROOT; change nothing, write nothing."""
    reason = nothing_to_serve(wanted)
    if reason:
        return StaticChoice(mode="off", why=reason)
    storage = Storage.from_settings()
    url = storage.url
    place = Place.from_settings()
    elsewhere = storage.other_host if storage.is_local and not is_filled(storage.root) else ""
    if place.is_own:
        why = f"{place.dotted} in MIDDLEWARE is the project's own: files are left to it"
        return StaticChoice(mode="project", why=why, url=url, elsewhere=elsewhere)
    choice = _choose_mode(storage, url, collect)
    if choice.mode == "project":
        return choice
    words = place.words()
    why = f"{choice.why}; {words}" if words else choice.why
    written = storage.root if storage.is_local else choice.root
    return replace(choice, why=why, through=place.names, written=written, elsewhere=elsewhere)


def _choose_mode(storage: Storage, url: str, collect: bool) -> StaticChoice:
    if is_filled(storage.root):
        return _choose_root(storage, url)
    if not storage.is_local:
        where = "keeps the files elsewhere: none are served from here"
        if not getattr(settings, "WHITENOISE_ROOT", None):
            return StaticChoice(mode="project", why=f"{storage.kind.__name__} {where}", url=url)
        return StaticChoice(mode="root", why="WHITENOISE_ROOT alone; the storage is remote", url=url)
    return _choose_source(storage, url, collect)


def nothing_to_serve(wanted: bool) -> str:
    """Return why there are no files to serve, or an empty text."""
    if not wanted:
        return "left to the project, as --no-static asks"
    if not apps.is_installed("django.contrib.staticfiles"):
        return "django.contrib.staticfiles is not in INSTALLED_APPS"
    # Bypass the lazy settings: they turn an empty value into "/".
    if not getattr(settings._wrapped, "STATIC_URL", None):
        return "STATIC_URL is not set"
    return ""


def is_filled(root: str) -> bool:
    """Return whether a directory has any files besides those that keep an empty one in a repository."""
    try:
        return any(not name.startswith(".") for name in os.listdir(root)) if root else False
    except OSError:
        return False


def _choose_root(storage: Storage, url: str) -> StaticChoice:
    if not storage.is_default:
        why = f"STATIC_ROOT, through the project's {storage.kind.__name__}"
        return StaticChoice(mode="root", why=why, url=url, root=storage.root)
    if os.path.isfile(os.path.join(storage.root, "staticfiles.json")):
        why = "STATIC_ROOT and the staticfiles.json in it"
        return StaticChoice(mode="root", why=why, url=url, root=storage.root, compressed=True)
    why = (
        f"STATIC_ROOT as collectstatic left it: {LOST}. "
        "Unset STATIC_ROOT or empty it, and prodserve hashes and compresses by itself"
    )
    return StaticChoice(mode="root", why=why, url=url, root=storage.root)


def _choose_source(storage: Storage, url: str, collect: bool) -> StaticChoice:
    state = "STATIC_ROOT is empty" if storage.root else "STATIC_ROOT is not set"
    if not collect:
        why = f"{state} and --no-private-static: files of the finders, {LOST}. Run collectstatic"
        return StaticChoice(mode="finders", why=why, url=url)
    if not is_writable():
        why = f"{state} and no directory is writable: files of the finders, {LOST}. {FIX}"
        warning = f"static files are served from the finders, {LOST}: no directory is writable. {FIX}"
        return StaticChoice(mode="finders", why=why, url=url, warning=warning)
    how = "hashed and compressed" if storage.is_default else f"through {storage.kind.__name__}, compressed"
    why = f"{state}: collected into a private directory, {how}"
    return StaticChoice(mode="collect", why=why, url=url, compressed=storage.is_default)


def walk(root: Path) -> Iterator[Path]:
    """Yield the files below root, in a stable order; none if the directory does not exist."""
    for parent, names, files in os.walk(root, followlinks=True):
        names.sort()
        yield from (Path(parent, name) for name in sorted(files))
