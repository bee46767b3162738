"""Checks of the certificates that the server is to use. The rules in checks.py run them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from django.core.checks import CheckMessage, Warning

from ..tls.certificates import CertificateError, read_certificate
from ..tls.expiry import Expiry
from ..tls.key_pairs import KeyPair


def read_expiries(pairs: Sequence[KeyPair]) -> Iterator[Expiry]:
    """Yield until when each certificate is valid; startup/files.py reports files that cannot be used."""
    for pair in pairs:
        with suppress(OSError, CertificateError):
            yield Expiry.of(read_certificate(pair.certfile), pair.certfile)


def run(certificates: Sequence[Expiry]) -> Iterator[CheckMessage]:
    """Yield a warning for each certificate that ends soon, or has ended."""
    wall = time.time()
    for expiry in certificates:
        if expiry.is_near(wall):
            yield Warning(
                f"The certificate of {expiry.name} ({expiry.file}) {expiry.consequence(wall)}.",
                hint="Renew it, and find out why that did not happen. A running server takes it over",
                id="prodserve.W029",
            )
