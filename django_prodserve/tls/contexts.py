"""The TLS contexts of one generation: one for each certificate, and which of them a client gets.

Made in the arbiter, before it forks: so all workers have the same keys for session tickets, and a client
resumes its session in any of them. Each worker then has a copy. Handshakes take ``lock``, and so does
``renew``: OpenSSL lets nobody read a context while another thread changes it.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..utils.tracebacks import reason_of
from .certificates import Certificate, CertificateError, parse_pem
from .key_pairs import KeyPair

ALPN = ["http/1.1"]
OPTIONS = ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
"""A client of TLS 1.2 must not order one handshake after another."""


class KeyPairError(Exception):
    """A certificate cannot be used with its key; the text is the reason, as part of a sentence."""

    def __init__(self, pair: KeyPair, why: str) -> None:
        super().__init__(why)
        self.pair = pair


class TLSContexts:
    """The contexts of the certificates that a site has. The first one is for clients that name no host."""

    def __init__(self, pairs: Sequence[KeyPair], new: Callable[[KeyPair], ssl.SSLContext]) -> None:
        self.pairs = tuple(pairs)
        self._new = new
        self.lock = threading.Lock()
        loaded = [self._load(number, pair) for number, pair in enumerate(self.pairs)]
        self._contexts = [context for context, _ in loaded]
        self.certificates = [certificate for _, certificate in loaded]
        """What the certificates contain, in the order of ``pairs``."""
        self._by_name = self._index()

    @classmethod
    def make(cls, config: Any, pairs: Sequence[KeyPair]) -> TLSContexts:
        """Return the contexts that Gunicorn's settings describe; raise KeyPairError if one cannot be made.

        Gunicorn's hook ``ssl_context`` is called once for each pair. What it has set stays, except what a
        server of HTTP/1.1 needs.
        """

        def new(pair: KeyPair) -> ssl.SSLContext:
            try:
                made = config.ssl_context(config, lambda: default_context(config, pair))
            except (OSError, EncryptedKeyError):
                raise
            except Exception as error:  # the hook is the operator's: it may raise any exception
                why = f"the hook ssl_context raised {type(error).__name__}: {reason_of(error)}"
                raise KeyPairError(pair, why.rstrip(": .")) from error
            if not isinstance(made, ssl.SSLContext):
                raise KeyPairError(pair, f"the hook ssl_context returned {made!r} and no SSLContext")
            made.options |= OPTIONS
            made.set_alpn_protocols(ALPN)
            return made

        return cls(pairs, new)

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Return the server's side of a new TLS connection."""
        with self.lock:
            return self._contexts[0].wrap_bio(incoming, outgoing, server_side=True)

    def renew(self, number: int, files: KeyPair | None = None) -> None:
        """Load a pair again, for new connections; raise KeyPairError and change nothing if it cannot be used.

        ``files`` are copies of its files: a worker may not be allowed to read those of the operator.

        It is first tried in a new context: a key that does not fit would break the one that serves. The
        context stays, because clients resume sessions with its keys. A certificate with a key of another kind
        gets a new context: in the old one, the old certificate would stay next to it.
        """
        context, certificate = self._load(number, files or self.pairs[number], self._contexts[number])
        self._contexts[number] = context
        self.certificates[number] = certificate
        self._by_name = self._index()

    def _load(
        self, number: int, pair: KeyPair, live: ssl.SSLContext | None = None
    ) -> tuple[ssl.SSLContext, Certificate]:
        """Return a context with this pair, the live one if it can be; and what the certificate contains."""
        with usable(pair), frozen(pair) as copy:
            with open(copy.certfile, "rb") as file:
                certificate = parse_pem(file.read())
            context = self._new(copy)
            if live is not None and self._has_same_key_type(live, certificate):
                with self.lock:
                    live.load_cert_chain(copy.certfile, copy.keyfile, _no_password)
                return live, certificate
        if len(self.pairs) > 1 and number == 0 and context.sni_callback is None:
            context.sni_callback = self._choose
        return context, certificate

    def _has_same_key_type(self, live: ssl.SSLContext, certificate: Certificate) -> bool:
        return self.certificates[self._contexts.index(live)].key_type == certificate.key_type

    def _index(self) -> dict[str, ssl.SSLContext]:
        """Return the contexts by the names of their certificates; the first certificate of a name wins."""
        found: dict[str, ssl.SSLContext] = {}
        for context, certificate in zip(self._contexts, self.certificates, strict=True):
            for name in certificate.names:
                found.setdefault(name, context)
        return found

    def _choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Use the certificate for the host that the client names; OpenSSL calls this in the handshake."""
        found = self.context_for(name)
        if found is not None and found is not context:
            tls.context = found

    def context_for(self, name: str | None) -> ssl.SSLContext | None:
        """Return the context of the certificate for this host; None if no certificate has it."""
        if not name:
            return None
        name = name.lower().rstrip(".")
        return self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")


def default_context(config: Any, pair: KeyPair) -> ssl.SSLContext:
    """Return the context that Gunicorn makes of its settings, for this pair: TLS 1.2 and 1.3 alone."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config.ca_certs)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.certfile, pair.keyfile, _no_password)
    context.verify_mode = config.cert_reqs
    if config.ciphers:
        context.set_ciphers(config.ciphers)
    return context


