"""``prodserve export``: plan for each target, then print the files or write them.

Runs in the command's process, main thread, with settings loaded. Starts nothing and opens no connection.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.gunicorn import CMD_ARGS
from ..config.options import option_fields
from ..errors import Problem, ProdserveError, UsageError
from ..export import reading
from ..export.build import NO_IMAGE, Build
from ..export.check import contradictions
from ..export.facts import Facts, flags_of, stated_options
from ..export.kinds import KINDS, check_kinds
from ..export.layout import File
from ..export.servers import needed, parse_servers
from ..export.site import Site
from ..plan.pipeline import plan_for
from ..utils.notice import warning
from .arguments import control_parser


def export(
    words: Sequence[str],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    out: Callable[[str], object],
    note: Callable[[str], object],
) -> None:
    """Print the files of these kinds; with ``--output`` write them into a directory."""
    _refuse_together(flags)
    if file := flags.get("check"):
        out(check(Path(file), words, flags))
        return
    kinds = check_kinds(words)
    parse_servers(flags.get("server", ()), kinds)
    if environ.get(CMD_ARGS, "").strip():
        message = f"{CMD_ARGS} of this shell is in no file: it describes this machine."
        fix = f'Use PRODSERVE["GUNICORN"] in the settings, or set {CMD_ARGS} for the server'
        note(warning(Problem(message, fix, topic="export")))
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
    environ = {**ours(environ), **target.environ}
    plan = plan_for(target.machine(), flags, environ)
    servers = parse_servers(flags.get("server", ()), [kind])
    if servers and (more := needed(plan, servers)):
        plan = plan_for(target.machine(), {**flags, **more}, environ)
    if target.is_sized:
        for problem in plan.warnings:
            if problem.topic != "graceful-timeout":  # the file sets when the platform kills
                note(warning(problem))
    stated = [f"--server={address}" for address in servers]
    stated += flags_of(plan, frozenset(stated_options(plan)))
    site = Site.inspect()
    build = _build(site) if target.is_container else NO_IMAGE
    made_by = shlex.join(["prodserve", "export", kind, *stated])
    return render(Facts.of(plan, site, target, made_by, build, servers))


def ours(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an operator set for prodserve. All others describe this machine."""
    return {
        name: text
        for name, text in environ.items()
        if name.startswith("PRODSERVE_") and name != "PRODSERVE_MILLICPUS"
    }


def check(file: Path, words: Sequence[str], flags: Mapping[str, Any]) -> str:
    """Compare a file with the plan for the command that it holds; raise ProdserveError if they contradict."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or "it is not a text file"
        fix = "Name a file that this user may read: --check FILE"
        raise ProdserveError(f"{file} cannot be read: {reason}.", fix, code="file", topic="export") from error
    kind = check_kinds(words)[0] if words else reading.kind_of(text)
    if not kind:
        raise UsageError(
            f"{file} shows no kind of file.", f"prodserve export KIND --check {file}", topic="export"
        )
    target = KINDS[kind].target
    plan = plan_for(
        target.machine(), {**flags, **options_in(text)}, {**ours(reading.variables(text)), **target.environ}
    )
    if found := contradictions(kind, text, Facts.of(plan, Site.inspect(), target, "")):
        raise ProdserveError.of(problem._replace(message=f"{file}: {problem.message}") for problem in found)
    return f"{file}: its numbers agree with the plan"


def options_in(text: str) -> dict[str, Any]:
    """Return the options that the command of a file sets, and the size that the file limits."""
    parsed = vars(control_parser("prodserve").parse_args(reading.command(text)))
    names = {row.name for row in option_fields()} - {"chdir", "env_file", "config"}
    return {**reading.limits(text), **{name: value for name, value in parsed.items() if name in names}}


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
    new = [file for file in files if not _is_there(directory / file.name, file.text)]
    others = [file for file in new if os.path.lexists(directory / file.name)]
    if others and not force:
        raise ProdserveError.of(
            Problem(
                f"{directory / file.name} exists, and differs from what export writes.",
                "To replace it: --force. To compare: prodserve export WHAT | diff FILE -",
                code="file",
                topic="export",
            )
            for file in others
        )
    for file in files:
        path = directory / file.name
        if file in new:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.text)
            except OSError as error:
                raise ProdserveError(
                    f"{path} cannot be written: {error.strerror}.",
                    "Name a directory in which this user may write: --output DIR",
                    code="file",
                    topic="export",
                ) from error
        yield f"{path} {'written' if file in new else 'is up to date'}"


def _is_there(path: Path, text: str) -> bool:
    """Return whether this text is in the file already."""
    try:
        return path.read_text() == text
    except (OSError, UnicodeDecodeError):
        return False
