"""The options of what serves: addresses, processes, limits, deadlines, trust. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass

from . import parsers
from .option_row import option


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How many, where, how long, for whom."""

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
    drain_delay: float = option(
        0.0,
        parsers.duration,
        "How long to serve on after the signal to stop, while load balancers learn of it.",
        metavar="TIME",
        why="nobody here sends requests after the signal",
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
        10_000,
        parsers.positive,
        "Most connections of one worker, idle ones included.",
        metavar="N",
        why="an idle connection costs 1 KiB; as many as the descriptors allow",
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
        "Path of the request that is tried before the port listens, and leaves nothing behind; off for none.",
        metavar="PATH",
    )
    speedups: bool = option(
        True,
        parsers.boolean,
        "Spare CPU and memory in code of Django, asgiref and Python that is as tested.",
        metavar="on|off",
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
    client_address_header: str = option(
        "X-Forwarded-For",
        parsers.client_address_header,
        "The header that gives the client's address, from trusted proxies only, such as X-Real-IP.",
        metavar="NAME",
        why="proxies and load balancers append to it",
    )
