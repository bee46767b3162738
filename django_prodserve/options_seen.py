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
    log_format: str = option(
        "auto",
        parsers.one_of("text", "json", "auto"),
        "Lines of the server, the access log, Django and the project: text, json, or json off a terminal.",
        metavar="text|json|auto",
        why="people read terminals, programs read all else",
    )
    log_redact: tuple[str, ...] | None = option(
        None,
        parsers.words,
        "Hide in logs: query (whole query strings), or parameters by name, such as token,password.",
        metavar="LIST",
        why="nothing is hidden that nobody has named",
    )
    log_sample: float = option(
        1.0,
        parsers.share,
        "Share of requests in the access log, such as 10%; those answered with 5xx always are.",
        metavar="SHARE",
        why="every request",
    )
    log_slow: float = option(
        0.0,
        parsers.duration,
        "Log only requests this slow or with 5xx (and --log-sample's share of the others); 0 all.",
        metavar="TIME",
        why="every request, however quick",
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
