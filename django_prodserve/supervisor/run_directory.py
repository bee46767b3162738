"""The run directory of a server: its identity (``server.json``) and the state of its workers (``board``).

    <base>/prodserve-<uid>/<key of directory and program>-<pid>/
    <base>/prodserve-<uid>-locks/<key of directory and program>-<name of a lock>

The command's process creates it, main thread. The process that keeps that pid writes it, and the commands
that search for a server read it. Standard library alone: they read it before, and without, any settings. A
file survives ``kill -9``, and the kernel reuses pids: so a pid together with its start time identifies a
server.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from ..machine.proc import start_time
from .protocol import ServerRecord

RECORD = "server.json"
PREFIX = "prodserve-"

OLD = 3600.0  # seconds


def bases(uid: int) -> list[Path]:
    """Return the possible parents of a user's run directories, best first: memory before disks."""
    named = os.environ.get("XDG_RUNTIME_DIR", "") if uid == os.geteuid() else ""
    temporary = os.environ.get("TMPDIR", "")
    places = (named, f"/run/user/{uid}", "/dev/shm", "/run", temporary, "/tmp")
    return [Path(place) for place in dict.fromkeys(places) if place.startswith("/")]


def create(directory: str, program: str) -> Path:
    """Create this process's run directory in the first writable base; raise OSError if there is none."""
    uid = os.geteuid()
    name = f"{_key(directory, program)}-{os.getpid()}"
    for base in bases(uid):
        with contextlib.suppress(OSError):
            ours = base / f"{PREFIX}{uid}"
            _make_private(ours)
            _remove_stale(ours, _key(directory, program))
            place = ours / name
            with contextlib.suppress(FileNotFoundError):
                remove(place)  # left by an earlier process with our pid
            _make_private(place)
            return place
    raise OSError(
        errno.EROFS, "no directory is writable: /dev/shm, /run or the temporary directory is needed"
    )


def write(place: Path, record: ServerRecord) -> None:
    """Replace the record atomically: a reader sees the old one or the new one."""
    unfinished = place / f"{RECORD}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(unfinished, place / RECORD)


def read(place: Path) -> ServerRecord | None:
    """Return the record, or None if it is missing or not ours to read."""
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast(ServerRecord, record) if isinstance(record, dict) else None


def remove(place: Path) -> None:
    """Remove a run directory and the files in it."""
    for file in list(place.iterdir()):
        file.unlink(missing_ok=True)
    place.rmdir()


def lock_path(place: Path, name: str) -> str:
    """Return a file that servers of one project on this host can lock, next to all run directories.

    It stays: a process that removed it could not know whether another one has just opened it.
    """
    locks = place.parent.with_name(f"{place.parent.name}-locks")
    _make_private(locks)
    return str(locks / f"{place.name.rpartition('-')[0]}-{name}")


def running() -> Iterator[tuple[Path, ServerRecord]]:
    """Yield directory and record of every running server that may be read; root sees all users' servers."""
    for ours in _private_directories():
        for place in _places(ours):
            record = read(place)
            if record is not None and is_alive(record):
                yield place, record


def left_behind() -> Iterator[ServerRecord]:
    """Yield the records of this user's servers that were killed."""
    for ours in _private_directories():
        for place in _places(ours):
            record = read(place)
            if record is not None and not is_alive(record):
                yield record


def is_alive(record: ServerRecord) -> bool:
    """Return whether the process that wrote the record is still the one with its pid."""
    pid, started = record.get("pid"), record.get("started")
    return isinstance(pid, int) and started is not None and start_time(pid) == started


def _key(directory: str, program: str) -> str:
    import hashlib  # late: the supervisor runs without OpenSSL

    return hashlib.blake2b(f"{directory}\0{program}".encode(errors="replace"), digest_size=8).hexdigest()


def _private_directories() -> Iterator[Path]:
    """Yield the directories that may contain run directories; root may read all of them."""
    me = os.geteuid()
    uids = {me, *_other_users()} if me == 0 else {me}
    for uid in sorted(uids):
        for base in bases(uid):
            ours = base / f"{PREFIX}{uid}"
            with contextlib.suppress(OSError):
                if is_private(ours, uid):
                    yield ours


def _places(ours: Path) -> list[Path]:
    """Return the run directories inside; none for root without the capability to read others' directories."""
    with contextlib.suppress(OSError):
        return sorted(ours.iterdir())
    return []


def _other_users() -> Iterator[int]:
    """Yield the users with a directory for run directories, in the shared bases or in their session."""
    for base in ("/dev/shm", "/run", "/tmp"):
        with contextlib.suppress(OSError):
            for name in os.listdir(base):
                if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal():
                    yield int(name.removeprefix(PREFIX))
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/run/user") if name.isdecimal())


def is_private(directory: Path, uid: int) -> bool:
    """Return whether this is a real directory that only this user can have filled, or may read."""
    facts = directory.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid and not facts.st_mode & 0o077


def _make_private(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not is_private(directory, os.geteuid()):
        raise PermissionError(errno.EPERM, "belongs to someone else, or others may look in", str(directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "is not writable", str(directory))


def _remove_stale(ours: Path, key: str) -> None:
    """Remove the run directories of killed servers: our predecessors', and old ones of other projects.

    The next start of another project needs the record of its own predecessor.
    """
    for place in ours.iterdir():
        with contextlib.suppress(OSError):
            if not place.name.startswith(key) and time.time() - place.stat().st_mtime < OLD:
                continue
        record = read(place)
        pid = place.name.rpartition("-")[2]
        # A server that is just starting has a directory and no record yet.
        begun = record is None and pid.isdecimal() and start_time(int(pid)) is not None
        if not begun and not (record and is_alive(record)):
            with contextlib.suppress(OSError):
                remove(place)
