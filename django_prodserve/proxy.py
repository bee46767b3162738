"""What a peer may say about the client, and what is dropped.

Lives in every worker, on the thread that runs the request, as a layer around the application. O(1)
work for each request, no lock; the trust was computed before the fork. What it leaves in
REMOTE_ADDR is also what the access log shows.

Every header that speaks for the client (its address, scheme, host, name) is taken out. From a peer
that is not trusted nothing comes back. From a trusted one:

* X-Forwarded-For is the only witness for the address. REMOTE_ADDR becomes the client's, and the
  header keeps only the entries from the client's on, rightwards: what stood to its left was sent by
  the client, and packages that read the left-most entry would believe it.
* ``--client-address-header`` names another witness, such as X-Real-IP or CF-Connecting-IP. Then that
  header alone gives the address, as one address; X-Forwarded-For is restated from it, so nothing
  remains of what the client wrote there. Without a valid value the peer's own address stays.
* X-Forwarded-Proto, -Host and -Port keep the one entry of the hop that faces the client. The first
  also sets ``wsgi.url_scheme`` and SERVER_PORT; what is neither http nor https is dropped.
* Other headers that carry a client's address (X-Real-IP, those of CDNs) say the same as
  REMOTE_ADDR: a proxy that does not set them passes the client's own on, and nobody here can tell
  one from the other.
* Headers that mean something only to a project that names them in its settings (X-Forwarded-Ssl,
  X-Forwarded-Prefix, Remote-User) pass as they are: the proxy must set them.
* Proxy, Forwarded, Script-Name and Path-Info never pass. Forwarded (RFC 7239) because proxies that
  write X-Forwarded-For hand a client's Forwarded on untouched, and Django does not read it.

Relied on in Gunicorn: ``forwarder_headers=""``, ``forwarded_allow_ips=""`` and
``secure_scheme_headers={}``, so that no header sets SCRIPT_NAME or the scheme before this layer
(Gunicorn always trusts unix sockets); ``header_map="drop"`` or ``"refuse"``, so that
X_Forwarded_For does not join X-Forwarded-For. A SCRIPT_NAME from the server's own environment is
left alone.

Under the PROXY protocol the load balancer passes the client's own headers on, and REMOTE_ADDR is the
client: claims are judged by that address, for every request of the connection (introductions.py). Where
the load balancer knows no address (UNKNOWN, UNSPEC) nothing is believed. Do not combine it with ``*``.
"""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

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

NAMELESS = frozenset({"UNKNOWN", "UNSPEC"})
"""What a PROXY line says of a client without naming it: REMOTE_ADDR is then the load balancer's."""
LONGEST_CHAIN = 16  # entries looked at; real chains have one to four
LONGEST_ENTRY = 64  # a bracketed IPv6 address with its port has 53 characters at most
REMEMBERED = 4096  # addresses; parsing one costs 1.8 us, finding it again 0.1 us


def _keys(names: str) -> frozenset[str]:
    return frozenset("HTTP_" + name.upper().replace("-", "_") for name in names.split())


NEVER = _keys("Proxy Forwarded X-Forwarded X-Original-Forwarded-For Script-Name Path-Info")

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

