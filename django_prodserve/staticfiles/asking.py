"""Query objects from your project that the start depends on, in a process with a time limit.

Lives in the command's process, main thread, before the fork. A storage, a finder or a template engine may
connect to the network in its constructor, and would delay the start. Those of Django and WhiteNoise read only
files and are queried in this process; so are subclasses that add no code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..utils.fork import ChildError, run_in_fork
from ..utils.tracebacks import project_line
from .choice import Storage

T = TypeVar("T")
ANSWER_SECONDS = 5.0
"""Seconds for a storage, a finder, or all template engines; reading a manifest of 10,000 names takes 0.02."""
KNOWN = {"django", "whitenoise", "django_prodserve", "builtins", "abc", "typing"}


PLAIN = {str, bytes, bool, int, float, tuple, list, dict, set, frozenset, re.Pattern}
SILENT: set[str] = set()
"""Storages that could not collect, and are not queried again."""
OF_PYTHON = {"__dict__", "__weakref__", "__annotate__", "__annotate_func__"}


class SilentError(Exception):
    """The object did not answer, or raised; the message names it and the consequence."""

    is_silent = False


class BrokenError(Exception):
    """Code from your project has raised; the message is the reason, with the line in your project."""


def told(work: Callable[[], T]) -> T:
    """Return the result of ``work``; raise BrokenError if code from your project raises.

    A child process returns no traceback, so this runs there.
    """
    try:
        return work()
    except ImproperlyConfigured:
        raise
    except Exception as error:  # code in a project may raise anything
        if type(error).__module__.partition(".")[0] == "django_prodserve":  # it already has its message
            raise
        line = project_line(error)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise BrokenError(f"{reason} ({line})" if line else reason) from error


def ask(what: str, work: Callable[[], T], otherwise: str) -> T:
    """Return the result of ``work`` from a child process; raise SilentError if none arrives in time."""
    try:
        if sys.platform == "darwin":  # its frameworks may crash in a fork of a loaded process
            return told(work)
        return run_in_fork(lambda: told(work), patience=ANSWER_SECONDS)
    except ChildError as error:
        silent = SilentError(f"{what} did not answer: {error}. {otherwise}")
        silent.is_silent = True
        raise silent from error
    except (BrokenError, ImproperlyConfigured) as error:
        raise SilentError(f"{what} raised {error}. {otherwise}") from error


def is_known(kind: Any) -> bool:
    """Return whether a class is Django's or WhiteNoise's, or only adds plain attributes to one."""
    return isinstance(kind, type) and all(map(_adds_no_code, kind.__mro__))


def _adds_no_code(kind: type) -> bool:
    if kind.__module__.partition(".")[0] in KNOWN:
        return True
    written = [value for name, value in vars(kind).items() if name not in OF_PYTHON]
    return all(value is None or type(value) in PLAIN for value in written)


@dataclass(frozen=True, kw_only=True)
class Told:
    """The state of ``STORAGES["staticfiles"]``; empty if that storage keeps files elsewhere."""

    location: str = ""
    names: frozenset[str] = frozenset()
    """The names in its manifest."""
    lacks_manifest: bool = False
    """Whether each page with a ``{% static %}`` will raise an error."""
    addresses: Mapping[str, str | None] | None = field(default_factory=dict)
    """The addresses of names that may have a hashed twin; None if the storage itself may be queried."""
    problem: str = ""


def ask_storage() -> Told:
    """Return the state of the configured storage; one that may connect to the network is queried once."""
    storage = Storage.from_settings()
    if not storage.is_local:
        return Told()
    if is_known_storage(storage):
        return tell(asks=False)
    if storage.entry["BACKEND"] in SILENT:
        return Told()
    return _told(storage.entry["BACKEND"], repr(storage.options), str(settings.STATIC_ROOT or ""))


def make_apart(storage: Storage) -> None:
    """Create a storage from your project in a child process; raise SilentError if that takes too long."""

    def make() -> None:
        with suppress(Exception):  # reported when the storage collects
            import_string(storage.entry["BACKEND"])(**storage.options)

    backend = storage.entry["BACKEND"]
    if not is_known_storage(storage):
        ask(f'STORAGES["staticfiles"] ({backend})', make, "It is not asked again")


def is_known_storage(storage: Storage) -> bool:
    """Return whether creating this storage accesses only the disk."""
    return is_known(storage.kind) and "manifest_storage" not in storage.options


@cache
def _told(backend: str, options: str, root: str) -> Told:
    what = f'STORAGES["staticfiles"] ({backend})'
    try:
        return ask(what, lambda: tell(asks=True), "Its files are served as if it had no hashed names")
    except SilentError as error:
        return Told(problem=str(error))


def tell(*, asks: bool) -> Told:
    """Create the storage and inspect it; with ``asks`` store its addresses for the parent process."""
    from django.contrib.staticfiles.storage import StaticFilesStorage, staticfiles_storage

    hashed = getattr(staticfiles_storage, "hashed_files", None)
    location = getattr(staticfiles_storage, "location", None)
    return Told(
        location=str(location or "") if isinstance(staticfiles_storage, StaticFilesStorage) else "",
        names=frozenset(hashed or ()),
        lacks_manifest=hashed == {} and bool(getattr(staticfiles_storage, "manifest_strict", False)),
        addresses=dict(_addresses(staticfiles_storage, str(location or ""))) if asks else None,
    )


def _addresses(storage: Any, root: str) -> Iterable[tuple[str, str | None]]:
    """Yield what WhiteNoise would query: the addresses of names whose twin may have a hash."""
    from whitenoise.middleware import WhiteNoiseMiddleware

    from .choice import walk

    for path in walk(Path(root)) if root else ():
        name = path.relative_to(root).as_posix()
        plain = WhiteNoiseMiddleware.get_name_without_hash(None, name)
        if plain != name:
            try:
                yield plain, storage.url(plain)
            except ValueError:
                yield plain, None


def silent_finders() -> dict[str, str]:
    """Return a line for each of STATICFILES_FINDERS that does not answer, by its name."""
    return dict(_silent(tuple(settings.STATICFILES_FINDERS), repr(settings.STORAGES.get("default"))))


@cache
def _silent(finders: tuple[str, ...], default: str) -> tuple[tuple[str, str], ...]:
    found = []
    for dotted in finders:
        try:
            if not _is_known_finder(dotted):
                ask(f"{dotted} (STATICFILES_FINDERS)", lambda d=dotted: _list(d), "Its files are left out")  # type: ignore[misc]
        except SilentError as error:
            found.append((dotted, str(error)))
    return tuple(found)


def _is_known_finder(dotted: str) -> bool:
    asked = [dotted]
    if dotted.endswith(".DefaultStorageFinder"):
        asked.append((settings.STORAGES.get("default") or {}).get("BACKEND") or dotted)
    try:
        return all(is_known(import_string(name)) for name in asked)
    except ImportError:
        return True  # Django reports it when it creates the finder


def _list(dotted: str) -> int:
    from django.contrib.staticfiles import finders

    return sum(1 for _ in finders.get_finder(dotted).list([]))


def silent_caches() -> list[str]:
    """Return a line for each of CACHES that cannot be created in time: Django's system checks create all."""
    found = []
    for alias, entry in settings.CACHES.items():
        backend = str(entry.get("BACKEND", ""))
        if not backend.startswith("django."):
            try:
                ask(f'CACHES["{alias}"] ({backend})', lambda a=alias: _make_cache(a), "")  # type: ignore[misc]
            except SilentError as error:
                if error.is_silent:
                    found.append(f"{error}Django's system checks run without those of caches")
    return found


def _make_cache(alias: str) -> None:
    from django.core.cache import caches

    caches[alias]


def engines_are_known() -> bool:
    """Return whether the engines in TEMPLATES consist only of Django's classes."""
    return all(
        entry.get("BACKEND") == "django.template.backends.django.DjangoTemplates"
        and all(
            name.startswith("django.") for name in _loaders((entry.get("OPTIONS") or {}).get("loaders", ()))
        )
        for entry in settings.TEMPLATES
    )


def _loaders(loaders: Iterable[Any]) -> Iterable[str]:
    for loader in loaders:
        if isinstance(loader, str):
            yield loader
        else:  # a loader with arguments, which may be loaders
            yield loader[0]
            if loader[0].endswith("cached.Loader"):
                yield from _loaders(loader[1])
