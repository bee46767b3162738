"""The options: one row for each, and every value remembers its source.

A row defines the flag, the ``PRODSERVE_*`` variable, the key in ``PRODSERVE`` and the help text. The
reference in docs/options.md, the output of ``plan``, the file of ``plan --gunicorn-conf`` and the workers use
it, too. resolve.py fills the rows. Standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple

from . import kinds
from .parsers import Count, ThreadRange
from .row import Row, option
from .side_processes import SideProcess


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every option, parsed; None (or the default) if no source sets it."""

    bind: tuple[str, ...] | None = option(
        None,
        kinds.ADDRESSES,
        "Address to serve on, repeatable: HOST:PORT, PORT, unix:PATH, fd://N.",
        gunicorn="bind",
        short="-b",
        computed="127.0.0.1:8000, or 0.0.0.0 in a container and with PORT",
    )
    profile: str = option(
        "io",
        kinds.choice("io", "cpu"),
        "What requests spend their time on: io (waiting for databases and services) or cpu.",
        why="most Django projects wait more than they compute",
    )
    workers: Count | None = option(
        None,
        kinds.WORKERS,
        "Worker processes: a number, auto, or a formula in n (whole CPUs) such as 2n+1.",
        gunicorn="workers",
        short="-w",
        computed="from CPUs, memory and database limits",
    )
    threads: ThreadRange | None = option(
        None,
        kinds.THREADS,
        "Threads per worker: a number, or a range such as 16..64 that follows the load.",
        gunicorn="threads",
        computed="from --profile, and more while requests only wait, within memory and database limits",
    )
    worker_class: str = option(
        "prodserve",
        kinds.WORKER_CLASS,
        "prodserve (loops for clients and async views, threads for sync views), Gunicorn's gthread, sync "
        "or asgi, or uvicorn.",
        why="a slow client occupies no thread",
        gunicorn="worker_class",
        short="-k",
        exported=True,
    )
    cpus: float | None = option(
        None,
        kinds.CPUS,
        "CPUs to plan for, instead of the detected number.",
        computed="from the machine",
        exported=True,
        worker=True,
    )
    memory: int | None = option(
        None,
        kinds.SIZE,
        "Memory to plan for, instead of the detected size.",
        none="unknown",
        computed="from the machine",
    )
    db_connections: int | None = option(
        None,
        kinds.POSITIVE,
        "Maximum database connections of this server; caps workers, threads and leases.",
    )
    apply_advice: bool = option(
        False,
        kinds.SWITCH,
        "Start with the profile and the threads that earlier traffic or prodserve tune has shown to fit.",
        why="each start computes the same numbers",
    )
    queue_timeout: float = option(
        2.0,
        kinds.DURATION,
        "Reject new requests with 503 while the queue wait stays above this; 0 disables.",
        why="a longer queue delays every request and serves no more of them",
        exported=True,
        worker=True,
    )
    lanes: str = option(
        "on",
        kinds.choice("on", "off"),
        "Limit a route to half of the threads while requests of other routes wait for it.",
        why="one slow route must not stop the others",
        exported=True,
        worker=True,
    )
    concurrency_limit: str = option(
        "auto",
        kinds.choice("auto", "off"),
        "Whether a worker runs fewer CPU-bound requests at a time than it has threads.",
        why="CPU-bound requests delay each other and the event loop",
        exported=True,
        worker=True,
    )
    asgi: str = option(
        "hybrid",
        kinds.choice("hybrid", "asgi", "off"),
        "Run async views on an asyncio loop next to the threads; asgi: all views; off: none.",
        why="an async view that waits holds no thread",
        exported=True,
    )
    roads: tuple[str, ...] = option(
        (),
        kinds.ROADS,
        "Run single views on another road: names of routes or how paths begin, each =threads or =loop.",
        why="async views run on the loop, sync views in threads",
        exported=True,
    )
    max_body: int | None = option(
        None,
        kinds.SIZE,
        "Maximum size of a request body; larger ones are rejected with 413.",
        why="Django limits what it keeps in memory",
        exported=True,
        worker=True,
    )
    max_requests: int = option(
        0,
        kinds.COUNT,
        "Replace a worker after about this many requests; 0 disables.",
        why="workers are not replaced without a cause",
        gunicorn="max_requests",
    )
    max_requests_jitter: int | None = option(
        None,
        kinds.COUNT,
        "Random addition to --max-requests, so that workers do not restart together.",
        gunicorn="max_requests_jitter",
        computed="as --max-requests",
    )
    max_lifetime: float = option(
        0.0,
        kinds.DURATION,
        "Replace a worker after this time; 0 disables.",
        why="workers are not replaced without a cause",
    )
    timeout: float = option(
        120.0,
        kinds.DURATION,
        "Maximum time of a request: it is interrupted (504), or its worker is replaced; 0 disables.",
        why="longer than any page should take",
        short="-t",
        exported=True,
        worker=True,
    )
    slow_request: float = option(
        10.0,
        kinds.DURATION,
        "Log a request that runs for this long, once, with the stack of its thread; 0 disables.",
        why="a request this slow needs attention",
        exported=True,
        worker=True,
    )
    graceful_timeout: float = option(
        25.0,
        kinds.DURATION,
        "Time for running requests to finish when the server stops.",
        why="5 s less than the 30 s after which most platforms kill",
        gunicorn="graceful_timeout",
    )
    drain_delay: float = option(
        0.0,
        kinds.DURATION,
        "Time to keep serving after the stop signal, while load balancers react to it.",
        why="no platform was detected that sends requests after the signal",
    )
    keep_alive: float = option(
        75.0,
        kinds.DURATION,
        "Time for which an idle connection stays open.",
        why="longer than the 60 s after which usual load balancers close",
        gunicorn="keepalive",
    )
    backlog: int = option(
        2048,
        kinds.POSITIVE,
        "Maximum number of connections that wait to be accepted.",
        why="Gunicorn's default; the kernel lowers it to net.core.somaxconn",
        gunicorn="backlog",
    )
    worker_connections: int = option(
        10_000,
        kinds.POSITIVE,
        "Maximum number of connections of one worker, including idle ones.",
        why="an idle connection costs 1 KiB; as many as the descriptors allow",
        gunicorn="worker_connections",
    )
    limit_request_line: int = option(
        4094,
        kinds.COUNT,
        "Maximum length of a request line in bytes.",
        metavar="BYTES",
        why="Gunicorn's default",
        gunicorn="limit_request_line",
    )
    limit_request_fields: int = option(
        100,
        kinds.POSITIVE,
        "Maximum number of header fields in a request.",
        why="Gunicorn's default",
        gunicorn="limit_request_fields",
    )
    limit_request_field_size: int = option(
        8190,
        kinds.COUNT,
        "Maximum length of a header field in bytes.",
        metavar="BYTES",
        why="Gunicorn's default",
        gunicorn="limit_request_field_size",
    )
    preload: bool | None = option(
        None,
        kinds.SWITCH,
        "Load the application once, before the workers are forked.",
        gunicorn="preload_app",
        computed="on; off on macOS",
    )
    warmup: str | None = option(
        None,
        kinds.WARMUP,
        "Path of the test request that is sent before the port opens; off for none.",
        computed="a path that no route has",
        exported=True,
    )
    speedups: bool = option(
        True,
        kinds.SWITCH,
        "Save CPU and memory in Django, asgiref and Python where their source is the tested one.",
        metavar="on|off",
        exported=True,
    )
    umask: int = option(
        0o007,
        kinds.UMASK,
        "Umask of unix sockets, octal.",
        why="user and group may connect, others not",
        gunicorn="umask",
    )
    certfile: tuple[str, ...] = option(
        (),
        kinds.FILES,
        "TLS certificate (PEM), repeatable: clients get the one for the host that they name.",
        why="plain HTTP, also behind a proxy that handles TLS",
        gunicorn="certfile",
        exported=True,
    )
    keyfile: tuple[str, ...] = option(
        (),
        kinds.FILES,
        "TLS key (PEM), repeatable: one for each certificate, in the same order.",
        why="the files of the certificates contain them",
        gunicorn="keyfile",
        exported=True,
    )
    redirect_http: str | None = option(
        None,
        kinds.REDIRECT,
        "Address of plain HTTP whose requests are redirected to https: PORT, HOST:PORT, unix:PATH, fd://N.",
    )
    acme_webroot: str | None = option(
        None,
        kinds.PATH,
        "Directory from which --redirect-http serves the files of /.well-known/acme-challenge/.",
        worker=True,
    )
    trusted_proxies: tuple[str, ...] = option(
        ("loopback",),
        kinds.PROXIES,
        "Peers whose X-Forwarded-* is trusted: loopback, private, unix, none, *, addresses, networks.",
        why="headers of other machines can be forged",
        gunicorn="forwarded_allow_ips",
        exported=True,
    )
    trusted_hops: int | None = option(
        None,
        kinds.HOPS,
        "Position of the client in X-Forwarded-For, counted from the right.",
        computed="from X-Forwarded-For",
        exported=True,
    )
    client_address_header: str = option(
        "X-Forwarded-For",
        kinds.HEADER,
        "Header with the client's address, from trusted proxies only, such as X-Real-IP.",
        why="proxies and load balancers append to it",
        exported=True,
    )
    access_log: str | None = option(
        None,
        kinds.PATH,
        "Write a line per request to PATH, or to standard output with -.",
        metavar="PATH|-",
        gunicorn="accesslog",
    )
    log_format: str = option(
        "auto",
        kinds.choice("text", "json", "auto"),
        "Format of all log lines: text, json, or auto (text on a terminal, JSON elsewhere).",
        why="text on a terminal, JSON for log collectors",
    )
    log_redact: tuple[str, ...] | None = option(
        None,
        kinds.WORDS,
        "Hide in logs: query (whole query strings), or parameters by name, such as token,password.",
        why="off by default: nothing was named",
    )
    access_log_sample: float = option(
        1.0,
        kinds.SHARE,
        "Share of requests in the access log, such as 10%; 5xx responses are always logged.",
        why="every request",
    )
    access_log_min_duration: float = option(
        0.0,
        kinds.DURATION,
        "Log only requests that take this long, and 5xx responses; 0 logs all.",
        why="every request, however quick",
    )
    log_level: str = option(
        "info",
        kinds.choice("debug", "info", "warning", "error", "critical"),
        "Minimum severity of the server's own log lines.",
        metavar="LEVEL",
        why="what an operator needs; Gunicorn's routine lines are at debug",
        gunicorn="loglevel",
    )
    health_paths: tuple[str, ...] = option(
        ("/livez", "/readyz"),
        kinds.PROBES,
        "Liveness and readiness paths, answered without Django; off disables them.",
        why="where Kubernetes' own components have them",
        exported=True,
    )
    readiness_checks: tuple[str, ...] = option(
        (),
        kinds.CHECKS,
        "Readiness checks: database, and dotted paths to functions in your project.",
        why="a failing service that few pages need should not take the site down",
        exported=True,
    )
    management_bind: str | None = option(
        None,
        kinds.MANAGEMENT,
        "Address for status, metrics and live page: HOST:PORT, PORT (on loopback), unix:PATH; off for none.",
        why="off by default",
    )
    server_timing: bool = option(
        False,
        kinds.SWITCH,
        "Send a Server-Timing header that shows how long a request waited and ran.",
        why="timing headers reveal to clients how busy the server is",
        exported=True,
    )
    static: bool = option(
        True,
        kinds.STATIC,
        "Serve static files with WhiteNoise.",
        why="no second server is needed for them",
        exported=True,
    )
    private_static: bool = option(
        True,
        kinds.SWITCH,
        "Collect static files into a private directory if STATIC_ROOT is unset or empty.",
        why="a separate collectstatic step is not needed",
        exported=True,
    )
    media: bool = option(
        False,
        kinds.SWITCH,
        "Serve MEDIA_ROOT below MEDIA_URL; files that can contain scripts are sent as downloads.",
        why="uploads are often kept elsewhere, or private",
        exported=True,
    )
    wait_for_db: float = option(
        0.0,
        kinds.DURATION,
        "Wait up to this long for every database to answer; 0 disables.",
        why="off by default",
    )
    migrate: bool = option(
        False,
        kinds.SWITCH,
        "Apply pending migrations first; servers that start together apply them once.",
        why="off by default",
    )
    collectstatic: bool = option(
        False, kinds.SWITCH, "Run collectstatic into STATIC_ROOT first.", why="off by default"
    )
    local: bool = option(
        False,
        kinds.SWITCH,
        "Try a project on this machine: loopback only, DEBUG off, localhost allowed, plain HTTP.",
        why="off by default: --local is for trying a project",
    )
    strict: bool = option(
        False,
        kinds.SWITCH,
        "Refuse to serve if there are warnings.",
        why="warnings are printed and do not stop a site",
    )
    allow_debug: bool = option(
        False, kinds.SWITCH, "Serve even if DEBUG is on.", why="DEBUG shows settings and source to visitors"
    )
    config: str | None = option(
        None,
        kinds.PATH,
        "Path of a gunicorn.conf.py whose settings and hooks are used.",
        gunicorn="config",
        short="-c",
    )
    chdir: str | None = option(
        None,
        kinds.PATH,
        "Directory to work in; if it is a link, every reload follows the link again.",
        why="the directory in which the command was started",
        gunicorn="chdir",
    )
    side_processes: tuple[str, ...] = option(
        (),
        kinds.PROCESSES,
        'Start this process of PRODSERVE["PROCESSES"] alongside the workers, repeatable; all for each.',
        why="the web workers alone",
        word="with",
    )
    supervisor: bool | None = option(
        None,
        kinds.SWITCH,
        "Keep the pid and the sockets in a small process, so that reload can replace everything else.",
        computed="on where reload works",
    )
    env_file: str | None = option(
        None,
        kinds.PATH,
        "File of KEY=VALUE lines for the environment, read before the settings at start and reload.",
    )
    reload: bool = option(
        False,
        kinds.SWITCH,
        "Reload when a file of the project changes: for development and staging.",
        why="off by default: a deploy runs prodserve reload when it is complete",
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    gunicorn: Mapping[str, SourcedValue] = field(default_factory=dict, repr=False)
    """Gunicorn settings that have no row: name to value and source."""
    processes: Mapping[str, SideProcess] = field(default_factory=dict, repr=False)
    """What PRODSERVE["PROCESSES"] states, whether it starts here or not."""
    notes: tuple[str, ...] = field(default=(), repr=False)
    """Inputs that were seen and not used."""

    @property
    def beside(self) -> tuple[SideProcess, ...]:
        """Return the processes that start alongside the workers, in the order of the settings."""
        return tuple(self.processes[name] for name in self.side_processes)

    def source(self, name: str) -> str:
        """Return the source of the value of ``name``; empty if no source sets it."""
        return self.sources.get(name, "")


class SourcedValue(NamedTuple):
    """A raw value and the source that it comes from."""

    value: Any
    source: str


@cache
def option_fields() -> tuple[Row, ...]:
    """Return every option's declaration, in the order of the reference."""
    return tuple(
        Row(name=field.name, default=field.default, **field.metadata["row"])
        for field in fields(Options)
        if "row" in field.metadata
    )


def option_field(name: str) -> Row | None:
    """Return the declaration of an option; None for a decision that is not an option."""
    return next((row for row in option_fields() if name and name in (row.name, row.word)), None)
