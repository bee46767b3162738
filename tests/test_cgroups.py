"""The formats of /proc/self/cgroup and /proc/self/mountinfo, as the kernel writes them."""

from __future__ import annotations

import pytest

from django_prodserve.machine.cgroups import (
    Mount,
    parse_amount,
    parse_memberships,
    parse_mounts,
    printable,
    shorten,
    visible_levels,
)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        pytest.param("0::/a/b\n", {"": "/a/b"}, id="v2 has number 0 and no name"),
        pytest.param("0::/\n", {"": "/"}, id="the root group"),
        pytest.param(
            "4:memory:/m\n3:cpu,cpuacct:/c\n0::/u\n",
            {"memory": "/m", "cpu": "/c", "cpuacct": "/c", "": "/u"},
            id="a hybrid names each v1 controller",
        ),
        pytest.param("1:name=systemd:/init\n", {"name=systemd": "/init"}, id="a named hierarchy"),
        pytest.param("0::/a:b::c\n", {"": "/a:b::c"}, id="a path may hold colons"),
        pytest.param("0::/a b\tc\\d\n", {"": "/a b\tc\\d"}, id="nothing in a path is escaped"),
        pytest.param("0::/a \n", {"": "/a "}, id="a blank at the end belongs to the name"),
        pytest.param("0::/a\x0b\x85b\n", {"": "/a\x0b\x85b"}, id="only newlines end a line"),
        pytest.param("0::/é\udcff\n", {"": "/é\udcff"}, id="a path need not be UTF-8"),
        pytest.param("0::/a (deleted)\n", {"": "/a"}, id="a removed group keeps its path"),
        pytest.param("0::/../x\n", {"": "/../x"}, id="outside of the namespace"),
        pytest.param("0::/a", {"": "/a"}, id="the last newline may be missing"),
        pytest.param("junk\n5:cpu\n7::/x\n0::x\n\n", {}, id="lines that do not fit are skipped"),
        pytest.param("", {}, id="an empty file"),
    ],
)
def test_memberships(text, paths):
    assert parse_memberships(text) == paths


V2 = Mount(version=2, root=(), point="/sys/fs/cgroup")


def a_v1_mount(*controllers, point="/c", root=()):
    names = frozenset({"rw", *controllers})
    return Mount(version=1, root=root, point=point, controllers=names)


@pytest.mark.parametrize(
    ("text", "mounts"),
    [
        pytest.param("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", [V2], id="v2"),
        pytest.param("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 - rw", [V2], id="a source of -"),
        pytest.param("31 23 0:28 / /sys/fs/cgroup rw - cgroup2  rw", [V2], id="an empty source"),
        pytest.param("31 23 0:28 / /sys/fs/cgroup rw - cgroup2", [V2], id="no source, no options"),
        pytest.param("31 23 0:28 / /sys/fs/cgroup rw shared:4 master:1 - cgroup2 none rw", [V2], id="tags"),
        pytest.param(
            "1 2 0:3 / /c rw - cgroup cgroup rw,cpu,cpuacct",
            [a_v1_mount("cpu", "cpuacct")],
            id="v1 names its controllers in the options",
        ),
        pytest.param(
            "1 2 0:3 / /c rw - cgroup cgroup rw,cpuset",
            [a_v1_mount("cpuset")],
            id="cpuset is not cpu",
        ),
        pytest.param(
            r"1 2 0:3 /a\040b /c\134d\011e rw - cgroup cgroup rw,cpu",
            [a_v1_mount("cpu", root=("a b",), point="/c\\d\te")],
            id="root and mount point are escaped",
        ),
        pytest.param(
            r"1 2 0:3 / /c\134040 rw - cgroup cgroup rw,cpu",
            [a_v1_mount("cpu", point="/c\\040")],
            id="an escaped backslash does not start an escape",
        ),
        pytest.param(
            "1 2 0:3 / /c rw - cgroup cgroup rw,path=C:\\Program Files,cpu",
            [a_v1_mount("path=C:\\Program Files", "cpu")],
            id="blanks in the options (WSL)",
        ),
        pytest.param(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs t rw\n31 2 0:8 / /sys/fs/cgroup rw - cgroup2 c rw",
            [V2],
            id="a mount over a tmpfs",
        ),
        pytest.param(
            "31 2 0:8 / /sys/fs/cgroup rw - cgroup2 c rw\n31 23 0:28 / /sys/fs/cgroup rw - tmpfs t rw",
            [],
            id="a tmpfs hides an earlier mount",
        ),
        pytest.param(
            "1 2 0:3 / /c rw - cgroup c rw,cpu\n1 2 0:3 /x /c rw - cgroup c rw,cpu",
            [a_v1_mount("cpu", root=("x",))],
            id="a bind mount hides an earlier mount",
        ),
        pytest.param("1 2 0:3 / /../c rw - cgroup c rw,cpu", [], id="no mount point leaves the root"),
        pytest.param("1 2 0:3 / c rw - cgroup c rw,cpu", [], id="no mount point is relative"),
        pytest.param("1 2 - - - - -\n- - cgroup2\n\n1 2 3 4 5 6 -", [], id="lines that do not fit"),
        pytest.param("", [], id="an empty file"),
    ],
)
def test_mounts(text, mounts):
    assert parse_mounts(text) == tuple(mounts)


