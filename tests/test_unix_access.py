"""Who may open a unix socket: by the rights to it and to every directory above it."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prodserve.startup import unix_access
from django_prodserve.startup.unix_access import SEARCH, WRITE, may

STRANGER, GROUP = 54321, 54322


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "may_write"),
    [
        (0o770, STRANGER, {GROUP}, False),
        (0o777, STRANGER, {GROUP}, True),
        (0o770, STRANGER, {os.getegid()}, True),
        (0o707, STRANGER, {os.getegid()}, False),  # the group's rights count, not those of others
        (0o700, os.geteuid(), {GROUP}, True),
        (0o000, 0, {GROUP}, True),
    ],
)
def test_rights_are_the_kernels(
    tmp_path: Path, mode: int, uid: int, groups: set[int], may_write: bool
) -> None:
    file = tmp_path / "file"
    file.touch()
    os.chown(file, os.geteuid(), os.getegid())
    file.chmod(mode)
    assert may(file, WRITE, uid, groups) == may_write
    assert may(file, SEARCH, uid, groups) == may_write


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Give a directory that everybody may enter; those of pytest are closed."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(
    not any(name in unix_access.PROXIES for name in (user.pw_name for user in pwd.getpwall())),
    reason="no web server's user",
)
def test_a_socket_that_web_servers_cannot_open_is_told(open_directory: Path) -> None:
    path = open_directory / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        path.chmod(0o770)
        (line,) = unix_access.warnings(["127.0.0.1:8000", f"unix:{path}"])
        assert "cannot open it, with mode 0770 and group" in line
        assert line.endswith("or --umask 0.")
        path.chmod(0o777)
        assert [*unix_access.warnings([f"unix:{path}"])] == []
        open_directory.chmod(0o700)
        (line,) = unix_access.warnings([f"unix:{path}"])
        assert f"it may not enter {open_directory}" in line
    assert [*unix_access.warnings(["unix:/nowhere/s", "fd://3"])] == []
