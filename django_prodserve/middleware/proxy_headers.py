"""Decide which client data in a peer's headers counts, and drop the rest.
Lives in every worker, on the thread that runs the request, as a middleware around the application. O(1)
work for each request, no lock; the trust was computed before the fork. The access log, too, shows the
resulting REMOTE_ADDR.
Every header that describes the client (its address, scheme, host, name) is removed. None is restored for
an untrusted peer. For a trusted one:
* X-Forwarded-For is the only source of the address. REMOTE_ADDR becomes the client's. The header keeps
  only the entries from the client's on, rightwards. The client itself sent the entries to its left, and
  packages that read the left-most entry would trust them.
* ``--client-address-header`` names another source, such as X-Real-IP or CF-Connecting-IP. Then only that
  header gives the address, as one address. X-Forwarded-For is rebuilt from it, so that no entry of the
  client remains. Without a valid value the peer's own address stays.
* X-Forwarded-Proto, -Host and -Port keep the one entry of the hop that faces the client. The first
  also sets ``wsgi.url_scheme`` and SERVER_PORT; a scheme that is neither http nor https is dropped.
* Other headers that carry a client's address (X-Real-IP, those of CDNs) get the value of REMOTE_ADDR. A
  proxy that does not set them passes the client's own on, and this server cannot distinguish the two.
* Headers that matter only to a project that names them in its settings (X-Forwarded-Ssl,
  X-Forwarded-Prefix, Remote-User) pass unchanged: the proxy must set them.
* Proxy, Forwarded, Script-Name and Path-Info never pass. Forwarded (RFC 7239) is dropped because proxies
  that write X-Forwarded-For pass a client's Forwarded on unchanged, and Django does not read it.
This relies on Gunicorn's ``forwarder_headers=""``, ``forwarded_allow_ips=""`` and
``secure_scheme_headers={}``, so that no header sets SCRIPT_NAME or the scheme before this middleware
(Gunicorn always trusts unix sockets). It also relies on ``header_map="drop"`` or ``"refuse"``, so that
X_Forwarded_For does not join X-Forwarded-For. A SCRIPT_NAME from the server's own environment is kept.
Under the PROXY protocol the load balancer passes the client's own headers on, and REMOTE_ADDR is the
client: trust depends on that address, for every request of the connection (proxy_protocol.py). If the
load balancer knows no address (UNKNOWN, UNSPEC), no header is trusted. Do not combine it with ``*``.
"""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from ..config.trust import (
    _READERS,
    ADDRESSES,
    CLIENT_HEADERS,
    MAX_CHAIN,
    NEVER_PASSED,
    WITNESS,
    Trust,
    _parse,
    _read_port,
    parse_witness,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


NAMELESS = frozenset({"UNKNOWN", "UNSPEC"})
"""Families of a PROXY header that names no client: REMOTE_ADDR is then the load balancer's."""
MAX_ENTRY_LENGTH = 64  # a bracketed IPv6 address with its port has at most 53 characters
REMEMBERED = 4096  # addresses; parsing one costs 1.8 us, a cache hit 0.1 us


_CHAIN = "HTTP_X_FORWARDED_FOR"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PORTED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}", re.ASCII)


