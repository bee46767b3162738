"""The directory of this command, by a name that stays valid: a ``current`` link, not the present release.

Runs in the command, main thread, before anything is loaded. Standard library alone. The kernel knows a
working directory without the links on the way. A service manager such as systemd sets no PWD that names them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from ..errors import ProdserveError, UsageError
from .paths import why_unseen

DEEPEST = 6  # directories above this one that are searched
MAX_ENTRIES = 2000  # entries of each: a directory of releases has tens
PREFERRED = "current"


class Place(NamedTuple):
    """A working directory."""

    name: str
    """The path by which a later start enters it: through the link if there is one."""
    real: str
    """The same directory without links."""
    links: Mapping[str, str]
    """Names that lead here through a link, each with its target; if they change, there is a new release."""
    found: str = ""
    """The link, if the operator did not name it: it was found in the same parent directory."""
    rivals: tuple[str, ...] = ()
    """Equally good links to this directory: none of them is followed."""


class _State:
    start: Place | None = None
    here: Place | None = None
    entered = ""


def start() -> Place:
    """Return the directory that the command was started in."""
    if _State.start is None:
        _State.start = _State.here or find_place()
    return _State.start


def here() -> Place:
    """Return the directory that the project is served from: that of the start, or of ``--chdir``."""
    if _State.here is None:
        _State.here = start()
    return _State.here


def enter(path: str, *, source: str = "--chdir") -> None:
    """Change to this directory and remember the name that was given; a repeated call changes nothing."""
    if path == _State.entered:
        return
    before = start()
    name = os.path.join(before.name, path)
    try:
        os.chdir(path)
    except OSError as error:
        fix = "Name a directory that exists and that this user may enter."
        raise UsageError(
            f"{source} {path}: {gone(name) or error.strerror}.", fix, code="directory", topic="chdir"
        ) from error
    real = current()
    is_link = os.path.normpath(name) != real
    _State.entered = path
    if real == before.real and not is_link and source != "--chdir":
        return  # settings know their own directory without the links that lead there
    _State.here = Place(name, real, {name: real} if is_link else {})
    if before.real == real and os.path.isabs(path):
        _State.start = _State.here  # the same directory, by its better name


def current() -> str:
    """Return the working directory as the kernel knows it; raise ProdserveError if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        named = os.environ.get("PWD", "")
        with suppress(OSError):
            named = os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
        raise ProdserveError(
            f"The directory that this command was started in is gone{f': {named}' if named else ''}.",
            "A release that was removed? Enter the directory of the project again (cd), and repeat.",
            code="directory",
        ) from None


def find_place() -> Place:
    """Find the name of the working directory: as the operator wrote it, or by a link next to it."""
    real = current()
    typed = [Path(word) for word in sys.orig_argv[:8] if os.path.isabs(word)]
    for directory in (os.environ.get("PWD", ""), *(str(parent) for path in typed for parent in path.parents)):
        with suppress(OSError):
            if (
                os.path.isabs(directory)
                and os.path.normpath(directory) != real
                and os.path.samefile(directory, ".")
            ):
                return Place(directory, real, {directory: real})
    links = links_to(real)
    best = next((link for link in links if len(links) == 1 or _is_preferred(link, real)), "")
    if best:
        return Place(best, real, {best: real}, found=best)
    return Place(real, real, dict.fromkeys(links, real), rivals=links)


def links_to(real: str) -> tuple[str, ...]:
    """Return the names of a directory through links next to it or next to a directory above it.

    The closest links count: ``/srv/shop/current`` before ``/srv/www``, which leads to ``/srv/shop``. In a
    directory such as /tmp any user may have created a link. So only links of root, of this user and of the
    directory's owner count.
    """
    owners = {0, os.geteuid()}
    with suppress(OSError):  # another user may not see it
        owners.add(os.stat(real).st_uid)
    found: dict[str, list[str]] = {}
    for above in list(Path(real).parents)[:DEEPEST]:
        for link in _links_in(above):
            target = os.path.realpath(link)
            inside = real[len(target) :]
            leads_here = real.startswith(target) and (not inside or inside.startswith(os.sep))
            is_alias = above == above.parent and inside  # such as /lib, which leads to /usr/lib
            if leads_here and not is_alias and above in Path(target).parents:
                with suppress(OSError):
                    if os.lstat(link).st_uid in owners:
                        found.setdefault(target, []).append(link + inside)
    closest = max(found, key=len, default="")
    return tuple(sorted(found.get(closest, ())))


def _links_in(directory: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in islice(entries, MAX_ENTRIES):
            if entry.is_symlink():
                yield entry.path


def _is_preferred(link: str, real: str) -> bool:
    """Return whether the link itself, not its target, has the usual name of the release that serves."""
    parts = Path(link).parts
    return PREFERRED in parts and PREFERRED not in Path(real).parts


def by_name(path: str) -> str:
    """Return a path with the better name of its directory, if that is the project's."""
    place = here()
    inside = path.removeprefix(place.real)
    is_inside = inside != path and (not inside or inside.startswith(os.sep))
    return place.name + inside if is_inside else path


def gone(name: str) -> str:
    """Return why a directory cannot be entered: a link without its target, or it is missing; else empty."""
    if os.path.exists(name):
        return ""
    if reason := why_unseen(name):
        return reason
    is_link = os.path.islink(name)
    return f"it leads to {os.path.realpath(name)}, which does not exist" if is_link else "it does not exist"


def refuse_the_old(links: Mapping[str, str], files: Iterable[str | None]) -> None:
    """Raise ProdserveError if a link has changed and code still comes from its old target.

    ``links`` are those of the generation that serves; ``files`` are the sources of this generation's code.
    """
    loaded = [os.path.realpath(file) for file in files if file]
    for link, before in links.items():
        now = os.path.realpath(link)
        old = next((file for file in loaded if file.startswith(before + os.sep)), "")
        if now != before and os.path.isdir(now) and old:
            raise ProdserveError(
                f"{link} leads to {now} now, but this reload would serve {before} again: {old} is loaded.",
                f"The server was started with a path into that release. Start it in {link}, or with "
                f"--chdir {link}, and name no other release. Restart it once for that.",
            )
