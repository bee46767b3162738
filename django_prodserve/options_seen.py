"""The options of what is seen of the server: logs, times. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass

from . import parsers
from .option_row import option


@dataclass(frozen=True, kw_only=True)
class SeenOptions:
    """Who gets to know what."""

    access_log: str | None = option(
        None,
        parsers.path,
        "Write a line per request to PATH, or to standard output with -.",
        metavar="PATH|-",
        gunicorn="accesslog",
    )
    log_level: str = option(
        "info",
        parsers.one_of("debug", "info", "warning", "error", "critical"),
        "Least severity of the server's own lines.",
        metavar="LEVEL",
        why="what an operator needs; Gunicorn's own chatter is at debug",
        gunicorn="loglevel",
    )
    health: tuple[str, ...] = option(
        ("/livez", "/readyz"),
        parsers.probes,
        "Paths of the probes of life and of readiness, answered before Django; off for none.",
        metavar="LIVE,READY",
        why="where Kubernetes' own components have them",
    )
    ready: tuple[str, ...] = option(
        (),
        parsers.checks,
        "Checks of readiness: database, and dotted paths of callables of the project's.",
        metavar="LIST",
        why="a service that others may do without should not take the site down",
    )
    manage: str | None = option(
        None,
        parsers.manage,
        "Address for who looks after the server: HOST:PORT, PORT (on loopback), unix:PATH; off for none.",
        metavar="ADDRESS",
        why="nobody has asked for it",
    )
    server_timing: bool = option(
        False,
        parsers.boolean,
        "Tell browsers how long a request waited and ran, in a Server-Timing header.",
        why="timing is nobody's business in production",
    )