class ProxyHeadersMiddleware:
    """Removes the client data of a peer's headers; restores what a trusted peer may set."""

    def __init__(self, application: WSGIApplication, trust: Trust, witness: str = WITNESS) -> None:
        self.application = application
        self.witness = parse_witness(witness)
        self.claims = CLIENT_HEADERS | {self.witness}
        self.missed = Missed(witness)
        # If every peer is trusted, no entry is the first untrusted one: never use the left-most.
        self.hops = trust.hops or (1 if trust.everyone else None)
        self.trusts = lru_cache(maxsize=REMEMBERED)(trust.trusts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.sanitize(environ)
        return self.application(environ, start_response)

    def sanitize(self, environ: WSGIEnvironment) -> None:
        """Remove all client data from the environ except what the peer may set."""
        # 1.3 us for a usual request; a loop over the 36 names takes 1.6 (3.13) to 3.3 us (3.10).
        if "FORWARDED" in "\n".join(environ) or not self.claims.isdisjoint(environ):
            claims = self.take_client_headers(environ)
            if self.believes(environ):
                self.believe(environ, claims)

    def believes(self, environ: WSGIEnvironment) -> bool:
        """Return whether a trusted proxy vouches for the client data of this request."""
        if environ.get("PROXY_PROTOCOL") in NAMELESS:
            return False
        return self.trusts(environ.get("REMOTE_ADDR"))

    def believe(self, environ: WSGIEnvironment, claims: dict[str, str]) -> None:
        """Restore the client data from a trusted peer, as far as it is valid."""
        forwarded_for = claims.pop(_CHAIN, "")
        chain = self.chain(forwarded_for) if self.witness == _CHAIN else self.named(claims)
        if not chain:
            self.missed.tick(claims)
        else:
            environ["HTTP_X_FORWARDED_FOR"] = ", ".join(chain)
            environ["REMOTE_ADDR"] = chain[0]
            environ.pop("REMOTE_PORT", None)  # belongs to the proxy
        place = self.hops or len(chain) or 1
        client = environ.get("REMOTE_ADDR") or ""
        for name, value in claims.items():
            if said := client if name == self.witness else _restate(name, value, place, client):
                environ[name] = said
        if scheme := environ.get("HTTP_X_FORWARDED_PROTO"):
            environ["wsgi.url_scheme"] = scheme
            environ["SERVER_PORT"] = _client_port(environ.get("HTTP_HOST", ""), scheme)

    def take_client_headers(self, environ: WSGIEnvironment) -> dict[str, str]:
        names = [name for name in environ if name in self.claims or "FORWARDED" in name]
        return {name: environ.pop(name) for name in names}

    def named(self, claims: Mapping[str, str]) -> list[str]:
        """Return the one address in the header that the operator has named; empty if it has none."""
        address = _read_entry(claims.get(self.witness, ""))
        return [address] if address else []

    def chain(self, forwarded_for: str) -> list[str]:
        """Return the valid addresses, the client's first; empty if no entry is an address."""
        if self.hops:
            entries = _from_right(forwarded_for, self.hops)
            return [address for entry in entries if (address := _read_entry(entry))]
        chain: list[str] = []
        for entry in reversed(_from_right(forwarded_for, MAX_CHAIN)):
            address = _read_entry(entry)
            if address is None:
                break
            chain.append(address)
            if not self.trusts(address):
                break
        return chain[::-1]


class Missed:
    """Warns once for all workers that a proxy names its client in a header that is not configured.

    Only a trusted peer's request without the configured header comes here. The byte was shared before the
    fork.
    """

    def __init__(self, witness: str) -> None:
        self.witness = witness
        self.told = mmap.mmap(-1, 1)

    def tick(self, claims: Mapping[str, str]) -> None:
        if self.told[0]:
            return
        seen = next((name for name in claims if name in ADDRESSES and _read_entry(claims[name])), "")
        if seen:
            self.told[0] = 1
            header = seen.removeprefix("HTTP_").replace("_", "-").title().replace("-Ip", "-IP")
            logging.getLogger("gunicorn.error").warning(
                "A trusted proxy sends %s without a valid %s, so the proxy's address is used for the client. "
                "If the proxy sets %s on every request: --client-address-header %s",
                *(header, self.witness, header, header),
            )


def _restate(name: str, value: str, place: int, client: str) -> str:
    """Return the value that the application may read under this name; an empty text drops the header."""
    if name in NEVER_PASSED:
        return ""
    if name in ADDRESSES:
        return client
    read = _READERS.get(name)
    return read(_from_right(value, place)[0].strip()) if read else value


def _from_right(value: str, count: int) -> list[str]:
    return value.rsplit(",", count)[-count:]


def _read_entry(entry: str) -> str | None:
    # Truncated, so that the cache stays small; no address is that long.
    return _read_address(entry.strip(" \t")[:MAX_ENTRY_LENGTH])


@lru_cache(maxsize=REMEMBERED)
def _read_address(text: str) -> str | None:
    """Return the address in ``1.2.3.4:5678`` or ``[::1]:1234``, plain; None for anything else."""
    match = _PORTED.fullmatch(text)
    bare = (match[1] or match[2] or "") if match else text
    address = _parse(bare) if "%" not in bare else None  # a zone may contain any text
    return None if address is None else str(address)


def _client_port(host: str, scheme: str) -> str:
    _, colon, port = host.rpartition(":")
    return (colon and _read_port(port)) or _DEFAULT_PORTS[scheme]