class EncryptedKeyError(Exception):
    """A key needs a password."""


def _no_password() -> str:
    """Refuse to ask: OpenSSL would wait for a password on the terminal."""
    raise EncryptedKeyError


ENCRYPTED = "the key is encrypted, and a server has nobody to type its password"


def pair_refusal(pair: KeyPair) -> str:
    """Return why this certificate and key cannot be used, as part of a sentence; empty if they can."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        with usable(pair):
            context.load_cert_chain(pair.certfile, pair.keyfile, _no_password)
            with open(pair.certfile, "rb") as file:
                parse_pem(file.read())
    except KeyPairError as error:
        return str(error)
    return ""


@contextmanager
def usable(pair: KeyPair) -> Iterator[None]:
    """Turn every reason why this pair cannot be used into a KeyPairError."""
    try:
        yield
    except KeyPairError as error:
        raise KeyPairError(pair, str(error)) from error.__cause__
    except EncryptedKeyError:
        raise KeyPairError(pair, ENCRYPTED) from None
    except CertificateError as error:
        raise KeyPairError(pair, str(error)) from None
    except ssl.SSLError as error:
        raise KeyPairError(pair, refusal_of(error)) from None
    except OSError as error:
        raise KeyPairError(pair, error.strerror or str(error)) from None


REASONS = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
    "KEY_TYPE_MISMATCH": "the key does not belong to the certificate",
    "NO_CERTIFICATE_ASSIGNED": "the key does not belong to the certificate",  # it is of another kind
    "EE_KEY_TOO_SMALL": "its key is too short for OpenSSL",
    "CA_MD_TOO_WEAK": "its signature is too weak for OpenSSL",
}


def refusal_of(error: ssl.SSLError) -> str:
    """Return what OpenSSL refuses, as part of a sentence."""
    if "PEM lib" in str(error):
        return "it is not in PEM format"
    reason = str(getattr(error, "reason", "") or error.args[-1])
    return REASONS.get(reason, reason.rstrip("."))


@contextmanager
def frozen(pair: KeyPair) -> Iterator[KeyPair]:
    """Give a copy of both files that nobody writes meanwhile, so that what was tried is what is loaded.

    The copies are in memory; a system without files in memory gets the files themselves.
    """
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        yield pair
        return
    with ExitStack() as stack:

        def copy(path: str) -> str:
            with open(path, "rb") as file:
                data = file.read()
            descriptor = os.memfd_create("prodserve-tls")
            stack.callback(os.close, descriptor)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            return f"/proc/self/fd/{descriptor}"

        yield KeyPair(copy(pair.certfile), copy(pair.keyfile) if pair.keyfile else None)
