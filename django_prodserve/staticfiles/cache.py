"""The private directories for collected files: safe to share, safe to interrupt, never incomplete.

Used by the command's process, main thread, before the fork. The layout is
``<base>/<project>/<fingerprint>/files`` next to ``complete.json``. A fingerprint's directory appears
complete, by one rename. A server holds a lock on the directory that it serves for as long as it or a fork of
it runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..utils.private_directory import PRIVATE, SHARED, is_ours, make_project

STALE_BUILD = 3600.0  # a build takes seconds: an older one was interrupted
STALE_PROJECT = 30 * 86400.0  # each release directory of a project counts as a separate project here


def take(base: Path, directory: Path, *, mark: bool = True) -> list[str] | None:
    """Hold a complete directory for as long as this server runs; return its lines, or None.

    ``mark`` it as used, so that it is pruned later than others.
    """
    try:
        if not is_ours(base) or lock(directory, exclusive=False) is None:
            return None
        note = json.loads((directory / "complete.json").read_text())
        # A cleaner of /tmp, or a crash of the machine, may have removed single files.
        if [note["files"], note["bytes"]] != measure(directory / "files"):
            return None
        lines = [str(line) for line in note["warnings"]]
    except (OSError, ValueError, KeyError):
        return None
    if mark:
        with contextlib.suppress(OSError):  # a read-only image: no server prunes it either
            os.utime(directory)
            os.utime(directory.parent)
    return lines


def lock(directory: Path, *, exclusive: bool) -> int | None:
    """Lock a directory until the descriptor closes; return None if another server's lock prevents it.

    No code closes a shared lock: it ends with this process and its forks, and a new program does not inherit
    it. Cleaners of /tmp leave locked directories alone (systemd-tmpfiles).
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:  # a network disk may have no locks: then no directory is ever removed
        if exclusive or error.errno == errno.EWOULDBLOCK:
            os.close(handle)
            return None
    return handle


def measure(directory: Path) -> list[int]:
    """Return the number of files in a tree, and their bytes."""
    sizes = [entry.stat().st_size for entry in _walk(directory)]
    return [len(sizes), sum(sizes)]


def _walk(directory: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            else:
                yield entry


def build(
    base: Path, directory: Path, fill: Callable[[Path], list[str]], *, mode: int = PRIVATE
) -> list[str]:
    """Let ``fill`` write files next to ``directory``, move them into place; return its lines."""
    project = make_project(base, directory.parent, mode=mode)
    temporary = Path(tempfile.mkdtemp(prefix="building-", dir=project))
    try:
        (temporary / "files").mkdir()
        lines = fill(temporary / "files")
        files, size = measure(temporary / "files")
        note = {"files": files, "bytes": size, "warnings": lines}
        (temporary / "complete.json").write_text(json.dumps(note))
        if mode == SHARED:
            open_to_all(temporary)
        lock(temporary, exclusive=False)
        put(temporary, base, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return lines


def put(temporary: Path, base: Path, directory: Path) -> None:
    """Move a finished directory into place; if another server was quicker, its directory is equivalent."""
    try:
        temporary.rename(directory)
    except OSError:
        if take(base, directory) is not None:
            return
        # It lost files. Servers that use it find the same files in the new one.
        spoiled = Path(tempfile.mkdtemp(prefix="building-", dir=directory.parent))
        directory.rename(spoiled / "spoiled")
        temporary.rename(directory)
        shutil.rmtree(spoiled, ignore_errors=True)


def open_to_all(directory: Path) -> None:
    """Let every user read a tree: workers may run as another user."""
    directory.chmod(SHARED)
    for parent, names, files in os.walk(directory):
        for name in names:
            Path(parent, name).chmod(SHARED)
        for name in files:
            Path(parent, name).chmod(0o644)


def prune(base: Path, current: Path) -> None:
    """Keep the current directory and the one before it; remove older ones that no server holds."""
    now = time.time()
    for project in base.iterdir():
        with contextlib.suppress(OSError):  # another server may prune at the same moment
            if project == current.parent:
                _remove(_superseded(project, current, now))
            elif now - project.stat().st_mtime > STALE_PROJECT:
                _remove(list(project.iterdir()))
                project.rmdir()


def _superseded(project: Path, current: Path, now: float) -> list[Path]:
    """Return the directories that a project no longer needs: all but the last two, and interrupted builds."""
    seen = {path: path.stat().st_mtime for path in project.iterdir() if path != current}
    builds = {path for path in seen if path.name.startswith("building-")}
    done = sorted(seen.keys() - builds, key=lambda path: -seen[path])
    return [*done[1:], *(path for path in builds if now - seen[path] > STALE_BUILD)]


def _remove(directories: list[Path]) -> None:
    """Remove directories that no server holds."""
    for directory in directories:
        handle = lock(directory, exclusive=True)
        if handle is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(handle)
