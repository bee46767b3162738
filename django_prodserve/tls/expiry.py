"""How long certificates are valid, in words that the checks, the log and the status share. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..utils.units import format_age
from .certificates import Certificate

WARN_SECONDS = 14 * 86400.0
"""Seconds before the end of a certificate in which the server warns. Certificate authorities issue for 90
days, and clients such as certbot renew 30 days before the end: they have failed for two weeks then."""


class Expiry(NamedTuple):
    """Until when a certificate is valid."""

    names: tuple[str, ...]
    file: str
    expires: float
    """Unix time."""
    refused: str = ""
    """Why the files that are there now are not used; empty if they are."""

    @classmethod
    def of(cls, certificate: Certificate, file: str, refused: str = "") -> Expiry:
        return cls(certificate.names, file, certificate.expires, refused)

    @property
    def name(self) -> str:
        """Return the name that the certificate is known by."""
        return self.names[0] if self.names else self.file

    def is_near(self, wall: float) -> bool:
        """Return whether the operator must know; ``wall`` is the Unix time now."""
        return self.expires - wall < WARN_SECONDS

    def is_over(self, wall: float) -> bool:
        """Return whether clients refuse the certificate."""
        return self.expires <= wall

    def when(self, wall: float) -> str:
        """Return until when it is valid, as the end of a sentence: ``expires on 2026-12-09, in 9 days``."""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.expires))
        if self.is_over(wall):
            return f"expired on {day}, {format_age(wall - self.expires)} ago"
        return f"expires on {day}, in {format_age(self.expires - wall)}"

    def consequence(self, wall: float) -> str:
        """Return the same with what it means for clients."""
        return self.when(wall) + (": clients refuse this site" if self.is_over(wall) else "")

    def sentence(self, wall: float) -> str:
        """Return the same as a sentence without its full stop."""
        return f"The certificate of {self.name} ({self.file}) {self.consequence(wall)}"

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def read_expiries(found: Any) -> list[Expiry]:
    """Return what ``as_dict`` has written, from JSON."""
    return [Expiry(**{**one, "names": tuple(one["names"])}) for one in found or ()]


def soonest(expiries: Sequence[Expiry]) -> list[Expiry]:
    """Return those that end first before the others."""
    return sorted(expiries, key=lambda one: one.expires)
