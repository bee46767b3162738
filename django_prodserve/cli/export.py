"""``prodserve export``: plan for each target, then print the files or write them.

Runs in the command's process, main thread, with settings loaded. Starts nothing and opens no connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.options import option_fields
from ..errors import Problem, ProdserveError, UsageError
from ..export.build import NO_IMAGE, Build
from ..export.facts import Facts, flags_of, shown, stated_options
from ..export.kinds import KINDS, check_kinds
from ..export.layout import File
from ..export.site import Site
from ..plan.pipeline import inspect_for
from ..utils.notice import warning


def export(
    words: Sequence[str],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    out: Callable[[str], object],
    note: Callable[[str], object],
) -> None:
    """Print the files of these kinds; with ``--output`` write them into a directory."""
    kinds = check_kinds(words)
    _refuse_together(flags)
    files = [file for kind in kinds for file in files_of(kind, flags, environ, note)]
    if directory := flags.get("output"):
        for line in write(files, Path(directory), force=bool(flags.get("force"))):
            out(line)
    else:
        out("\n".join(file.text for file in files))


def files_of(
    kind: str, flags: Mapping[str, Any], environ: Mapping[str, str], note: Callable[[str], object] = str
) -> Sequence[File]:
    """Return the files of one kind for the project that is loaded."""
    _, target, render = KINDS[kind]
    # Variables of prodserve were set by the operator. All others describe this machine, not the target.
    known = {row.variable for row in option_fields()}
    kept = {name: text for name, text in environ.items() if name in known}
    plan, _ = inspect_for(target.machine(), flags, {**kept, **target.environ})
    if target.is_sized:
        for problem in plan.warnings:
            note(warning(problem))
    stated = [*flags_of(plan, frozenset(stated_options(plan)))]
    site = Site.inspect()
    build = _build(site) if target.is_container else NO_IMAGE
    return render(Facts.of(plan, site, target, shown(["prodserve", "export", kind, *stated]), build))


_builds: dict[str, Build] = {}
"""Each try loads the settings in a process, so several files share one answer."""


def _build(site: Site) -> Build:
    if site.directory not in _builds:
        _builds[site.directory] = Build.inspect(Path(site.directory), site.variables)
    return _builds[site.directory]


def _refuse_together(flags: Mapping[str, Any]) -> None:
    """Raise UsageError for what an export cannot follow."""
    if flags.get("force") and not flags.get("output"):
        raise UsageError(
            "--force works with --output.", "prodserve export WHAT --output DIR --force", topic="export"
        )
    if flags.get("local"):
        raise UsageError("--local tries a project on this machine; a file is for another.", "Remove --local.")


def write(files: Sequence[File], directory: Path, *, force: bool) -> Iterator[str]:
    """Write all files, or none; yield a line for each. Raise ProdserveError if a file is there already."""
    different = [file for file in files if _is_other(directory / file.name, file.text)]
    if different and not force:
        raise ProdserveError.of(
            Problem(
                f"{directory / file.name} exists, and differs from what export writes.",
                "To replace it: --force. To compare: prodserve export WHAT | diff FILE -",
                code="file",
                topic="export",
            )
            for file in different
        )
    for file in files:
        path = directory / file.name
        try:
            is_new = not path.exists() or path.read_text() != file.text
            if is_new:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text)
        except (OSError, UnicodeDecodeError) as error:
            raise _cannot_write(path, error) from error
        yield f"{path} {'written' if is_new else 'is up to date'}"


def _is_other(path: Path, text: str) -> bool:
    """Return whether something else is at this path."""
    try:
        return os.path.lexists(path) and path.read_text() != text
    except (OSError, UnicodeDecodeError):
        return True


def _cannot_write(path: Path, error: Exception) -> ProdserveError:
    reason = getattr(error, "strerror", "") or "it is not a text file"
    fix = "Name a directory in which this user may write: --output DIR"
    return ProdserveError(f"{path} cannot be written: {reason}.", fix, code="file", topic="export")
