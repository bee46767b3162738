"""Bodies in files: what the file system or the memory does not take is refused, and never cut."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prodserve.http.exceptions import DiskShortError
from django_prodserve.http.limits import KIB, MIB
from django_prodserve.http.spool import SPACE, FileSpace, Spool
from django_prodserve.machine.cgroups import FileRoot
from django_prodserve.machine.memory_files import MACHINE_RESERVE, MemoryFiles
from django_prodserve.machine.temporary import find_memory_type


@pytest.fixture
def memory_left() -> Iterator[None]:
    """Let a test set how much memory is left, and forget it afterwards."""
    yield
    SPACE.memory_left = None


def test_a_body_is_whole_in_memory_and_in_a_file() -> None:
    for pieces in ([b"a" * KIB], [b"a" * 40_000, b"b" * 40_000, b"c" * MIB]):
        spool = Spool(64 * KIB)
        for piece in pieces:
            spool.write(piece)
        with spool.rewound() as file:
            assert file.read() == b"".join(pieces)


def test_a_limit_of_the_process_or_a_quota_refuses_a_body_and_cuts_none() -> None:
    """The kernel takes a part of the last write first, as at a quota."""
    code = """
import resource
from django_prodserve.http.exceptions import DiskShortError
from django_prodserve.http.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
fits = Spool(65536)
fits.write(bytes(99_000))
spool = Spool(65536)
spool.write(bytes(70_000))
try:
    spool.write(bytes(40_000))
except DiskShortError as error:
    print(len(fits.rewound().read()), error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "99000 TMPDIR takes no more bytes: File too large\n"


def test_without_a_directory_the_line_says_so(tmp_path: Path) -> None:
    code = """
import os, tempfile
tempfile.tempdir = os.path.join(os.getcwd(), "gone")
from django_prodserve.http.spool import Spool
Spool(65536).write(bytes(70_000))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "DiskShortError: TMPDIR takes no file: No such file or directory" in ended.stderr


@pytest.mark.usefixtures("memory_left")
def test_an_announced_body_needs_room_for_itself_and_for_a_copy() -> None:
    SPACE.limit_memory(lambda: 2**50, "tmpfs")
    spool = Spool(64 * KIB, expected=6 * MIB)
    spool.write(bytes(MIB))
    spool.file.close()
    SPACE.limit_memory(lambda: 10 * MIB, "tmpfs")
    with pytest.raises(DiskShortError) as raised:
        Spool(64 * KIB, expected=6 * MIB).write(bytes(MIB))
    assert str(raised.value) == (
        "TMPDIR is memory (tmpfs) with 10 MiB left, and a body of 6 MiB may need twice its size. "
        "Set --max-body, or TMPDIR to a disk"
    )


@pytest.mark.usefixtures("memory_left")
def test_a_body_of_unknown_length_ends_where_memory_holds_no_copy() -> None:
    spool = Spool(64 * KIB)
    spool.write(bytes(100 * KIB))
    SPACE.limit_memory(lambda: 2 * MIB, "tmpfs")
    with pytest.raises(DiskShortError, match=r"Django may copy .* of bodies"):
        spool.write(bytes(3 * MIB))
    assert spool.file.closed


def test_a_disk_that_cannot_take_an_announced_body_refuses_it_first(tmp_path: Path) -> None:
    file = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(DiskShortError, match=r"TMPDIR has .* free, a body of 1024 TiB is coming, and"):
            FileSpace().check(file, coming=2**50)
    finally:
        os.close(file)


def mounts(root: Path, kind: str, options: str = "rw", upper: str = "") -> FileRoot:
    """Return a machine on which the directory ``tmp`` is on a file system of this type."""
    (root / "tmp").mkdir(parents=True)
    device = os.stat(root / "tmp").st_dev
    lines = [
        "21 1 8:1 / / rw - ext4 /dev/sda1 rw",
        f"22 21 {os.major(device)}:{os.minor(device)} / /tmp rw shared:1 - {kind} none {options}",
    ]
    lines += [f"23 21 0:99 / {upper} rw - tmpfs none rw"] if upper else []
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("\n".join(lines))
    return FileRoot(root)


def test_tmpfs_and_ramfs_are_memory_and_disks_are_not(tmp_path: Path) -> None:
    for kind, expected in {"tmpfs": "tmpfs", "ramfs": "ramfs", "ext4": "", "xfs": "", "overlay": ""}.items():
        assert find_memory_type(mounts(tmp_path / kind, kind), "/tmp", {}) == expected


def test_an_overlay_is_what_takes_its_writes_where_that_can_be_seen(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    tree = mounts(tmp_path / "root", "overlay", f"rw,lowerdir=/a,upperdir={upper},workdir=/b", str(tmp_path))
    assert find_memory_type(tree, "/tmp", {}) == "tmpfs"
    hidden = mounts(tmp_path / "other", "overlay", "rw,upperdir=/not/here", str(tmp_path))
    assert find_memory_type(hidden, "/tmp", {}) == ""


def test_cloud_run_has_no_disk_and_a_missing_directory_is_no_error(tmp_path: Path) -> None:
    assert find_memory_type(FileRoot(tmp_path), "/tmp", {"K_SERVICE": "shop"}) == "Cloud Run's file system"
    assert find_memory_type(FileRoot(tmp_path), "/gone", {}) == ""


def test_the_tightest_memory_counts_without_pages_that_the_kernel_drops(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "proc/self/mountinfo").write_text("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n")
    (group / "memory.max").write_text(f"{256 * MIB}\n")
    (group / "memory.current").write_text(f"{150 * MIB}\n")
    (group / "memory.stat").write_text(f"inactive_file {20 * MIB}\nactive_file {10 * MIB}\n")
    files = MemoryFiles(0.5, tmp_path)
    assert files.left() == 128 * MIB - 120 * MIB
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {MACHINE_RESERVE // KIB + 5} kB\n")
    assert files.left() == 5 * KIB
    (group / "memory.current").write_text(f"{250 * MIB}\n")
    assert files.left() == 0
