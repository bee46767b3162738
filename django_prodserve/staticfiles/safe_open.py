"""Open a file that a client named, inside its directory: no hidden part, no link that leads out.

Called in every worker, on a request's thread: an open, a stat and a readlink.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys

# No empty or hidden part (so no "." and ".."), no backslash, no control character.
NAME = re.compile(rb"(?!\.)[^/\\\x00-\x1f\x7f]+(?:/(?!\.)[^/\\\x00-\x1f\x7f]+)*")
# Opening must not wait for a pipe, or make a terminal ours.
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
NO_FILE = {
    errno.EACCES,
    errno.EINVAL,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}


def open_inside(root: str, name: bytes) -> tuple[int, os.stat_result] | None:
    """Return the visible regular file of that name, open, and its stat; None for anything else.

    ``root`` must be a path without links.
    """
    if not NAME.fullmatch(name):
        return None
    within = os.fsencode(root)
    asked = within + b"/" + name
    try:
        handle = os.open(asked, FLAGS)
    except OSError as error:
        if error.errno in NO_FILE:
            return None
        raise
    facts = os.fstat(handle)
    # Check the opened file, not the path before opening it: a link may lead anywhere.
    inside = real_path(handle, asked).removeprefix(within + b"/")
    if stat.S_ISREG(facts.st_mode) and NAME.fullmatch(inside):
        return handle, facts
    os.close(handle)
    return None


def real_path(handle: int, asked: bytes) -> bytes:
    """Return the path of an open file, without links."""
    try:
        if sys.platform == "darwin":
            return fcntl.fcntl(handle, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")
        return os.readlink(b"/proc/self/fd/%d" % handle)
    except OSError:  # no /proc on this system
        return os.path.realpath(asked)
