"""The result of ``prodserve tune`` as one page that needs no server and no network.

Lives in the command. The chart library is the one of the live page (worker/management/live_page).
"""

from __future__ import annotations

import html
import json
import os
import time
from importlib.resources import files
from pathlib import Path

from .. import __version__
from ..errors import UsageError
from ..utils.units import format_clock
from . import report
from .result import TuneResult

LIBRARY = "django_prodserve.worker.management.live_page"


def prepare(path: str, *, force: bool) -> Path | None:
    """Return the file to write, before anything is measured; raise UsageError if it cannot be written."""
    if not path:
        return None
    place = Path(path)
    if place.is_dir():
        raise UsageError(f"--html {path} is a directory.", f"--html {place / 'tune.html'}", code="file")
    if place.exists() and not force:
        fix = f"--html {path} --force replaces it."
        raise UsageError(f"--html {path} exists already.", fix, code="file", topic="tune")
    if not place.parent.is_dir():
        raise UsageError(
            f"--html {path}: there is no directory {place.parent}.", f"mkdir -p {place.parent}", code="file"
        )
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise UsageError(f"--html {path}: this user may not write there.", "Name another file.", code="file")
    return place


def write(path: Path, result: TuneResult, *, force: bool) -> None:
    """Write the page; a file that has appeared meanwhile stays."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(render(result))
    except OSError as error:
        raise UsageError(
            f"--html {path} cannot be written: {error.strerror or error}.", "Name another file.", code="file"
        ) from error


def render(result: TuneResult) -> str:
    """Return the page."""
    ours, library = files(__package__), files(LIBRARY)
    facts = {**result.as_dict(), "summary": [*report.summary(result)], "version": __version__}
    # A path is text of clients or of the project: no character of it may end the script.
    data = json.dumps(facts).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    text = ours.joinpath("page.html").read_text(encoding="utf-8")
    day = time.strftime("%Y-%m-%d", time.gmtime(result.when))
    title = html.escape(f"{result.settings}, {day} {format_clock(result.when)}")
    for name, content in (
        ("{{ title }}", title),
        ("{{ styles }}", library.joinpath("uPlot.min.css").read_text(encoding="utf-8")),
        ("{{ library }}", library.joinpath("uPlot.iife.min.js").read_text(encoding="utf-8")),
        ("{{ data }}", data),
    ):
        text = text.replace(name, content)
    return text
