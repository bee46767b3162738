"""A haproxy.cfg, for HAProxy 2.6 (Debian 12) and later. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Facts
from .layout import File, block, indented, written
from .proxy import by_hand, certificate_files, server_command

PURGES = 16  # intervals after which HAProxy 2.6 has closed all of 1,024 idle connections; 9 for 24
CUT_OFF = 4  # seconds; requests to a machine without a cable ended after 4.4 s, and after 20 s without this


def site(facts: Facts) -> list[File]:
    """Return the whole configuration: HAProxy has one file."""
    name = facts.site.name
    body = f"""
global
    log /dev/log local0
    user haproxy
    group haproxy
{indented(_chroot(facts), 4)}
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    option httplog
    option dontlognull
    # Without it HAProxy holds pieces of a stream for up to 210 ms.
    option http-no-delay
    timeout connect 5s
    # The head of a request. The server bounds the time of its body.
    timeout http-request 30s
    # {facts.proxy_timeout.why}
    timeout server {facts.proxy_timeout.value}s
    timeout client {facts.proxy_timeout.value}s
    timeout http-keep-alive 60s
    # Websockets, while nobody sends.
    timeout tunnel 1h

frontend {name}
    bind :80
    bind :443 ssl crt /etc/haproxy/certs/{name}.pem alpn h2,http/1.1
    http-request redirect scheme https code 308 unless {{ ssl_fc }}
    # Clients may not send these themselves.
    http-request del-header X-Forwarded-Host
    http-request del-header X-Real-IP
    http-request del-header Forwarded
    http-request set-header X-Forwarded-Proto https
    option forwardfor
    # {facts.body.why}
{indented(_body(facts), 4)}
    default_backend {name}

backend {name}
    balance leastconn
{indented(_retries(facts), 4)}
{indented(_backend(facts), 4)}
"""
    certificate, key = certificate_files(facts)
    return [
        written(
            "haproxy.cfg",
            body,
            made_by=facts.made_by,
            goes_to="/etc/haproxy/haproxy.cfg",
            serve=server_command(facts),
            apply=["haproxy -c -f /etc/haproxy/haproxy.cfg", "systemctl reload haproxy"],
            by_hand=[
                *by_hand(facts),
                *_about_servers(facts),
                f"the certificate: cat {certificate} {key} > /etc/haproxy/certs/{name}.pem",
            ],
        )
    ]


def _chroot(facts: Facts) -> str:
    if facts.address.is_unix:
        return f"# No chroot: HAProxy could not reach {facts.address.path} from there."
    return "chroot /var/lib/haproxy"


def _body(facts: Facts) -> str:
    if not facts.body.value:
        return ""
    return f"http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {facts.body.value} }}"


def _about_servers(facts: Facts) -> Iterator[str]:
    if not facts.servers:
        yield "for several machines: --server HOST:PORT for each of them"
        return
    if not facts.trusts_someone:
        yield "the servers need --trusted-proxies with the address of this machine"
    if len({address.rpartition(":")[2] for address in facts.servers}) > 1:
        yield "the ports differ: each server needs its own --bind"


def _retries(facts: Facts) -> str:
    if len(facts.servers) < 2:
        return block(
            "# No request runs twice: only a connection that failed is tried again.",
            "retries 3",
            "retry-on conn-failure",
        )
    return block(
        "# A connection that failed is tried at the next machine. If a machine goes away before its "
        "response, HAProxy sends a GET or HEAD to another, at most twice. It sends no other request again.",
        "retries 2",
        "option redispatch 1",
        "retry-on conn-failure empty-response",
        "http-request disable-l7-retry unless METH_GET",
    )


def _backend(facts: Facts) -> str:
    words, lines = [], []
    if facts.ready and facts.drain.value:
        # A check that fails twice takes two intervals. The drain delay has room for three.
        interval = max(1, min(2000, int(facts.drain.value * 1000 / 3)))
        lines += [
            f"# Two failed checks take {2 * interval} ms; the server drains for {facts.drain.value:g} s.",
            "# No on-marked-down shutdown-sessions: it would end the requests that the server finishes.",
            f"option httpchk GET {facts.ready}",
        ]
        words.append(f"check inter {interval}ms fastinter {interval}ms fall 2 rise 1")
    elif facts.ready:
        lines += ["# No check: the server does not drain. With several machines set --drain-delay 4."]
    if facts.servers or not facts.address.is_unix:
        lines += [
            f"# Requests to a machine without a network end after about {CUT_OFF} s.",
            "option srvtcpka",
            "srvtcpka-idle 2s",
            "srvtcpka-intvl 1s",
            "srvtcpka-cnt 3",
        ]
        words.append(f"tcp-ut {CUT_OFF}s")
    if facts.proxy_idle.value:
        delay = purge_delay(facts.proxy_idle.value)
        lines += [
            f"# {facts.proxy_idle.why}.",
            f"# Every {delay} ms HAProxy closes half of those it does not need: {PURGES} times close all.",
        ]
        words.append(f"pool-purge-delay {delay}ms")
    else:
        lines.append(f"# No reuse: {facts.proxy_idle.why}.")
        words.append("pool-max-conn 0")
    # HAProxy 2.6 does not take tcp-ut from a default-server line.
    return block(*lines, *(" ".join([*server, *words]) for server in _servers(facts)))


def purge_delay(idle: int) -> int:
    """Return the milliseconds between two purges, so that no connection is idle for longer."""
    return max(1, idle * 1000 // PURGES)


def _servers(facts: Facts) -> Iterator[tuple[str, str, str]]:
    name = facts.site.name
    if facts.servers:
        yield from (("server", f"{name}{n}", address) for n, address in enumerate(facts.servers, 1))
    else:
        unix = f"unix@{facts.address.path}"
        yield "server", name, unix if facts.address.is_unix else facts.address.reached
