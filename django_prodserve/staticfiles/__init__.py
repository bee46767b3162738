"""Serve a project's static files: collect them if needed, index them, answer in front of Django. Start here.

``choose_static`` decides, for ``plan``; ``prepare_static`` acts, in the command's process, main thread,
before the fork; ``StaticFiles.layer`` then wraps Django. Importing this module imports neither WhiteNoise nor
staticfiles: the project may not have installed the latter.
"""

from __future__ import annotations

import os
import time
import warnings as python_warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import STATICFILES_STORAGE_ALIAS, settings
from django.core.exceptions import ImproperlyConfigured

from ..errors import ProdserveError
from ..utils.units import format_duration, format_size
from .choice import DJANGO_DEFAULT, FIX, LOST, StaticChoice, Storage, choose_static, nothing_to_serve
from .progress import FileCount

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from .layer import StaticFileIndex, StaticLayer
    from .middleware import Find

__all__ = [
    "FileCount",
    "StaticChoice",
    "StaticFiles",
    "choose_static",
    "describe",
    "missing_names",
    "prepare_static",
]


MANIFEST = "staticfiles.json"


def _keep() -> None:
    """Undo nothing: the settings are unchanged."""


@dataclass(frozen=True, kw_only=True)
class StaticFiles:
    """Static files, ready to serve; ``undo`` restores the project's settings (tests need it)."""

    choice: StaticChoice
    count: int = 0
    size: int = 0
    collected: bool = False
    seconds: float = 0.0
    directory: str = ""
    warnings: tuple[str, ...] = ()
    encodings: frozenset[str] = frozenset()
    hashed: bool = False
    site: StaticFileIndex | None = None
    undo: Callable[[], None] = _keep

    @property
    def finders(self) -> tuple[Find, ...]:
        """Return the functions that find a file, for a middleware."""
        return (self.site.look_up,) if self.site is not None else ()

    def layer(self, application: WSGIApplication) -> WSGIApplication:
        """Return ``application`` with the files in front of it, if there are any."""
        return self.in_front_of(application) or application

    def in_front_of(self, application: WSGIApplication) -> StaticLayer | None:
        """Return the middleware that answers for files in front of ``application``; None without files."""
        if self.site is None:
            return None
        from .layer import StaticLayer
        from .security import SecurityHeaders

        return StaticLayer(self.site, SecurityHeaders.from_settings(), application)


def prepare_static(
    choice: StaticChoice,
    *,
    served_by: int | None = None,
    scratch: Path | None = None,
    count: FileCount | None = None,
) -> StaticFiles:
    """Collect the files if needed, point the settings at them, and index them all.

    ``served_by`` is the user id of the workers, if it is not ours. With ``scratch`` no other directory is
    written to. ``count`` receives the progress.
    """
    if choice.mode in ("off", "project"):
        return StaticFiles(choice=choice)
    started = time.perf_counter()
    try:
        files = _prepare(choice, Storage.from_settings(), served_by, scratch, count)
    except ImproperlyConfigured as error:
        raise ProdserveError(str(error), "Correct the STATIC_ and MEDIA_ settings.") from error
    return replace(files, seconds=time.perf_counter() - started)


def _prepare(
    choice: StaticChoice,
    storage: Storage,
    served_by: int | None,
    scratch: Path | None,
    count: FileCount | None,
) -> StaticFiles:
    if choice.mode == "collect":
        return _from_collected(choice, storage, served_by, scratch, count)
    if choice.mode == "root":
        return _from_root(choice, storage)
    return _in_place(choice, storage, (choice.warning,) if choice.warning else ())


def _from_collected(
    choice: StaticChoice,
    storage: Storage,
    served_by: int | None,
    scratch: Path | None,
    count: FileCount | None,
) -> StaticFiles:
    from .asking import BrokenError, SilentError, make_apart, told
    from .collect import CannotCollectError, collect, entry_at
    from .storage import use_storage

    entry = storage.ours() if choice.compressed else storage.entry
    try:
        if not choice.compressed:
            make_apart(storage)
        found = told(lambda: collect(entry, served_by=served_by, scratch=scratch, count=count))
    except SilentError as error:
        return _downgraded(choice, storage, str(error), "manage.py collectstatic waits for it, too")
    except CannotCollectError as error:
        return _downgraded(choice, storage, str(error), FIX)
    except ImproperlyConfigured:
        raise
    except BrokenError as error:
        return _downgraded(choice, storage, str(error), "manage.py collectstatic shows the same")
    directory = str(found.directory)
    undo = use_storage(entry_at(entry, found.directory), static_root=directory)
    return _read(replace(choice, root=directory), found.warnings, undo=undo, collected=found.fresh)


def _downgraded(choice: StaticChoice, storage: Storage, reason: str, fix: str) -> StaticFiles:
    """Serve the finders' files instead; the reason is shown once, as a warning."""
    from .asking import SILENT

    SILENT.add(storage.entry["BACKEND"])
    why = f"not collected: {reason}"
    line = f"static files are served from the finders, {LOST}: {reason}. {fix}."
    return _in_place(replace(choice, mode="finders", why=why, compressed=False), storage, (line,))