@pytest.mark.parametrize(
    ("root", "path", "directories", "certain"),
    [
        pytest.param("/", "/a/b", ["/c/a/b", "/c/a", "/c"], True, id="every level up to the mount"),
        pytest.param("/", "/", ["/c"], True, id="the root group is the mount point"),
        pytest.param("/a/b", "/a/b", ["/c"], True, id="a container sees its own group alone"),
        pytest.param("/a", "/a/b", ["/c/b", "/c"], True, id="a parent is mounted"),
        pytest.param("/a", "/ab", ["/c"], False, id="names are compared whole"),
        pytest.param("/a/b", "/a", ["/c"], False, id="a child is mounted"),
        pytest.param("/../..", "/", ["/c"], False, id="unshare without a new mount"),
        pytest.param("/", "/../x", ["/c"], False, id="the process left the namespace"),
        pytest.param("/..", "/../x", ["/c/x", "/c"], True, id="the mount shows the sibling"),
        pytest.param("/..", "/../../x", ["/c"], False, id="the mount does not show the uncle"),
    ],
)
def test_levels(root, path, directories, certain):
    names = tuple(name for name in root.split("/") if name)
    group = visible_levels(Mount(version=2, root=names, point="/c"), path)
    assert [level.directory for level in group.levels] == directories
    assert group.limits_visible is certain


def test_levels_of_a_mount_on_the_root_directory():
    group = visible_levels(Mount(version=2, root=(), point="/"), "/a")
    assert [level.file("cpu.max") for level in group.levels] == ["/a/cpu.max", "/cpu.max"]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("100000\n", 100000),
        ("18446744073709551615", 2**64 - 1),
        ("0", None),
        ("-1", None),
        ("+5", None),
        ("1_000", None),
        ("1e5", None),
        ("1.5", None),
        ("١٢", None),
        ("9" * 60, None),
        ("9" * 5000, None),
        ("", None),
        ("max", None),
        ("5\n6", None),
    ],
)
def test_amounts_are_positive_decimal_numbers(text, amount):
    assert parse_amount(text) == amount


def test_a_name_cannot_forge_a_log_line():
    assert printable("a\n\x1b[31mERROR\udcff") == r"a\n\x1b[31mERROR\udcff"


def test_a_long_name_keeps_both_ends():
    name = "kubepods-pod" + "0123456789abcdef" * 3 + ".slice"
    assert shorten(name) == "kubepods-pod….slice"
