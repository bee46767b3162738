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
client: claims are judged by that address, for every request of the connection (proxy_protocol.py). Where
the load balancer knows no address (UNKNOWN, UNSPEC) nothing is believed. Do not combine it with ``*``.
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
"""What a PROXY line says of a client without naming it: REMOTE_ADDR is then the load balancer's."""
MAX_ENTRY_LENGTH = 64  # a bracketed IPv6 address with its port has 53 characters at most
REMEMBERED = 4096  # addresses; parsing one costs 1.8 us, finding it again 0.1 us


_CHAIN = "HTTP_X_FORWARDED_FOR"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PORTED = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}", re.ASCII)


class ProxyHeadersMiddleware:
    """Take out what the peer says about the client; put back what a trusted one may say."""

    def __init__(self, application: WSGIApplication, trust: Trust, witness: str = WITNESS) -> None:
        self.application = application
        self.witness = parse_witness(witness)
        self.claims = CLIENT_HEADERS | {self.witness}
        self.missed = Missed(witness)
        # With everyone trusted there is no first stranger from the right: never take the left-most.
        self.hops = trust.hops or (1 if trust.everyone else None)
        self.trusts = lru_cache(maxsize=REMEMBERED)(trust.trusts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.sanitize(environ)
        return self.application(environ, start_response)

    def sanitize(self, environ: WSGIEnvironment) -> None:
        """Leave in the environ only what the peer may say."""
        # 1.3 us for a usual request; a loop over the 36 names takes 1.6 (3.13) to 3.3 us (3.10).
        if "FORWARDED" in "\n".join(environ) or not self.claims.isdisjoint(environ):
            claims = self.take_client_headers(environ)
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
            self.missed.tick(claims)
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

    def take_client_headers(self, environ: WSGIEnvironment) -> dict[str, str]:
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
        for entry in reversed(_from_right(forwarded_for, MAX_CHAIN)):
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

    def tick(self, claims: Mapping[str, str]) -> None:
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
    if name in NEVER_PASSED:
        return ""
    if name in ADDRESSES:
        return client
    read = _READERS.get(name)
    return read(_from_right(value, place)[0].strip()) if read else value


def _from_right(value: str, count: int) -> list[str]:
    return value.rsplit(",", count)[-count:]


def _read_entry(entry: str) -> str | None:
    # Cut short, so that what is remembered stays small; no address is that long.
    return _read_address(entry.strip(" \t")[:MAX_ENTRY_LENGTH])


@lru_cache(maxsize=REMEMBERED)
def _read_address(text: str) -> str | None:
    """Return the address in ``1.2.3.4:5678`` or ``[::1]:1234``, plain; None for anything else."""
    match = _PORTED.fullmatch(text)
    bare = (match[1] or match[2] or "") if match else text
    address = _parse(bare) if "%" not in bare else None  # a zone may hold any text
    return None if address is None else str(address)


def _client_port(host: str, scheme: str) -> str:
    _, colon, port = host.rpartition(":")
    return (colon and _read_port(port)) or _DEFAULT_PORTS[scheme]
