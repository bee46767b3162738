"""The private place of a running server: who it is (``server.json``) and what its workers do (``board``).

    <base>/prodserve-<uid>/<key of directory and program>-<pid>/

Made by the command's process, main thread; written by the process that keeps that pid; read by the commands
that look for a server. Standard library alone: it is read before, and without, any settings. A file outlives
``kill -9``, and a pid is given to somebody else in time: a server is its pid and the time that it started.
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
    """Return where a user's servers may have their place, best first: memory before disks."""
    named = os.environ.get("XDG_RUNTIME_DIR", "") if uid == os.geteuid() else ""
    temporary = os.environ.get("TMPDIR", "")
    places = (named, f"/run/user/{uid}", "/dev/shm", "/run", temporary, "/tmp")
    return [Path(place) for place in dict.fromkeys(places) if place.startswith("/")]


def create(directory: str, program: str) -> Path:
    """Make this process's place in the first base that is writable; raise OSError where none is."""
    uid = os.geteuid()
    name = f"{_key(directory, program)}-{os.getpid()}"
    for base in bases(uid):
        with contextlib.suppress(OSError):
            ours = base / f"{PREFIX}{uid}"
            _make_private(ours)
            _remove_stale(ours, _key(directory, program))
            place = ours / name
            with contextlib.suppress(FileNotFoundError):
                remove(place)  # left by somebody who had our pid
            _make_private(place)
            return place
    raise OSError(
        errno.EROFS, "no directory is writable: /dev/shm, /run or the temporary directory is needed"
    )


def write(place: Path, record: ServerRecord) -> None:
    """Replace the record at once: who reads it sees the old one or the new one."""
    unfinished = place / f"{RECORD}.new"
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(unfinished, place / RECORD)


def read(place: Path) -> ServerRecord | None:
    """Return the record, or None where it is missing or not ours to read."""
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast(ServerRecord, record) if isinstance(record, dict) else None


def remove(place: Path) -> None:
    """Remove a place and the files in it."""
    for file in list(place.iterdir()):
        file.unlink(missing_ok=True)
    place.rmdir()


def running() -> Iterator[tuple[Path, ServerRecord]]:
    """Yield place and record of every server that runs now and may be read; root sees everybody's."""
    for ours in _private_directories():
        for place in sorted(ours.iterdir()):
            record = read(place)
            if record is not None and is_alive(record):
                yield place, record


def left_behind() -> Iterator[ServerRecord]:
    """Yield the records of this user's servers that were killed."""
    for ours in _private_directories():
        for place in ours.iterdir():
            record = read(place)
            if record is not None and not is_alive(record):
                yield record


def is_alive(record: ServerRecord) -> bool:
    """Say whether the process that wrote the record is still the one with its pid."""
    pid, started = record.get("pid"), record.get("started")
    return isinstance(pid, int) and started is not None and start_time(pid) == started


def _key(directory: str, program: str) -> str:
    import hashlib  # late: the supervisor does without OpenSSL

    return hashlib.blake2b(f"{directory}\0{program}".encode(errors="replace"), digest_size=8).hexdigest()


def _private_directories() -> Iterator[Path]:
    """Yield the directories that may hold servers' places; root may look into all of them."""
    me = os.geteuid()
    uids = {me, *_other_users()} if me == 0 else {me}
    for uid in sorted(uids):
        for base in bases(uid):
            ours = base / f"{PREFIX}{uid}"
            with contextlib.suppress(OSError):
                if is_private(ours, uid):
                    yield ours


def _other_users() -> Iterator[int]:
    """Yield who has a directory for places, in the bases that everybody has, or a session of their own."""
    for base in ("/dev/shm", "/run", "/tmp"):
        with contextlib.suppress(OSError):
            for name in os.listdir(base):
                if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal():
                    yield int(name.removeprefix(PREFIX))
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/run/user") if name.isdecimal())


def is_private(directory: Path, uid: int) -> bool:
    """Say whether this is a real directory that nobody but this user can have filled, or may look into."""
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
    """Remove the places of servers that were killed: our predecessors', and others' that are old.

    Another project's next start looks for what its own predecessor left.
    """
    for place in ours.iterdir():
        with contextlib.suppress(OSError):
            if not place.name.startswith(key) and time.time() - place.stat().st_mtime < OLD:
                continue
        record = read(place)
        pid = place.name.rpartition("-")[2]
        # A server that is just starting has a place and no record yet.
        begun = record is None and pid.isdecimal() and start_time(int(pid)) is not None
        if not begun and not (record and is_alive(record)):
            with contextlib.suppress(OSError):
                remove(place)
