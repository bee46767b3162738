"""Whether a web server on this machine may open our unix socket: its user is rarely ours.

Runs in the command's process, main thread, when the sockets are bound. Linux and macOS require permission to
write to the socket, and to search every directory above it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

PROXIES = ("nginx", "www-data", "caddy", "haproxy", "apache", "http")
"""Users that packages of web servers create."""

WRITE, SEARCH = 0o2, 0o1


def warnings(addresses: Sequence[str]) -> Iterator[str]:
    """Yield a line for each unix socket that no web server's user may open, if there is such a user."""
    users = dict(_users())
    for address in addresses:
        path = os.path.abspath(address.removeprefix("unix:")) if address.startswith("unix:") else ""
        reasons = {name: _reason(path, *user) for name, user in users.items()} if path else {}
        if reasons and all(reasons.values()):
            name, reason = next(iter(reasons.items()))
            yield f"{address}: the user {name} cannot open it, {reason}."


def _users() -> Iterator[tuple[str, tuple[int, Collection[int]]]]:
    import grp  # late: not on every system
    import pwd

    for name in PROXIES:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = {group.gr_gid for group in grp.getgrall() if name in group.gr_mem}
        yield name, (user.pw_uid, groups | {user.pw_gid})


def _reason(path: str, uid: int, groups: Collection[int]) -> str:
    """Return why this user may not connect, and the fix; empty if it may, or if that is unknown."""
    try:
        for directory in reversed(Path(path).parents):
            if not may(directory, SEARCH, uid, groups):
                return f"because it may not enter {directory}: move the socket, such as to /run/shop/"
        if not may(path, WRITE, uid, groups):
            facts = os.stat(path)
            group = _group(facts.st_gid)
            return (
                f"with mode {facts.st_mode & 0o777:04o} and group {group}: "
                f"put that user into the group {group}, or --umask 0"
            )
    except OSError:
        return ""
    return ""


def may(path: str | os.PathLike[str], wanted: int, uid: int, groups: Collection[int]) -> bool:
    """Return whether a user with these groups may access a file, by its mode alone."""
    facts = os.stat(path)
    if uid == 0:
        return True
    if facts.st_uid == uid:
        return bool(facts.st_mode >> 6 & wanted)
    return bool(facts.st_mode >> (3 if facts.st_gid in groups else 0) & wanted)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
