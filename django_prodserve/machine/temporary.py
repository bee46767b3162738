"""Whether files in the temporary directory are memory. Reads /proc and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .cgroups import FileRoot, unescape

MEMORY = {"tmpfs", "ramfs", "devtmpfs", "rootfs"}
"""Types of file systems whose files are memory; rootfs is the first one of a machine without a disk."""


def find_memory_type(tree: FileRoot, directory: str, environ: Mapping[str, str]) -> str:
    """Return ``tmpfs`` or a similar type if files in this directory are memory; empty if not, or unknown."""
    if environ.get("K_SERVICE"):  # Cloud Run's sandbox shows another type
        return "Cloud Run's file system"
    try:
        device = os.stat(tree.root / directory.lstrip("/")).st_dev
    except OSError:
        return ""
    mounts = [*_mounts(tree.read("/proc/self/mountinfo") or "")]
    name = f"{os.major(device)}:{os.minor(device)}"
    kind, options = next(((kind, options) for number, _, kind, options in mounts if number == name), ("", ""))
    if kind == "overlay":
        kind = _type_below(options, mounts)
    return kind if kind in MEMORY else ""


def _mounts(text: str) -> list[tuple[str, str, str, str]]:
    """Return device, mount point, type and options of each mount (proc.rst, 3.5)."""
    found = []
    for line in text.split("\n"):
        fields = line.split(" ")
        if "-" in fields[6:]:
            kind, _source, *options = [*fields[fields.index("-", 6) + 1 :], "", ""]
            found.append((fields[2], unescape(fields[4]), kind, options[0]))
    return found


def _type_below(options: str, mounts: list[tuple[str, str, str, str]]) -> str:
    """Return the type of the file system that takes what an overlay writes, if this process can see it."""
    upper = next((word[9:] for word in options.split(",") if word.startswith("upperdir=")), "")
    if not upper or not os.path.isdir(upper):
        return ""
    parents = [
        (point, kind) for _, point, kind, _ in mounts if f"{upper}/".startswith(f"{point.rstrip('/')}/")
    ]
    return max(parents, key=lambda mount: len(mount[0]), default=("", ""))[1]
