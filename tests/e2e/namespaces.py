"""Real mounts for one process and its children: what is read-only or missing there is so nowhere else.

Mount namespaces need root, and a container may forbid them: the tests are skipped there, and say why.
"""

from __future__ import annotations

import functools
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .needs import lacking, need_program

EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@functools.cache
def _refusal() -> str:
    """Return why this process may not mount in a namespace of its own; nothing where it may."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    ended = subprocess.run(tried, capture_output=True, text=True, check=False)
    return ended.stderr.strip()


def mounted(*steps: str, then: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what stands before a command's arguments, so that it runs after these shell commands.

    The process that starts is the one that serves: every step becomes the next by exec. ``then`` is a
    program that does the same, such as setpriv with its options.
    """
    need_program("unshare")
    if _refusal():
        lacking("unshare", f"no mount namespace can be made: {_refusal()}")
    script = " && ".join([*steps, 'exec "$@"'])
    return ("-c", EXEC, "unshare", "--mount", "sh", "-c", script, "sh", *then, sys.executable)


def read_only(directory: Path | str) -> str:
    """Return the command that makes a directory read-only, without what is mounted below it."""
    place = shlex.quote(str(directory))
    if place == "/":
        return "mount -o remount,bind,ro /"
    return f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"


def over(path: str, source: Path | str) -> str:
    """Return the command that puts one file in another's place."""
    return f"mount --bind {shlex.quote(str(source))} {shlex.quote(path)}"
