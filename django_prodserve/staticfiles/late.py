"""Find files created after the start: compressors and image libraries write below STATIC_ROOT.

Called in every worker, on a request's thread, for a path below STATIC_URL that belongs to no known file. It
costs nothing for a known file, and a 404 costs one open() for each directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from whitenoise.responders import NotARegularFileError

from .safe_open import open_inside

Make = Callable[[str, str], Any]
"""Creates the entry for a file, given its path on disk and its address."""


MAX_KNOWN = 512
"""Maximum cached files: creating an entry takes 0.3 ms, checking that the file is unchanged 0.02."""


class Late:
    """The directories in which files may appear, and their common address."""

    def __init__(self, prefix: str, roots: Iterable[str], make: Make) -> None:
        self.prefix, self.make = prefix, make
        self.roots = [*dict.fromkeys(os.path.realpath(root) for root in roots if root)]
        self.closed: set[str] = set()
        """Names of existing files that are not served."""
        self._known: dict[str, tuple[list[Any], Any]] = {}

    def find(self, path: str) -> Any:
        """Return the entry for this path; None for anything but a visible file in one of the directories.

        It is looked up at each request: a request may overwrite or remove the file that another wrote.
        """
        if not path.startswith(self.prefix):
            return None
        name = path[len(self.prefix) :]
        for root in self.roots if name not in self.closed else ():
            opened = open_inside(root, name.encode("utf-8", "surrogateescape"))
            if opened is None:
                continue
            os.close(opened[0])
            place = f"{root}/{name}"
            if name.endswith((".gz", ".br")) and os.path.isfile(place[:-3]):
                continue  # the same file, compressed: WhiteNoise sends it only under its plain name
            try:
                return self._made(place, path)
            except (NotARegularFileError, FileNotFoundError, PermissionError):
                continue  # removed again
        return None

    def _made(self, place: str, path: str) -> Any:
        """Return the entry of a file, created once for each state of the file and its variants."""
        state = [_state(place), _state(f"{place}.gz"), _state(f"{place}.br")]
        known = self._known.get(place)
        if known is not None and known[0] == state:
            return known[1]
        made = self.make(place, path)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[place] = state, made
        return made

    def problems(self, *, is_filled: bool) -> list[str]:
        """Return a line for files that, as the settings show, will be written where none is found."""
        if not apps.is_installed("compressor") or not getattr(settings, "COMPRESS_ENABLED", True):
            return []
        if getattr(settings, "COMPRESS_OFFLINE", False):
            return []
        place = str(getattr(settings, "COMPRESS_ROOT", None) or settings.STATIC_ROOT or "")
        is_served = any(_holds(root, os.path.realpath(place)) for root in self.roots)
        if not is_served:
            return [
                f"django-compressor writes to COMPRESS_ROOT, {place}, while the site runs, but only files "
                "in STATIC_ROOT are served. Set COMPRESS_ROOT = STATIC_ROOT; or COMPRESS_OFFLINE = "
                "True, and run manage.py compress"
            ]
        if not is_filled:
            return [
                f"django-compressor reads from COMPRESS_ROOT, {place}, which is empty: pages with a "
                "{% compress %} will be errors. Run manage.py collectstatic, or start with --collectstatic"
            ]
        return []


def _state(place: str) -> tuple[int, int, int] | None:
    """Return an identifier that changes when a file is written; None if there is no file."""
    try:
        facts = os.stat(place)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
