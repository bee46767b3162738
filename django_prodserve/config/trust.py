"""Trusted proxies, and the headers that identify a client behind them. Pure; standard library alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from types import MappingProxyType

from .parse_errors import ParseError

LOOPBACK = ("127.0.0.0/8", "::1", "unix")

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "loopback": LOOPBACK,
        "private": (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
            *LOOPBACK,
        ),
        "unix": ("unix",),
        "none": (),
        "*": ("*",),
    }
)

MAX_CHAIN = 16  # entries that are read; real chains have one to four


def _keys(names: str) -> frozenset[str]:
    return frozenset("HTTP_" + name.upper().replace("-", "_") for name in names.split())


NEVER_PASSED = _keys("Proxy Forwarded X-Forwarded X-Original-Forwarded-For Script-Name Path-Info")

ADDRESSES = _keys(
    """
    X-Real-IP X-Client-IP Client-IP True-Client-IP X-True-Client-IP X-Cluster-Client-IP
    Forwarded-For Forwarded-For-IP X-Forwarded-For-IP X-Forwarded-Client-IP X-Originating-IP
    X-ProxyUser-IP Remote-Addr Remote-IP X-Remote-Addr X-Remote-IP Proxy-Client-IP
    WL-Proxy-Client-IP X-Coming-From CF-Connecting-IP CF-Connecting-IPv6 CF-Pseudo-IPv4
    CloudFront-Viewer-Address DO-Connecting-IP Fastly-Client-IP Fly-Client-IP Incap-Client-IP
    X-AppEngine-User-IP X-Azure-ClientIP X-Azure-SocketIP X-Envoy-External-Address
    X-MS-Forwarded-Client-IP X-NF-Client-Connection-IP X-Sucuri-ClientIP X-Vercel-Forwarded-For
    """
)

PASS_THROUGH = _keys(
    """
    X-Scheme X-Url-Scheme Front-End-Https Https X-Https X-AppEngine-Https X-ARR-SSL Fastly-SSL
    CF-Visitor X-Original-Host X-Original-Proto X-Original-Port X-Original-URL X-Original-URI
    X-Rewrite-URL X-Script-Name X-Client-Port X-Real-Port Remote-Port Remote-Host Remote-User
    Remote-Ident Remote-Name Remote-Email Remote-Groups X-Remote-User X-Remote-Name X-Remote-Email
    X-Remote-Groups X-Remote-Group X-WebAuth-User X-Auth-Request-User X-Auth-Request-Email
    X-Auth-Request-Groups X-Auth-Request-Preferred-Username X-MS-Client-Principal
    X-MS-Client-Principal-Id X-MS-Client-Principal-Name X-MS-Client-Principal-Idp SSL-Client-Cert
    SSL-Client-Verify SSL-Client-S-DN X-SSL-Client-Cert X-SSL-Client-Verify X-SSL-Client-S-DN
    X-Client-Cert X-ARR-ClientCert
    """
)


# Also every name with FORWARDED in it: X-Forwarded-<any>, CloudFront-Forwarded-Proto ...
CLIENT_HEADERS = NEVER_PASSED | ADDRESSES | PASS_THROUGH

WITNESS = "X-Forwarded-For"
"""The header with the client's address, unless the operator names another."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Which peers are trusted proxies, and which entry of X-Forwarded-For is then the client."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    everyone: bool
    unix: bool
    hops: int | None
    """Which entry from the right; None: the right-most one that is not itself a trusted proxy."""

    def trusts(self, peer: str) -> bool:
        """Return whether the peer with this REMOTE_ADDR (empty: a unix socket) is a trusted proxy."""
        if self.everyone:
            return True
        if peer == "":  # not None, which is Gunicorn's value for a PROXY peer that names no client
            return self.unix
        address = _parse(peer)
        return address is not None and any(address in network for network in self.networks)


def parse_trust(words: Sequence[str], hops: int | None = None) -> Trust:
    """Return the trust that presets, addresses and networks spell out.

    ParseError names the first wrong word.
    """
    if hops is not None and not 1 <= hops <= MAX_CHAIN:
        raise ParseError(
            f"hops is {hops}, but must be from 1, the right-most entry of X-Forwarded-For, to {MAX_CHAIN}."
        )
    stated = [word.strip() for word in words if word.strip()]
    plain = [part for word in stated for part in PRESETS.get(word.lower(), (word,))]
    networks = dict.fromkeys(_network(word) for word in plain if word not in ("*", "unix"))
    return Trust(
        networks=tuple(networks),
        everyone="*" in plain,
        unix="*" in plain or "unix" in plain,
        hops=hops,
    )


def parse_witness(name: str) -> str:
    """Return the key in the environ of a header that may give a client's address.

    ParseError carries why this header cannot.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name):
        raise ParseError(f"{name!r} is not the name of a header.", "Write one such as X-Real-IP")
    key = "HTTP_" + name.upper().replace("-", "_")
    if (
        key in NEVER_PASSED | PASS_THROUGH | {"HTTP_HOST", "HTTP_COOKIE", "HTTP_USER_AGENT"}
        or key in _READERS
    ):
        raise ParseError(f"{name} does not carry the address of a client.", "Name a header such as X-Real-IP")
    return key


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # On a dual-stack socket 127.0.0.1 is ::ffff:127.0.0.1.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(word)
    except ValueError:
        raise _what_is_wrong(word) from None
    first = _parse(str(network.network_address))
    if isinstance(network, IPv6Network) and isinstance(first, IPv4Address):
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _what_is_wrong(word: str) -> ParseError:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        return ParseError(
            f"{word!r} is neither an address nor a network, nor one of {', '.join(PRESETS)}.",
            "Write an address such as 192.0.2.7, or a network such as 10.0.0.0/8",
        )
    return ParseError(f"{word!r} is an address inside a network.", f"Write '{network}' for the network")


def _read_scheme(text: str) -> str:
    return _SCHEMES.get(text.lower(), "")


def _read_port(text: str) -> str:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return str(number) if 0 < number < 65536 else ""


_READERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "HTTP_X_FORWARDED_PROTO": _read_scheme,
        "HTTP_X_FORWARDED_HOST": str,
        "HTTP_X_FORWARDED_PORT": _read_port,
    }
)