def _in_place(choice: StaticChoice, storage: Storage, lines: tuple[str, ...]) -> StaticFiles:
    """Serve the finders' files; hashed names do not exist then, so pages must not refer to them."""
    from .storage import use_storage

    undo = _keep
    if storage.is_default or storage.is_hashing:
        options = {key: storage.options[key] for key in ("base_url",) if key in storage.options}
        plain = {"BACKEND": DJANGO_DEFAULT, "OPTIONS": options}
        undo = use_storage(plain, static_root=settings.STATIC_ROOT)
    return _read(choice, lines, undo=undo)


def _from_root(choice: StaticChoice, storage: Storage) -> StaticFiles:
    from .asking import ask_storage
    from .storage import use_storage

    undo, lines = _keep, []
    if choice.compressed:
        undo = use_storage(storage.ours(), static_root=choice.root)
        stale = _stale_manifest(choice.root)
        if stale:
            undo()
            lines = [f"{stale}; {LOST}. Run collectstatic again, or empty STATIC_ROOT"]
            choice = replace(choice, compressed=False, why=stale)
    if not choice.compressed and STATICFILES_STORAGE_ALIAS not in settings.STORAGES:
        undo = use_storage(storage.entry, static_root=settings.STATIC_ROOT)
    if storage.is_local and storage.is_hashing and ask_storage().lacks_manifest:
        lines.append(
            f"{storage.kind.__name__} finds no manifest in {choice.root}: every page with a "
            "{% static %} will be an error. Run manage.py collectstatic"
        )
    return _read(choice, tuple(lines), undo=undo)


def _stale_manifest(root: str) -> str:
    """Return why the manifest in root must not be used, or an empty text.

    A manifest left by another storage still names the files of its time: a later collectstatic changed only
    the plain ones.
    """
    from django.core.files.storage import storages

    try:
        names: dict[str, str] = storages[STATICFILES_STORAGE_ALIAS].hashed_files  # type: ignore[attr-defined]
    except ValueError:
        return f"{root}/staticfiles.json cannot be read"
    written = os.path.getmtime(os.path.join(root, "staticfiles.json"))
    for name, hashed in names.items():
        if not os.path.isfile(os.path.join(root, hashed)):
            return f"{root}/staticfiles.json names {hashed}, which does not exist"
        plain = os.path.join(root, name)
        if os.path.isfile(plain) and os.path.getmtime(plain) > written + 1:
            return f"{root}/staticfiles.json is older than {name}"
    return "" if names else f"{root}/staticfiles.json is empty"


def _open_site(choice: StaticChoice) -> tuple[StaticFileIndex, list[str]]:
    """Let WhiteNoise index the files; its warnings become lines of the server."""
    from .layer import StaticFileIndex
    from .security import SecurityHeaders

    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        site = StaticFileIndex(
            url=choice.url,
            root=choice.root or None,
            finders=choice.mode == "finders",
            security=list(SecurityHeaders.from_settings().headers),
            appear=[choice.root, choice.written],
        )
    if choice.compressed:
        site.files.pop(f"{choice.url}{MANIFEST}", None)
        site.late.closed.add(MANIFEST)
    lines = site.late.problems(is_filled=choice.mode == "root")
    return site, [*lines, *site.skipped, *(str(item.message) for item in caught)]


def _read(
    choice: StaticChoice, lines: tuple[str, ...], *, undo: Callable[[], None], collected: bool = False
) -> StaticFiles:
    """Index and count the files: a hashed name is a second name of the same file."""
    from .layer import StaticFileEntry

    site, more_lines = _open_site(choice)
    hits = {url: hit for url, hit in site.files.items() if isinstance(hit, StaticFileEntry)}
    hashed = {url for url, hit in hits.items() if hit.is_immutable}
    named = [hit for url, hit in hits.items() if url not in hashed] or list(hits.values())
    return StaticFiles(
        choice=choice,
        count=len(named),
        size=sum(hit.size for hit in named),
        collected=collected,
        directory=choice.root,
        warnings=(*lines, *more_lines),
        encodings=frozenset().union(*(hit.encodings for hit in named)),
        hashed=bool(hashed),
        site=site,
        undo=undo,
    )


def missing_names(*, third_party: bool = False) -> list[str]:
    """Return a line for each ``{% static %}`` literal that names no file; ``third_party`` adds packages'."""
    if nothing_to_serve(wanted=True):
        return []
    from .names import find_missing

    return find_missing(third_party=third_party)


def describe(files: StaticFiles) -> str:
    """Describe the served files in one line: ``412 files, 1.9 MiB, br + gzip, cached for a year``."""
    if files.site is None:
        return files.choice.why
    through = f", through {files.choice.through} (MIDDLEWARE)" if files.choice.through else ""
    if files.site.autorefresh:
        return f"looked up at every request (WHITENOISE_AUTOREFRESH){through}"
    encodings = " + ".join(sorted(files.encodings)) or "not compressed"
    if files.encodings == {"gzip"} and files.choice.compressed and not find_spec("brotli"):
        encodings += " (install django-prodserve[brotli] for br)"
    age = files.site.max_age
    short = f"cached for {format_duration(float(age))}" if age is not None else "not cached"
    cached = "cached for a year" if files.hashed else short
    number = "1 file" if files.count == 1 else f"{files.count} files"
    return f"{number}, {format_size(files.size)}, {encodings}, {cached}{through}"
