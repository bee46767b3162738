"""``--reload``: detect that a file of the project has changed. For development and staging.

Runs in the arbiter, main thread, in its loop: a check takes milliseconds, and there is one each half second.
It checks the modules that are loaded here, files next to them, the project's templates and environment files.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from ..machine import proc
from ..utils.tracebacks import is_own, short

POLL_SECONDS = 0.5  # seconds between two checks; editors and git write many files within one
MAX_FILES = 20_000  # files; a check of more would block the arbiter


class Watcher:
    """Reports a change once, when nothing else has changed since the check before."""

    def __init__(self, env_file: str | None, process: int) -> None:
        """``process`` began to load the code that is served: a save since then may have come too late."""
        self.born = time.time_ns() - age(process)
        self.env_files = [os.path.abspath(file) for file in (".env", env_file) if file]
        self.known: dict[str, int] | None = None
        self.changed = ""
        self.looked = 0.0

    def tick(self) -> str:
        """Return a file that has changed, once no more changes arrive; empty otherwise."""
        if time.monotonic() - self.looked < POLL_SECONDS:
            return ""
        self.looked = time.monotonic()
        now = dict(self._files())
        changed = self._difference(now)
        self.known = now
        if changed:
            self.changed = changed
            return ""
        quiet, self.changed = self.changed, ""
        return short(quiet) if quiet else ""

    def _difference(self, now: dict[str, int]) -> str:
        """Return a file that is new, gone or written; at the first check one written since we loaded."""
        if self.known is None:
            return next((path for path, moment in now.items() if self.born < moment < time.time_ns()), "")
        return min((path for path, _ in now.items() ^ self.known.items()), default="")

    def _files(self) -> Iterator[tuple[str, int]]:
        """Yield every watched file, and its modification time."""
        count = 0
        for directory in sorted({*_code_directories(), *_template_directories()}):
            with suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(OSError):
                        if entry.is_file() and not entry.name.endswith((".pyc", ".sqlite3", "~", ".swp")):
                            yield entry.path, entry.stat().st_mtime_ns
                            count += 1
            if count > MAX_FILES:
                return
        for path in self.env_files:
            with suppress(OSError):
                yield path, os.stat(path).st_mtime_ns


def age(pid: int) -> int:
    """Return the age of a process in nanoseconds. Only Linux has supervisors and this."""
    started = proc.start_time(pid) or 0
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started * 10**9 // os.sysconf("SC_CLK_TCK")


def _code_directories() -> Iterator[str]:
    """Yield the directories of loaded modules from the project."""
    seen = set()
    for module in list(sys.modules.values()):
        directory = os.path.dirname(getattr(module, "__file__", None) or "")
        if directory and directory not in seen:
            seen.add(directory)
            if is_own(os.path.join(directory, "module.py")):
                yield directory


def _template_directories() -> Iterator[str]:
    """Yield the project's template directories, and those in them."""
    from django.template.autoreload import get_template_directories

    for top in get_template_directories():
        if is_own(os.path.join(top, "page.html")):
            for directory, _, _ in os.walk(top):
                yield directory