BY_AGREEMENT = _keys(
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

# Beside these, every name with FORWARDED in it: X-Forwarded-<any>, CloudFront-Forwarded-Proto ...
CLAIMS = NEVER | ADDRESSES | BY_AGREEMENT

WITNESS = "X-Forwarded-For"
"""The header that gives the client's address where the operator names no other."""

_CHAIN = "HTTP_X_FORWARDED_FOR"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PORTED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Which peers are proxies of ours, and which entry of X-Forwarded-For is then the client."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    everyone: bool
    unix: bool
    hops: int | None
    """Which entry from the right; None: the right-most one that is not itself a trusted proxy."""

    def trusts(self, peer: str) -> bool:
        """Say whether the peer with this REMOTE_ADDR (empty: a unix socket) is a proxy of ours."""
        if self.everyone:
            return True
        if peer == "":  # not None: what Gunicorn says of a PROXY peer that names no client
            return self.unix
        address = _parse(peer)
        return address is not None and any(address in network for network in self.networks)


def parse_trust(words: Sequence[str], hops: int | None = None) -> Trust:
    """Return the trust that presets, addresses and networks spell out.

    ValueError carries one sentence: the wrong word, and what is possible.
    """
    if hops is not None and not 1 <= hops <= LONGEST_CHAIN:
        raise ValueError(
            f"hops is {hops}, but must be from 1, the right-most entry of X-Forwarded-For, "
            f"to {LONGEST_CHAIN}."
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

    ValueError carries one sentence where this header cannot.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", name):
        raise ValueError(f"{name!r} is no name of a header: write one such as X-Real-IP.")
    key = "HTTP_" + name.upper().replace("-", "_")
    if key in NEVER | BY_AGREEMENT | {"HTTP_HOST", "HTTP_COOKIE", "HTTP_USER_AGENT"} or key in _READERS:
        raise ValueError(f"{name} carries no address of the client: name a header such as X-Real-IP.")
    return key


class ProxyLayer:
    """Take out what the peer says about the client; put back what a trusted one may say."""

    def __init__(self, application: WSGIApplication, trust: Trust, witness: str = WITNESS) -> None:
        self.application = application
        self.witness = parse_witness(witness)
        self.claims = CLAIMS | {self.witness}
        self.missed = Missed(witness)
        # With everyone trusted there is no first stranger from the right: never take the left-most.
        self.hops = trust.hops or (1 if trust.everyone else None)
        self.trusts = lru_cache(maxsize=REMEMBERED)(trust.trusts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.clean(environ)
        return self.application(environ, start_response)

    def clean(self, environ: WSGIEnvironment) -> None:
        """Leave in the environ only what the peer may say."""
        # 1.3 us for a usual request; a loop over the 36 names takes 1.6 (3.13) to 3.3 us (3.10).
        if "FORWARDED" in "\n".join(environ) or not self.claims.isdisjoint(environ):
            claims = self.take_claims(environ)
            if self.believes(environ):
                self.believe(environ, claims)

    def believes(self, environ: WSGIEnvironment) -> bool:
        """Say whether what the headers of this request claim is said by a proxy of ours."""
        if environ.get("PROXY_PROTOCOL") in NAMELESS:
            return False
        return self.trusts(environ.get("REMOTE_ADDR"))

    def believe(self, environ: WSGIEnvironment, claims: dict[str, str]) -> None:
        """Put back what a trusted peer said, as far as it can be true."""
        forwarded_for = claims.pop(_CHAIN, "")
        chain = self.chain(forwarded_for) if self.witness == _CHAIN else self.named(claims)
        if not chain:
            self.missed.look(claims)
        else:
            environ["HTTP_X_FORWARDED_FOR"] = ", ".join(chain)
            environ["REMOTE_ADDR"] = chain[0]
            environ.pop("REMOTE_PORT", None)  # the proxy's
        place = self.hops or len(chain) or 1
        client = environ.get("REMOTE_ADDR") or ""
        for name, value in claims.items():
            if said := client if name == self.witness else _restate(name, value, place, client):
                environ[name] = said
        if scheme := environ.get("HTTP_X_FORWARDED_PROTO"):
            environ["wsgi.url_scheme"] = scheme
            environ["SERVER_PORT"] = _client_port(environ.get("HTTP_HOST", ""), scheme)

    def take_claims(self, environ: WSGIEnvironment) -> dict[str, str]:
        names = [name for name in environ if name in self.claims or "FORWARDED" in name]
        return {name: environ.pop(name) for name in names}

    def named(self, claims: Mapping[str, str]) -> list[str]:
        """Return the one address in the header that the operator has named; none where there is none."""
        address = _read_entry(claims.get(self.witness, ""))
        return [address] if address else []

    def chain(self, forwarded_for: str) -> list[str]:
        """Return the believable addresses, the client's first; none where no entry is one."""
        if self.hops:
            entries = _from_right(forwarded_for, self.hops)
            return [address for entry in entries if (address := _read_entry(entry))]
        chain: list[str] = []
        for entry in reversed(_from_right(forwarded_for, LONGEST_CHAIN)):
            address = _read_entry(entry)
            if address is None:
                break
            chain.append(address)
            if not self.trusts(address):
                break
        return chain[::-1]


class Missed:
    """Says once for all workers that a proxy names its client where nobody looks for it.

    Only a trusted peer's request without the witness comes here. The byte was shared before the fork.
    """

    def __init__(self, witness: str) -> None:
        self.witness = witness
        self.told = mmap.mmap(-1, 1)

    def look(self, claims: Mapping[str, str]) -> None:
        if self.told[0]:
            return
        seen = next((name for name in claims if name in ADDRESSES and _read_entry(claims[name])), "")
        if seen:
            self.told[0] = 1
            header = seen.removeprefix("HTTP_").replace("_", "-").title().replace("-Ip", "-IP")
            logging.getLogger("gunicorn.error").warning(
                "A trusted proxy sends %s without a valid %s, so its own address is taken for the client's. "
                "If the proxy sets %s on every request: --client-address-header %s",
                *(header, self.witness, header, header),
            )


def _restate(name: str, value: str, place: int, client: str) -> str:
    """Return what the application may read under this name; nothing drops it."""
    if name in NEVER:
        return ""
    if name in ADDRESSES:
        return client
    read = _READERS.get(name)
    return read(_from_right(value, place)[0].strip()) if read else value


def _from_right(value: str, count: int) -> list[str]:
    return value.rsplit(",", count)[-count:]


def _read_entry(entry: str) -> str | None:
    # Cut short, so that what is remembered stays small; no address is that long.
    return _read_address(entry.strip(" \t")[:LONGEST_ENTRY])


@lru_cache(maxsize=REMEMBERED)
def _read_address(text: str) -> str | None:
    """Return the address in ``1.2.3.4:5678`` or ``[::1]:1234``, plain; None for anything else."""
    match = _PORTED.fullmatch(text)
    bare = (match[1] or match[2] or "") if match else text
    address = _parse(bare) if "%" not in bare else None  # a zone may hold any text
    return None if address is None else str(address)


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
        raise ValueError(_what_is_wrong(word)) from None
    first = _parse(str(network.network_address))
    if isinstance(network, IPv6Network) and isinstance(first, IPv4Address):
        return IPv4Network((first, network.prefixlen - 96))
    return network


def _what_is_wrong(word: str) -> str:
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        return (
            f"{word!r} is neither an address such as 192.0.2.7, a network such as 10.0.0.0/8, "
            f"nor one of {', '.join(PRESETS)}."
        )
    return f"{word!r} is an address inside a network: write '{network}' for the network."


def _read_scheme(text: str) -> str:
    return _SCHEMES.get(text.lower(), "")


def _read_port(text: str) -> str:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return str(number) if 0 < number < 65536 else ""


def _client_port(host: str, scheme: str) -> str:
    _, colon, port = host.rpartition(":")
    return (colon and _read_port(port)) or _DEFAULT_PORTS[scheme]


_READERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "HTTP_X_FORWARDED_PROTO": _read_scheme,
        "HTTP_X_FORWARDED_HOST": str,
        "HTTP_X_FORWARDED_PORT": _read_port,
    }
)
