"""Collect a project's static files into a private directory, once for every change of the sources.

Lives in the command's process, main thread, before the fork. Never writes to STATIC_ROOT or a remote storage.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.files.storage import FileSystemStorage

from ..utils.fork import ChildError, run_in_fork
from ..utils.private_directory import PRIVATE, SHARED, bases, project_key
from .asking import silent_finders, told
from .cache import build, prune, take
from .progress import COLLECT, HASH, FileCount

READING = 60.0  # seconds for files that a finder has elsewhere
COLLECTING = 900.0  # seconds; 10,000 files with brotli take 60 on half a CPU
READ_BELOW = 2**20  # larger files are identified by size and date; reading the 130 of admin takes 3 ms


class CannotCollectError(Exception):
    """Collecting failed; the message gives the operator the reason."""


@dataclass(frozen=True)
class Source:
    """One file as a finder lists it."""

    storage: Any
    path: str

    def local_path(self) -> str | None:
        """Return the path of the file, or None if the finder's storage is not a directory."""
        is_directory = isinstance(self.storage, FileSystemStorage)
        return str(self.storage.path(self.path)) if is_directory else None


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A complete directory of static files, and the lines that collecting them produced."""

    directory: Path
    fresh: bool
    warnings: tuple[str, ...]


def list_sources() -> tuple[dict[str, Source], list[str]]:
    """Return the files that collectstatic would use, by name, and a line for each unreadable file."""
    from django.contrib.staticfiles import finders

    found: dict[str, Source] = {}
    lines: list[str] = []
    ignored = apps.get_app_config("staticfiles").ignore_patterns  # type: ignore[attr-defined]
    silent = silent_finders()
    lines += silent.values()
    for dotted in settings.STATICFILES_FINDERS:
        for path, storage in () if dotted in silent else finders.get_finder(dotted).list(ignored):
            prefix = getattr(storage, "prefix", None)
            name = (f"{prefix}/{path}" if prefix else path).replace("\\", "/")
            if name in found:
                continue
            source = Source(storage, path)
            local = source.local_path()
            if local is None or (os.path.isfile(local) and os.access(local, os.R_OK)):
                found[name] = source
            else:
                lines.append(f"{name}: left out, {local} cannot be read")
    return found, lines


def fingerprint(sources: dict[str, Source], entry: dict[str, Any]) -> str:
    """Return a name that depends on everything that affects the collected files.

    It depends on contents, not on paths and dates: files that were collected during an image build then match
    in its containers.
    """
    tools = [_version(name) for name in ("django", "whitenoise", "brotli", "django-prodserve")]
    wishes = [
        getattr(settings, f"WHITENOISE_{name}", None)
        for name in ("SKIP_COMPRESS_EXTENSIONS", "KEEP_ONLY_HASHED_FILES")
    ]
    facts = [tools, wishes, settings.STATIC_URL, entry, storage_code(entry["BACKEND"])]
    digest = hashlib.blake2b(json.dumps(facts, default=_stable).encode(), digest_size=12)
    for name, source in sorted(sources.items()):
        digest.update(f"\0{name}\0".encode("utf-8", "surrogateescape"))
        digest.update(content_mark(source))
    return digest.hexdigest()


def content_mark(source: Source) -> bytes:
    """Return an identifier of a file's content: its hash, or size and date of a large local file."""
    local = source.local_path()
    if local is None:
        with source.storage.open(source.path) as file:
            return hashlib.blake2b(file.read(), digest_size=16).digest()
    with open(local, "rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_size > READ_BELOW:
            return f"{facts.st_size} {int(facts.st_mtime)}".encode()
        return hashlib.blake2b(file.read(), digest_size=16).digest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def storage_code(backend: str) -> list[str]:
    """Return an identifier of each module that defines a storage's class: a project may edit its own."""
    from django.utils.module_loading import import_string

    modules = sorted({cls.__module__ for cls in import_string(backend).__mro__})
    files = [getattr(sys.modules.get(name), "__file__", None) or "" for name in modules]
    return [
        hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest()
        for file in files
        if file.endswith(".py")
    ]


def _stable(value: object) -> str:
    """Encode an option unknown to JSON without the memory address that its repr may contain."""
    return str(value) if isinstance(value, os.PathLike) else type(value).__qualname__


def collect(
    entry: dict[str, Any],
    *,
    served_by: int | None = None,
    scratch: Path | None = None,
    count: FileCount | None = None,
) -> Collected:
    """Return a complete directory for the storage ``entry``: one from an earlier start, or a new one.

    A new one is created in ``scratch``, if given, and one from an earlier start stays unchanged. ``count``
    receives the progress. Raises CannotCollectError if no directory is writable, and exceptions of the
    project's own storage.
    """
    sources, unreadable = list_sources()
    shared = served_by not in (None, os.geteuid())
    place = Path(project_key() + ("-shared" if shared else ""), _fingerprint_apart(sources, entry))
    candidates = bases(served_by)
    for base in candidates:
        lines = take(base, base / place, mark=scratch is None)
        if lines is not None:
            return _collected(base / place, False, unreadable + lines)
    reasons = []
    for base in [scratch] if scratch else candidates:
        try:
            lines = build(
                base,
                base / place,
                lambda directory: _fill_apart(directory, sources, entry, count or FileCount()),
                mode=SHARED if shared else PRIVATE,
            )
        except OSError as error:
            reasons.append(f"{error.filename or base}: {error.strerror or error}")
        else:
            if scratch is None:
                prune(base, base / place)
            return _collected(base / place, True, unreadable + lines)
    raise CannotCollectError("no directory could be written: " + "; ".join(reasons))


def _fingerprint_apart(sources: dict[str, Source], entry: dict[str, Any]) -> str:
    """Return the fingerprint; files outside of directories are read in a process with a time limit."""
    if sys.platform == "darwin" or all(source.local_path() is not None for source in sources.values()):
        return fingerprint(sources, entry)
    try:
        return run_in_fork(lambda: fingerprint(sources, entry), patience=READING)
    except ChildError as error:
        raise CannotCollectError(f"the finders' files cannot be read: {error}") from error


def _collected(directory: Path, fresh: bool, lines: list[str]) -> Collected:
    return Collected(directory=directory / "files", fresh=fresh, warnings=tuple(lines))


def _fill_apart(
    directory: Path, sources: dict[str, Source], entry: dict[str, Any], count: FileCount
) -> list[str]:
    """Fill in a child process: compressing leaves 35 to 110 MiB of free memory that is never returned."""
    if sys.platform == "darwin":  # its frameworks may crash in a fork of a loaded process
        return fill(directory, sources, entry, count)
    try:
        return run_in_fork(lambda: told(lambda: fill(directory, sources, entry, count)), patience=COLLECTING)
    except ChildError as error:
        raise CannotCollectError(str(error)) from error


def fill(directory: Path, sources: dict[str, Source], entry: dict[str, Any], count: FileCount) -> list[str]:
    """Collect into ``directory`` with the storage ``entry``; return a line per problem."""
    from django.core.files.storage import storages

    from .storage import COMPRESSING, LenientStorage, compress_beside, use_storage

    undo = use_storage(entry_at(entry, directory), static_root=str(directory))
    try:
        storage: Any = storages["staticfiles"]
        check_place(storage, directory)
        if isinstance(storage, LenientStorage):
            storage.count = count
        count.begin(COLLECT, len(sources))
        for name, source in sources.items():
            with source.storage.open(source.path) as file:
                storage.save(name, file)
            count.advance(COLLECT)
        found = {name: (source.storage, source.path) for name, source in sources.items()}
        count.begin(HASH, len(sources))
        for _, _, outcome in getattr(storage, "post_process", _nothing)(found, dry_run=False):
            if isinstance(outcome, Exception):
                raise outcome
            if not isinstance(storage, LenientStorage):  # which counts by itself
                count.advance(HASH)
        if not isinstance(storage, COMPRESSING):
            compress_beside(directory, count)
    finally:
        undo()
    return storage.problems() if isinstance(storage, LenientStorage) else []


def _nothing(found: dict[str, Any], *, dry_run: bool) -> Iterator[tuple[str, str, bool]]:
    return iter(())


def entry_at(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the storage's entry with its location set to ``directory``; others find it in STATIC_ROOT."""
    options = dict(entry.get("OPTIONS", {}))
    if "location" in options:
        options["location"] = str(directory)
    return {**entry, "OPTIONS": options}


def check_place(storage: Any, directory: Path) -> None:
    """Refuse a storage from your project that would write to any other directory."""
    parts = {"files": storage, "manifest": getattr(storage, "manifest_storage", storage)}
    for name, part in parts.items():
        try:
            inside = os.path.realpath(part.path("")) == os.path.realpath(directory)
        except NotImplementedError:
            inside = False
        if not inside:
            raise CannotCollectError(f"{type(storage).__qualname__} keeps its {name} elsewhere")
