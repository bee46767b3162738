"""Directories for our files between two starts, which only we can have filled.

Used by the command's process, main thread, before the fork.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path

from django.conf import settings

PRIVATE, SHARED = 0o700, 0o755


def bases(served_by: int | None = None) -> list[Path]:
    """Return possible parents of our directory, best first; ``served_by`` is a user that must read it."""
    me = os.geteuid()
    found = []
    if served_by in (None, me):
        cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if cache.is_absolute():
            found.append(cache / "django-prodserve")
        # A user without a home directory; one that this process may not see (ProtectHome of systemd).
        with contextlib.suppress(RuntimeError):
            if os.path.isdir(Path.home()):
                found.append(Path.home() / ".cache" / "django-prodserve")
    if me == 0 and os.path.isdir("/var/cache"):
        found.append(Path("/var/cache/django-prodserve"))
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    return [*dict.fromkeys(found), temporary / f"django-prodserve-{me}"]


def is_writable() -> bool:
    """Return whether one of the bases looks usable, without changing any."""
    return any(_looks_usable(base) for base in bases())


def _looks_usable(base: Path) -> bool:
    try:
        if os.path.lexists(base):
            return is_ours(base) and os.access(base, os.W_OK)
        ancestor = next(parent for parent in base.parents if parent.exists())
        return ancestor.is_dir() and os.access(ancestor, os.W_OK | os.X_OK)
    except OSError:
        return False


def is_ours(directory: Path) -> bool:
    """Return whether this is a real directory that only we can have filled."""
    facts = directory.lstat()
    alone = facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(facts.st_mode) and alone


def make_project(base: Path, project: Path, *, mode: int) -> Path:
    """Create the directory of a project inside a base of prodserve, or raise OSError."""
    make_parents(base)
    for directory in (base, project):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=mode)
        if not is_ours(directory):
            reason = "belongs to someone else, or others may write to it"
            raise PermissionError(errno.EPERM, reason, str(directory))
        if mode == SHARED:
            directory.chmod(SHARED)
    return project


def make_parents(directory: Path) -> None:
    """Create the missing parents of a directory for this user alone, as XDG requires, whatever the umask is.

    pathlib gives parents the mode from the umask: with 0 any user could write to ~/.cache.
    """
    missing = [parent for parent in directory.parents if not parent.exists()]
    for parent in reversed(missing):
        with contextlib.suppress(FileExistsError):
            parent.mkdir(mode=PRIVATE)


def project_key() -> str:
    """Return the name of this project's directory: from its settings module and that module's location."""
    module = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    place = getattr(settings, "BASE_DIR", None) or Path.cwd()
    return hashlib.blake2b(f"{module}\0{place}".encode(), digest_size=8).hexdigest()
