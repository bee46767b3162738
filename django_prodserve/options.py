"""What the operator may wish: one row per option, and every value remembers its source.

A row drives the flag, the ``PRODSERVE_*`` variable, the key in ``PRODSERVE``, ``--help`` and the
reference in the README. resolve.py fills the rows. Standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

from . import parsers


def option(
    default: Any,
    parse: Callable[[Any], Any],
    help: str,
    *,
    metavar: str = "",
    why: str = "",
    gunicorn: str = "",
    short: str = "",
) -> Any:
    """Declare one option. ``why`` defends the default; ``gunicorn`` is the name of its setting there."""
    metadata = {
        "parse": parse,
        "help": help,
        "metavar": metavar,
        "why": why,
        "gunicorn": gunicorn,
        "short": short,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every wish, parsed; None (or the default) where nobody stated one."""

    bind: tuple[str, ...] | None = option(
        None,
        parsers.addresses,
        "Address to serve on, repeatable: HOST:PORT, PORT, unix:PATH, fd://N.",
        metavar="ADDRESS",
        short="-b",
        gunicorn="bind",
    )
    profile: str = option(
        "io",
        parsers.one_of("io", "cpu"),
        "What requests spend their time on: io (waiting for databases and services) or cpu.",
        metavar="io|cpu",
        why="most Django projects wait more than they compute",
    )
    workers: parsers.Count | None = option(
        None,
        parsers.worker_count,
        "Worker processes: a number, auto, or a formula in n (whole CPUs) such as 2n+1.",
        metavar="N",
        short="-w",
        gunicorn="workers",
    )
    threads: int | None = option(
        None,
        parsers.positive,
        "Threads per worker.",
        metavar="N",
        gunicorn="threads",
    )
    worker_class: str = option(
        "prodserve",
        parsers.worker_class,
        "prodserve (clients wait on an event loop, threads run Django), or Gunicorn's gthread or sync.",
        metavar="prodserve|gthread|sync",
        short="-k",
        why="no client holds a thread, however slow it is",
        gunicorn="worker_class",
    )
    cpus: float | None = option(
        None, parsers.cpus, "CPUs to plan for, instead of what was detected.", metavar="1.5|1500m"
    )
    memory: int | None = option(
        None, parsers.size, "Memory to plan for, instead of what was detected.", metavar="SIZE"
    )
    db_connections: int | None = option(
        None,
        parsers.positive,
        "Most database connections this server may open; caps workers x threads.",
        metavar="N",
    )
    queue_timeout: float = option(
        2.0,
        parsers.duration,
        "Refuse requests with 503 while they would wait for a thread this long for good; 0 never.",
        metavar="TIME",
        why="a longer wait helps nobody: clients have gone by then",
    )
    max_body: int | None = option(
        None,
        parsers.size,
        "Largest request body; a larger one is refused with 413.",
        metavar="SIZE",
        why="Django has limits of its own for what it keeps in memory",
    )
    max_requests: int = option(
        0,
        parsers.count,
        "Replace a worker after about this many requests; 0 never.",
        metavar="N",
        why="workers are not replaced without a cause",
        gunicorn="max_requests",
    )
    max_requests_jitter: int | None = option(
        None,
        parsers.count,
        "Spread of --max-requests, so that workers are not replaced together.",
        metavar="N",
        gunicorn="max_requests_jitter",
    )
    max_lifetime: float = option(
        0.0,
        parsers.duration,
        "Replace a worker after this time; 0 never.",
        metavar="TIME",
        why="workers are not replaced without a cause",
    )
    timeout: float = option(
        120.0,
        parsers.duration,
        "The longest a request may run: it is interrupted and answered 504, or its worker replaced; 0 off.",
        metavar="TIME",
        short="-t",
        why="longer than any page that somebody waits for",
    )
    slow: float = option(
        10.0,
        parsers.duration,
        "Log a request that has run for this long once, with the stack of its thread; 0 off.",
        metavar="TIME",
        why="nobody waits that long willingly",
    )
    graceful_timeout: float = option(
        25.0,
        parsers.duration,
        "How long running requests may take to finish when the server stops.",
        metavar="TIME",
        why="5 s less than the 30 s after which most platforms kill",
        gunicorn="graceful_timeout",
    )
    keep_alive: float = option(
        75.0,
        parsers.duration,
        "How long an idle connection is kept open.",
        metavar="TIME",
        why="longer than the 60 s after which usual load balancers close",
        gunicorn="keepalive",
    )
    backlog: int = option(
        2048,
        parsers.positive,
        "Most connections that may wait to be accepted.",
        metavar="N",
        why="Gunicorn's default; the kernel lowers it to net.core.somaxconn",
        gunicorn="backlog",
    )
    worker_connections: int = option(
        1000,
        parsers.positive,
        "Most connections of one worker, idle ones included.",
        metavar="N",
        why="Gunicorn's default; far more than threads, so that idle connections are kept",
        gunicorn="worker_connections",
    )
    limit_request_line: int = option(
        4094,
        parsers.count,
        "Longest request line in bytes.",
        metavar="BYTES",
        why="Gunicorn's default",
        gunicorn="limit_request_line",
    )
    limit_request_fields: int = option(
        100,
        parsers.positive,
        "Most header fields of a request.",
        metavar="N",
        why="Gunicorn's default",
        gunicorn="limit_request_fields",
    )
    limit_request_field_size: int = option(
        8190,
        parsers.count,
        "Longest header field in bytes.",
        metavar="BYTES",
        why="Gunicorn's default",
        gunicorn="limit_request_field_size",
    )
    preload: bool | None = option(
        None,
        parsers.boolean,
        "Load the application once, before the workers are forked.",
        gunicorn="preload_app",
    )
    warmup: str | None = option(
        None,
        parsers.warmup,
        "Path of the request that warms the application up before the port listens; off for none.",
        metavar="PATH",
    )
    umask: int = option(
        0o007,
        parsers.umask,
        "File mode mask of unix sockets, octal.",
        metavar="OCTAL",
        why="user and group may connect, others not",
        gunicorn="umask",
    )
    certfile: str | None = option(
        None, parsers.path, "TLS certificate (PEM).", metavar="PATH", gunicorn="certfile"
    )
    keyfile: str | None = option(None, parsers.path, "TLS key (PEM).", metavar="PATH", gunicorn="keyfile")
    trusted_proxies: tuple[str, ...] = option(
        ("loopback",),
        parsers.proxies,
        "Peers whose X-Forwarded-* is believed: loopback, private, unix, none, *, addresses, networks.",
        metavar="LIST",
        why="only a proxy on this machine is believed",
        gunicorn="forwarded_allow_ips",
    )
    trusted_hops: int | None = option(
        None,
        parsers.positive,
        "Which entry of X-Forwarded-For, counted from the right, is the client.",
        metavar="N",
    )
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
    server_timing: bool = option(
        False,
        parsers.boolean,
        "Tell browsers how long a request waited and ran, in a Server-Timing header.",
        why="timing is nobody's business in production",
    )
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


def reference() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield flag, variable, settings key, default and help of every option, for docs."""
    for row in rows():
        yield (
            flag_name(row.name),
            env_name(row.name),
            row.name.upper(),
            _default_text(row),
            row.metadata["help"],
        )


def _default_text(row: Field[Any]) -> str:
    if row.default is MISSING or row.default is None:
        return "computed" if row.name in COMPUTED else "none"
    if isinstance(row.default, bool):
        return "on" if row.default else "off"
    if isinstance(row.default, tuple):
        return ", ".join(row.default)
    if row.name == "umask":
        return f"{row.default:04o}"
    return f"{row.default:g}" if isinstance(row.default, float) else str(row.default)


COMPUTED = {
    "bind",
    "workers",
    "threads",
    "cpus",
    "memory",
    "max_requests_jitter",
    "preload",
    "warmup",
    "trusted_hops",
}
"""Options whose default is worked out by the plan."""
