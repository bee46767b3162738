"""The certificates of a site, each with its key, as --certfile and --keyfile name them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class KeyPair(NamedTuple):
    """A certificate chain and its key."""

    certfile: str
    keyfile: str | None = None
    """None: the file of the certificate also holds the key."""

    def __str__(self) -> str:
        return f"{self.certfile} and {self.keyfile}" if self.keyfile else self.certfile


def key_pairs(certfiles: Sequence[str], keyfiles: Sequence[str]) -> tuple[KeyPair, ...]:
    """Return the pairs in their order; ``keyfiles`` has as many files as ``certfiles``, or none."""
    if not keyfiles:
        return tuple(map(KeyPair, certfiles))
    return tuple(map(KeyPair, certfiles, keyfiles))
