"""Contradictions in files of proxies: nginx, Caddy, HAProxy. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ..errors import Problem
from ..utils.units import format_size
from .facts import Facts
from .finding import Must, Never, found, judged, number
from .reading import seconds, size, values

OWN_HEADERS = ("X-Forwarded-Host", "X-Real-IP", "Forwarded")
"""Headers that a client must not be able to set."""


def bodies(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    """Compare the maximum size of a body: each proxy has its own, and answers 413 that Django never sees."""
    name, pattern = {
        "nginx": ("client_max_body_size", r"client_max_body_size +(\w+);"),
        "caddy": ("max_size", r"max_size +(\w+)"),
        "haproxy": ("The limit of content-length", r"content-length\) +gt +(\w+)"),
    }[kind]
    ours = format_size(facts.body.value) if facts.body.value else "no maximum"
    for text in values(code, pattern) or (["1m"] if kind == "nginx" else []):
        if size(text) != facts.body.value and (size(text) or facts.body.value):
            yield found(
                f"{name} {text} is not the server's --max-body: {ours}.", f"Set it to {facts.body.value}"
            )


def tls(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    """Compare the protocol between the proxy and the server."""
    speaks = re.search(r"proxy_pass +https:|reverse_proxy +https:|^\s*server .*\bssl\b", code, re.MULTILINE)
    if speaks and not facts.certificate:
        yield found(
            "The proxy speaks TLS to the server, which speaks plain HTTP.", "Use http://, or --certfile"
        )
    if facts.certificate and not speaks:
        yield found(
            "The server speaks TLS, and the proxy plain HTTP to it.", "Start the server without --certfile"
        )


def upstream(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    """Compare the address to which the proxy sends requests; other machines may have the same port."""
    pattern = {
        "nginx": r"^\s*(?:server|proxy_pass) +(?:https?://)?((?:unix:|[\d.\[]|localhost)[^\s;]*)",
        "caddy": r"reverse_proxy +(?:https?://)?((?:unix/|[\d.\[]|localhost)\S*)",
        "haproxy": r"^\s*server +\S+ +(\S+)",
    }[kind]
    ours = facts.address.path or facts.address.reached
    for text in values(code, pattern):
        plain = re.sub(r"^(unix[:@/]|unix//)", "", text).replace("localhost", "127.0.0.1").rstrip("/")
        is_far = not facts.address.is_unix and not plain.startswith(("127.", "[::1]", "/"))
        same = plain.rpartition(":")[2] == str(facts.address.port) if is_far else plain == ours
        if not same and plain.lstrip("/") != ours.lstrip("/"):
            yield found(f"The proxy sends requests to {text}, and the server is at {ours}.", f"Use {ours}")


def nginx(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(code, *NGINX)
    for name in OWN_HEADERS:
        fix = f'proxy_set_header {name} "";'
        yield from judged(
            code, Must(rf"proxy_set_header +{name} ", f"{name} of a client reaches Django.", fix)
        )
    for name in ("X-Forwarded-For", "X-Forwarded-Proto"):
        variable = f"$http_{name.lower().replace('-', '_')}"
        yield from judged(
            code,
            Never(
                rf"proxy_set_header +{name} +{re.escape(variable)};",
                f"{name} of a client reaches the server as the proxy's own.",
                "As export writes it",
            ),
        )
    limit, shown = number(code, (r"^\s*proxy_send_timeout +(\w+);", "proxy_send_timeout", 60))
    if limit < min(60, facts.proxy_timeout.value):
        yield found(
            f"{shown} ends uploads that wait for a thread.", f"Set it to {facts.proxy_timeout.value}s"
        )


NGINX = (
    Must(
        r"proxy_http_version 1\.1;",
        "nginx before 1.29.7 sends HTTP/1.0, and shares no connection.",
        "proxy_http_version 1.1;",
    ),
    Must(
        r"proxy_set_header +Connection ", "nginx sends Connection: close.", 'proxy_set_header Connection "";'
    ),
    Must(
        r"^\s*keepalive +\d+;|\"\" +close;",
        "nginx before 1.29.7 opens a connection for each request: upstream has no keepalive.",
        "keepalive 32;",
    ),
    Must(
        r"proxy_buffering +off;",
        "proxy_buffering is on: nginx holds what the server collects anyway.",
        "proxy_buffering off;",
    ),
    Must(
        r"proxy_request_buffering +off;",
        "proxy_request_buffering is on: nginx holds what the server collects anyway.",
        "proxy_request_buffering off;",
    ),
    Must(
        r"proxy_set_header +Host +\$(http_)?host;",
        "Host is not handed on: Django sees the name of the upstream.",
        "proxy_set_header Host $host;",
    ),
    Must(
        r"proxy_set_header +X-Forwarded-For ",
        "X-Forwarded-For is not set: every client has the address of the proxy.",
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ),
    Must(
        r"proxy_set_header +X-Forwarded-Proto ",
        "X-Forwarded-Proto is not set: Django sees http, and redirects to https without end.",
        "proxy_set_header X-Forwarded-Proto $scheme;",
    ),
    Must(
        r"proxy_set_header +Upgrade ",
        "No websocket passes: Upgrade is not handed on.",
        "proxy_set_header Upgrade $http_upgrade;",
    ),
    Never(r"proxy_next_upstream .*non_idempotent", "nginx sends a POST twice.", "Remove non_idempotent"),
)


def haproxy(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(code, *HAPROXY)
    yield from judged(
        code,
        Must(
            r"^\s*timeout +server ",
            "There is no timeout server.",
            f"timeout server {facts.proxy_timeout.value}s",
        ),
    )
    for name in OWN_HEADERS:
        fix = f"http-request del-header {name}"
        yield from judged(code, Must(rf"del-header +{name}\s", f"{name} of a client reaches Django.", fix))
    limit, shown = number(code, (r"^\s*timeout +client +(\w+)", "timeout client", math.inf))
    if limit < facts.proxy_timeout.value:
        yield found(
            f"{shown} ends a connection while its request runs, up to {facts.timeout.value:g} s.",
            f"timeout client {facts.proxy_timeout.value}s",
        )
    if not facts.has_proxy_protocol:
        yield from judged(
            code,
            Never(
                r"^\s*(default-)?server .*\bsend-proxy",
                "The proxy sends the PROXY protocol, which the server does not expect.",
                'Remove send-proxy, or PRODSERVE["GUNICORN"] = {"proxy_protocol": "v2"}',
            ),
        )
    yield from _fall_time(code, facts)
    yield from _machines(code)


HAPROXY = (
    Must(
        r"option +http-no-delay",
        "HAProxy holds pieces of a stream for up to 210 ms.",
        "option http-no-delay",
    ),
    Never(
        r"shutdown-sessions",
        "on-marked-down shutdown-sessions ends requests that the server finishes.",
        "Remove it",
    ),
    Never(
        r"(?s)\A(?!.*disable-l7-retry).*retry-on +[^\n]*(all-retry|empty-resp|response-time|50\d)",
        "HAProxy sends a POST twice.",
        "retry-on conn-failure",
    ),
    Must(r"timeout +tunnel ", "No timeout tunnel: a silent websocket ends.", "timeout tunnel 1h"),
    Must(
        r"option +forwardfor|set-header +X-Forwarded-For",
        "X-Forwarded-For is not set: every client has the address of the proxy.",
        "option forwardfor",
    ),
    Must(
        r"set-header +X-Forwarded-Proto ",
        "X-Forwarded-Proto is not set: Django sees http, and redirects to https without end.",
        "http-request set-header X-Forwarded-Proto https",
    ),
)


def _machines(code: str) -> Iterator[Problem]:
    """Yield what the lines of the machines lack: options of a default-server line count for no machine."""
    lines = [line for line in values(code, r"^\s*server .*$") if not re.search(r" (unix@|/)", line)]
    has_keepalive = re.search(r"option +srvtcpka", code)
    if [line for line in lines if "tcp-ut " not in line] or (lines and not has_keepalive):
        yield found(
            "A machine without a network holds its requests until the timeout.",
            "option srvtcpka, and tcp-ut 4s on each server line",
        )
    if len(lines) < 2:
        return
    if [line for line in lines if not re.search(r" check\b", line)]:
        yield found(
            "HAProxy sends requests to a machine that is down: its server line has no check.",
            "option httpchk GET /readyz, and check on each server line",
        )
    if not re.search(r"^\s*option +redispatch +1\b", code, re.MULTILINE):
        yield found(
            "HAProxy tries a connection that failed at the same machine again.", "option redispatch 1"
        )


def _fall_time(code: str, facts: Facts) -> Iterator[Problem]:
    for line in values(code, r"^\s*(?:default-)?server .*\bcheck\b.*$|^\s*default-server .*$"):
        inter = seconds((values(line, r"\binter +(\w+)") or ["2s"])[0], "ms")
        fast = seconds((values(line, r"\bfastinter +(\w+)") or [f"{inter * 1000:g}ms"])[0], "ms")
        fall = int((values(line, r"\bfall +(\d+)") or ["3"])[0])
        need = inter + (fall - 1) * fast
        if " check" in line and need >= facts.drain.value:
            yield found(
                f"HAProxy notices a drain after {need:g} s; the server drains for {facts.drain.value:g} s.",
                f"--drain-delay {math.ceil(need) + 1}",
            )


def caddy(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(code, *CADDY)
    for name in ("X-Real-IP", "Forwarded"):  # Caddy replaces X-Forwarded-* by itself
        fix = f"header_up -{name}"
        yield from judged(code, Must(rf"header_up +-?{name}\b", f"{name} of a client reaches Django.", fix))


CADDY = (
    Never(
        r"flush_interval +(?!-1)\S",
        "Caddy holds pieces of a stream.",
        "flush_interval -1",
    ),
    Never(r"lb_retry_match .*(POST|PUT|PATCH)", "Caddy sends a POST twice.", "Remove lb_retry_match"),
)
