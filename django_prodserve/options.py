"""What the operator may wish: one row per option, and every value remembers its source.

A row drives the flag, the ``PRODSERVE_*`` variable, the key in ``PRODSERVE``, ``--help`` and the
reference in the README. resolve.py fills the rows. Standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

from . import parsers
from .option_row import option
from .options_seen import SeenOptions
from .options_serving import ServingOptions


@dataclass(frozen=True, kw_only=True)
class Options(SeenOptions, ServingOptions):
    """Every wish, parsed; None (or the default) where nobody stated one."""

    static: bool = option(
        True,
        parsers.boolean,
        "Serve static files with WhiteNoise.",
        why="no second server is needed for them",
    )
    collect: bool = option(
        True,
        parsers.boolean,
        "Collect static files into a private directory where STATIC_ROOT is unset or empty.",
        why="nobody has to remember collectstatic",
    )
    media: bool = option(
        False,
        parsers.boolean,
        "Serve MEDIA_ROOT below MEDIA_URL, uploads that may hold script as downloads.",
        why="uploads are often kept elsewhere, or private",
    )
    wait_for_db: float = option(
        0.0,
        parsers.duration,
        "Wait up to this long until every database answers; 0 not at all.",
        metavar="TIME",
        why="not asked for",
    )
    migrate: bool = option(
        False,
        parsers.boolean,
        "Apply pending migrations first; servers that start together do it once.",
        why="not asked for",
    )
    collectstatic: bool = option(
        False,
        parsers.boolean,
        "Run collectstatic into STATIC_ROOT first.",
        why="not asked for",
    )
    local: bool = option(
        False,
        parsers.boolean,
        "Try a project on this machine: loopback only, DEBUG off, localhost allowed, plain http.",
        why="this is production",
    )
    strict: bool = option(
        False,
        parsers.boolean,
        "Refuse to serve where there are warnings.",
        why="warnings are told and do not stop a site",
    )
    allow_debug: bool = option(
        False,
        parsers.boolean,
        "Serve although DEBUG is on.",
        why="DEBUG shows settings and source code to visitors",
    )
    config: str | None = option(
        None,
        parsers.path,
        "A gunicorn.conf.py whose settings and hooks are used.",
        metavar="PATH",
        short="-c",
        gunicorn="config",
    )

    chdir: str | None = option(
        None,
        parsers.path,
        "The directory to work in, kept by this name: a link is followed anew at every reload.",
        metavar="PATH",
        why="where the command was typed",
        gunicorn="chdir",
    )
    keeper: bool | None = option(
        None,
        parsers.boolean,
        "Keep the pid and the sockets in a small process, so that reload can replace all the rest.",
    )
    env_file: str | None = option(
        None,
        parsers.path,
        "A file of KEY=VALUE lines, put into the environment before settings are read, at every reload anew.",
        metavar="PATH",
    )
    reload: bool = option(
        False,
        parsers.boolean,
        "Reload when a file of the project changes: for development and staging.",
        why="a deploy says when it is complete: prodserve reload",
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    gunicorn: Mapping[str, Sourced] = field(default_factory=dict, repr=False)
    """Gunicorn settings that have no row of their own: name to value and source."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """What was seen and not used."""

    def source(self, name: str) -> str:
        """Where the value of ``name`` came from; empty where nobody stated it."""
        return self.sources.get(name, "")


PREPARE = {
    "wait-for-db": ("wait_for_db", "30s"),
    "migrate": ("migrate", True),
    "collectstatic": ("collectstatic", True),
}
"""The words of ``PRODSERVE["PREPARE"]``: each is short for an option and its value."""


class Sourced(NamedTuple):
    """A raw value and where it was written."""

    value: Any
    source: str


def rows() -> tuple[Field[Any], ...]:
    """Every option's declaration, in the order of the reference."""
    return tuple(row for row in fields(Options) if "parse" in row.metadata)


def flag_name(name: str) -> str:
    """``keep_alive`` is typed as ``--keep-alive``."""
    return "--" + name.replace("_", "-")


def env_name(name: str) -> str:
    """``keep_alive`` is the variable ``PRODSERVE_KEEP_ALIVE``."""
    return "PRODSERVE_" + name.upper()
