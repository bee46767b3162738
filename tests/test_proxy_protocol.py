"""What a PROXY line says of a client: read as the specification has it, in whatever pieces it comes."""

from __future__ import annotations

import io
import socket
import struct
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import ForbiddenProxyRequest, InvalidProxyLine, ParseException
from gunicorn.http.parser import RequestParser

from django_prodserve.config.trust import parse_trust
from django_prodserve.http.proxy_protocol import IncompleteError, Preface
from django_prodserve.middleware.proxy_headers import ProxyHeadersMiddleware
from django_prodserve.middleware.proxy_protocol import Introductions

PEER = ("127.0.0.1", 40000)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def v2(command: int, family: int, body: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def addresses(family: int, client: str, proxy: str) -> bytes:
    return socket.inet_pton(family, client) + socket.inet_pton(family, proxy) + struct.pack(">HH", 5555, 443)


IPV4 = addresses(socket.AF_INET, "203.0.113.9", "10.0.0.1")
IPV6 = addresses(socket.AF_INET6, "2001:db8::9", "::1")
TLV = b"\x04\0\x02ab"  # a field that must be ignored

NAMED = {
    "TCP4": (b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n", ("203.0.113.9", 5555), "TCP4"),
    "TCP6": (b"PROXY TCP6 2001:DB8::9 ::1 5555 443\r\n", ("2001:db8::9", 5555), "TCP6"),
    "a mapped address": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::1 5555 443\r\n",
        ("::ffff:203.0.113.9", 5555),
        "TCP6",
    ),
    "version 2, IPv4": (v2(0x21, 0x11, IPV4), ("203.0.113.9", 5555), "TCP4"),
    "version 2, IPv6": (v2(0x21, 0x21, IPV6), ("2001:db8::9", 5555), "TCP6"),
    "version 2, fields behind the addresses": (v2(0x21, 0x11, IPV4 + TLV), ("203.0.113.9", 5555), "TCP4"),
}
UNNAMED = {
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", None, "UNKNOWN"),
    "UNKNOWN and more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None, "UNKNOWN"),
    "LOCAL": (v2(0x20, 0x00), None, "LOCAL"),
    "LOCAL with addresses": (v2(0x20, 0x11, IPV4), None, "LOCAL"),
    "UNSPEC": (v2(0x21, 0x00), None, "UNSPEC"),
    "UNSPEC and more": (v2(0x21, 0x00, b"abc"), None, "UNSPEC"),
    "a unix socket": (v2(0x21, 0x31, bytes(216)), None, "UNSPEC"),
}
WRONG = {
    "no family": b"PROXY \r\n",
    "another family": b"PROXY TCP5 203.0.113.9 10.0.0.1 5555 443\r\n",
    "IPv6 as TCP4": b"PROXY TCP4 ::1 ::1 5555 443\r\n",
    "IPv4 as TCP6": b"PROXY TCP6 203.0.113.9 10.0.0.1 5555 443\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::1 5555 443\r\n",
    "a name": b"PROXY TCP4 localhost 10.0.0.1 5555 443\r\n",
    "half an address": b"PROXY TCP4 203.0.113 10.0.0.1 5555 443\r\n",
    "octal": b"PROXY TCP4 0177.0.0.1 10.0.0.1 5555 443\r\n",
    "a port too large": b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 443\r\n",
    "a signed port": b"PROXY TCP4 203.0.113.9 10.0.0.1 +555 443\r\n",
    "a port with an underscore": b"PROXY TCP4 203.0.113.9 10.0.0.1 5_5 443\r\n",
    "no port": b"PROXY TCP4 203.0.113.9 10.0.0.1 5555\r\n",
    "one word more": b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443 1\r\n",
    "two spaces": b"PROXY TCP4  203.0.113.9 10.0.0.1 5555 443\r\n",
    "without end": b"PROXY TCP4 " + b"1" * 200,
    "the end too late": b"PROXY UNKNOWN " + b"1" * 100 + b"\r\n",
    "version 3": v2(0x31, 0x11, IPV4),
    "another command": v2(0x22, 0x11, IPV4),
    "datagrams": v2(0x21, 0x12, IPV4),
    "a family that is none": v2(0x21, 0x41, IPV4),
    "version 2, too short": v2(0x21, 0x11, IPV4[:-1]),
    "version 2, IPv6 too short": v2(0x21, 0x21, IPV4),
}


def config(mode: str = "auto", **more: Any) -> Config:
    made = Config()
    for name, value in {"proxy_protocol": mode, "http_parser": "python", **more}.items():
        made.set(name, value)
    return made


def preface(mode: str = "auto", **more: Any) -> Preface:
    return Preface(config(mode, **more))


@pytest.mark.parametrize("name", [*NAMED, *UNNAMED])
def test_it_is_read_whole_or_in_pieces(name: str) -> None:
    line, client, protocol = (NAMED | UNNAMED)[name]
    said, rest = preface().take(line + GET, PEER)
    assert (said.client, said.environ["PROXY_PROTOCOL"], rest) == (client, protocol, GET)
    for cut in range(len(line)):
        with pytest.raises(IncompleteError):
            preface().take(line[:cut], PEER)
    assert preface().take(line, PEER) == (said, b"")


@pytest.mark.parametrize("name", NAMED)
def test_gunicorn_reads_the_same(name: str) -> None:
    line, *_ = NAMED[name]
    said, _ = preface().take(line, PEER)
    theirs = wsgi.proxy_environ(next(RequestParser(config(), iter([line + GET]), PEER)))
    assert said.client is not None
    ours = {**said.environ, "REMOTE_ADDR": said.client[0], "REMOTE_PORT": str(said.client[1])}
    assert ours == theirs | {"REMOTE_ADDR": theirs["REMOTE_ADDR"].lower()}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused(name: str) -> None:
    with pytest.raises(InvalidProxyLine):
        preface().take(WRONG[name] + GET, PEER)


@pytest.mark.parametrize("name", WRONG)
def test_gunicorn_refuses_it_too_but_for_what_the_specification_forbids(name: str) -> None:
    try:
        next(RequestParser(config(), iter([WRONG[name] + GET]), PEER))
    except ParseException:
        return
    beyond = {"a signed port", "a port with an underscore", "without end", "the end too late"}
    assert name in beyond


def test_a_mode_reads_its_own_version_only() -> None:
    one, two = NAMED["TCP4"][0], NAMED["version 2, IPv4"][0]
    for mode, line in (("v1", two), ("v2", one)):
        said, rest = preface(mode).take(line + GET, PEER)
        assert (said.client, dict(said.environ), rest) == (None, {}, line + GET)


@pytest.mark.parametrize("data", [GET, b"POST /", b"PRO /", b"\r\n" + GET, b"\r\n\r\nGET", b"X"])
def test_what_begins_otherwise_is_the_clients(data: bytes) -> None:
    said, rest = preface().take(data, PEER)
    assert (said.client, dict(said.environ), rest) == (None, {}, data)


@pytest.mark.parametrize(
    ("allowed", "peer", "may"),
    [
        ("127.0.0.1,::1", ("127.0.0.1", 1), True),
        ("127.0.0.1,::1", ("::1", 1, 0, 0), True),
        ("127.0.0.1,::1", ("::ffff:127.0.0.1", 1, 0, 0), True),
        ("127.0.0.1,::1", ("203.0.113.9", 1), False),
        ("10.0.0.0/8", ("10.1.2.3", 1), True),
        ("10.0.0.0/8", ("127.0.0.1", 1), False),
        ("fe80::/10", ("fe80::1%eth0", 1, 0, 2), True),
        ("*", ("203.0.113.9", 1), True),
        ("10.0.0.0/8", "", True),
        ("10.0.0.0/8", b"", True),
    ],
)
def test_only_a_permitted_peer_may_introduce(allowed: str, peer: Any, may: bool) -> None:
    reads = preface(proxy_allow_ips=allowed)
    for line, *_ in NAMED.values():
        if may:
            assert reads.take(line, peer)[1] == b""
        else:
            with pytest.raises(ForbiddenProxyRequest):
                reads.take(line + GET, peer)


@pytest.mark.parametrize(("protocol", "believed"), [("LOCAL", True), ("UNKNOWN", False), ("UNSPEC", False)])
def test_only_the_load_balancer_itself_is_believed_where_no_client_is_named(
    protocol: str, believed: bool
) -> None:
    layer = ProxyHeadersMiddleware(lambda environ, start: [], parse_trust(["loopback"]))
    environ = {
        "REMOTE_ADDR": "127.0.0.1",
        "PROXY_PROTOCOL": protocol,
        "HTTP_X_FORWARDED_FOR": "1.2.3.4",
        "HTTP_REMOTE_USER": "admin",
    }
    layer.sanitize(environ)
    assert environ["REMOTE_ADDR"] == ("1.2.3.4" if believed else "127.0.0.1")
    assert ("HTTP_REMOTE_USER" in environ) is believed


def test_under_gunicorns_workers_every_request_of_a_connection_hears_of_it() -> None:
    held, (ours, theirs), other = Introductions(), socket.socketpair(), socket.socket()
    with ours, theirs, other:
        first = {
            "gunicorn.socket": ours,
            "PROXY_PROTOCOL": "TCP4",
            "REMOTE_ADDR": "203.0.113.9",
            "REMOTE_PORT": "5555",
        }
        said = {name: value for name, value in first.items() if name != "gunicorn.socket"}
        held.hold(first)
        second: dict[str, Any] = {"gunicorn.socket": ours, "REMOTE_ADDR": "127.0.0.1"}
        held.hold(second)
        assert second == {"gunicorn.socket": ours, **said}
        for environ in ({"gunicorn.socket": other}, {}):
            strange: dict[str, Any] = {**environ, "REMOTE_ADDR": "127.0.0.1", "wsgi.input": io.BytesIO()}
            before = dict(strange)
            held.hold(strange)
            assert strange == before
        unnamed: dict[str, Any] = {
            "gunicorn.socket": theirs,
            "PROXY_PROTOCOL": "LOCAL",
            "REMOTE_ADDR": None,
            "REMOTE_PORT": "None",
        }
        held.hold(unnamed)
        assert (unnamed["REMOTE_ADDR"], unnamed["REMOTE_PORT"]) == ("", "")  # a unix socket
    del ours, first, second
    assert len(held._known) == 1


def test_a_peer_that_is_gone_is_not_trusted_as_a_unix_socket_is() -> None:
    held, gone = Introductions(), socket.socket()
    gone.close()
    environ: dict[str, Any] = {"gunicorn.socket": gone, "PROXY_PROTOCOL": "LOCAL", "REMOTE_ADDR": None}
    held.hold(environ)
    layer = ProxyHeadersMiddleware(lambda environ, start: [], parse_trust(["loopback"]))
    assert not layer.believes(environ)
