"""The storage for projects that kept Django's default, and the functions that put one into the settings.

Built in the command's process before the fork; ``url()`` runs in every worker, for each ``{% static %}``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import STATICFILES_STORAGE_ALIAS, settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import storages
from django.urls import get_script_prefix
from django.utils.functional import empty
from whitenoise.compress import Compressor
from whitenoise.storage import CompressedManifestStaticFilesStorage, CompressedStaticFilesStorage

from .progress import COMPRESS, HASH, FileCount
from .script_name import known, relative

# django.contrib.admin, 130 files, 1.39 MiB, CPU seconds and bytes: 11 is 1.62 s and 321 kB, 8 is 0.07 s and
# 358 kB, 6 is 0.05 s and 365 kB, gzip is 396 kB. A container without a disk pays this at every start. 8 takes
# 26 MiB in each thread and 6 takes 8: the peak of such a start was 190 MiB and is 88.
BROTLI_QUALITY = 6
COMPRESSING = (CompressedManifestStaticFilesStorage, CompressedStaticFilesStorage)


class QuickCompressor(Compressor):  # type: ignore[misc]  # WhiteNoise has no types
    """WhiteNoise's compressor at a quality that is quick enough for a start."""

    count: FileCount | None = None

    def compress(self, path: str) -> list[str]:
        """Compress one file; return the names of the written files."""
        written: list[str] = super().compress(path)
        if self.count is not None:
            self.count.advance(COMPRESS)
        return written

    @staticmethod
    def compress_brotli(data: bytes) -> bytes:
        import brotli

        compressed: bytes = brotli.compress(data, quality=BROTLI_QUALITY)
        return compressed


class LenientStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # WhiteNoise has no types
    """Hashed names and compressed files that never break a page: a file that fails to hash keeps its name.

    Django's own lenient mode still opens the file of an unknown name, and fails if it does not exist.
    """

    manifest_strict = False
    count: FileCount | None = None
    """Receives the progress; set by the caller that shows it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.broken: dict[str, dict[str, None]] = {}  # file -> its broken references, in order
        self.as_is: dict[str, str] = {}  # file -> why its references were left unchanged
        super().__init__(*args, **kwargs)
        self.relative_url = "" if self.is_placed(kwargs) else relative("STATIC_URL")

    @staticmethod
    def is_placed(options: dict[str, Any]) -> bool:
        """Return whether every address of this storage has the same beginning for all requests."""
        return bool(options.get("base_url") or known())

    @property
    def base_url(self) -> str:
        """Return the beginning of addresses, below the script name of the request."""
        fixed: str = self._base_url
        url = f"{get_script_prefix()}{self.relative_url}" if self.relative_url else fixed
        return url if url.endswith("/") else f"{url}/"

    def stored_name(self, name: str) -> str:
        """Return the hashed name, or the name itself if the manifest has none; never access the disk."""
        path = urlsplit(unquote(name)).path.strip()
        if self.manifest_strict or self.hash_key(path) in self.hashed_files:
            hashed: str = super().stored_name(name)
            return hashed
        return name

    def url_converter(self, name: str, *args: Any, **kwargs: Any) -> Callable[[re.Match[str]], str]:
        """Leave a broken reference as written, and record it."""
        convert = super().url_converter(name, *args, **kwargs)

        def leniently(match: re.Match[str]) -> str:
            try:
                converted: str = convert(match)
            except (ValueError, SuspiciousFileOperation):
                self.broken.setdefault(name, {})[match["url"].strip()] = None
                return match["matched"]
            return converted

        return leniently

    def post_process(
        self, paths: dict[str, Any], dry_run: bool = False, **options: Any
    ) -> Iterator[tuple[str, str, bool]]:
        """Hash and compress; a file that Django cannot rewrite is hashed unchanged, in a second attempt."""
        while True:
            done = []
            for name, hashed, processed in super().post_process(paths, dry_run=dry_run, **options):
                if isinstance(processed, Exception):
                    self._leave(name, paths, processed)
                    break
                done.append((name, hashed, processed))
            else:
                yield from done
                return

    def _leave(self, names: str, paths: dict[str, Any], error: Exception) -> None:
        """Exclude these files from the rewriting; raise if that did not help."""
        # Django joins the names of files that refer to each other in a circle.
        named = [names] if names in paths else [n for n in names.split(", ") if n in paths]
        fresh = [name for name in named if name not in self.as_is]
        if not fresh:
            raise error
        circle = "it takes part in a circle of references"
        why = "it is not UTF-8" if isinstance(error, UnicodeError) else circle
        self.as_is.update(dict.fromkeys(fresh, why))

    def _post_process(
        self, paths: dict[str, Any], adjustable_paths: list[str], hashed_files: dict[str, str]
    ) -> Iterator[tuple[str, str | None, Any, bool]]:
        adjustable = [path for path in adjustable_paths if path not in self.as_is]
        if self.count is not None:  # in each pass: files that refer to others are hashed more than once
            self.count.begin(HASH, len(paths))
        for name, hashed, processed, changed in super()._post_process(paths, adjustable, hashed_files):
            if self.count is not None:
                self.count.advance(HASH)
            yield name, hashed, processed, changed and name not in self.as_is

    def create_compressor(self, **options: Any) -> QuickCompressor:
        """Return the compressor for WhiteNoise."""
        compressor = QuickCompressor(**options)
        compressor.count = self.count
        return compressor

    def compress_files(self, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Compress equal files once: nearly every file has a hashed twin with the same content."""
        extensions = getattr(settings, "WHITENOISE_SKIP_COMPRESS_EXTENSIONS", None)
        worth = self.create_compressor(extensions=extensions, quiet=True).should_compress
        twins: dict[tuple[str, bytes], list[str]] = {}
        for path in filter(worth, sorted(paths)):
            content = Path(self.path(path)).read_bytes()
            key = (Path(path).suffix, hashlib.blake2b(content, digest_size=16).digest())
            twins.setdefault(key, []).append(path)
        others = {first: rest for first, *rest in twins.values()}
        if self.count is not None:
            self.count.begin(COMPRESS, len(others))
        for path, compressed in super().compress_files(others):
            yield path, compressed
            for twin in others[path]:
                copy = twin + compressed[len(path) :]
                link_or_copy(self.path(compressed), self.path(copy))
                yield twin, copy

    def problems(self) -> list[str]:
        """Return one line for each file whose references could not all be hashed."""
        lines = [f"{name}: left as it is, because {why}" for name, why in self.as_is.items()]
        for name, references in self.broken.items():
            shown = ", ".join(list(references)[:3]) + (", ..." if len(references) > 3 else "")
            lines.append(f"{name}: refers to {shown}, which cannot be found; left as written")
        return sorted(lines)


def link_or_copy(source: str, target: str) -> None:
    """Create a hard link to a file, or copy it if the file system has no hard links."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


class CompressorBeside(LenientStorage):
    """Compresses the files that another storage has collected, and leaves that one's manifest unchanged."""

    def read_manifest(self) -> None:
        """Read no names: only the files count."""


def compress_beside(directory: Path, count: FileCount | None = None) -> None:
    """Write compressed files next to those that the project's storage left without; its names stay."""
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    plain = {name for name in names if not {f"{name}.gz", f"{name}.br"} & names}
    storage = CompressorBeside(location=str(directory))
    storage.count = count
    for _ in storage.compress_files(plain):
        pass  # a generator: reading it does the work


def use_storage(entry: dict[str, Any], *, static_root: str | None) -> Callable[[], None]:
    """Make ``entry`` the project's ``STORAGES["staticfiles"]``, from now on; return how to undo it."""
    before, root_before = settings.STORAGES, settings.STATIC_ROOT

    def switch(value: dict[str, Any], root: Any) -> None:
        settings.STORAGES = value
        settings.STATIC_ROOT = root
        # Clear only this alias: other storages may hold state, and models hold them.
        storages._backends = None  # type: ignore[attr-defined]  # not in the stubs
        storages.__dict__.pop("backends", None)
        storages._storages.pop(STATICFILES_STORAGE_ALIAS, None)  # type: ignore[attr-defined]
        staticfiles_storage._wrapped = empty  # type: ignore[attr-defined]  # a LazyObject

    switch({**before, STATICFILES_STORAGE_ALIAS: entry}, static_root)
    return lambda: switch(before, root_before)
