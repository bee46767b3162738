"""Watch the files of certificates: take renewed ones over without a reload, and warn before one expires.

Lives in the arbiter, on its main loop: it loads the project's certificates, so new workers fork with them,
and it has the rights with which the server started. Clients such as certbot write a certificate and its key
one after the other, often through links. So a pair is tried when its files have not changed between two
looks, and tried again for a while if it does not fit. The old one serves until then.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..scoreboard.events import Event, last_of
from ..tls.certificates import CertificateError, parse_pem, read_certificate
from ..tls.contexts import KeyPairError, TLSContexts, pair_refusal
from ..tls.expiry import Expiry, soonest
from ..tls.key_pairs import KeyPair
from ..tls.renewal import PairContent, Renewals, content_of

if TYPE_CHECKING:
    from .interface import ArbiterActions

LOOK_SECONDS = 2.0
"""Interval between two looks at the files: two calls of stat for each, 10 us."""
WRITING_SECONDS = 15.0
"""Seconds without a change after which a pair that does not fit is reported: its other file may follow."""
RETRY_SECONDS = 60.0
"""Interval of attempts with refused files that look unchanged: rights may have changed elsewhere."""
CHANGING_SECONDS = 30.0
"""Seconds after which files that change at every look are tried all the same."""
AGAIN_SECONDS = 86400.0
"""Seconds between two warnings that a certificate expires."""
SHOWN_BYTES = 2500
"""Bytes of the certificates in the status, about 12 of them: its memory is limited."""


@dataclass
class WatchedPair:
    """The files of one certificate, and what is known of them."""

    pair: KeyPair
    signature: tuple[object, ...] = ()
    served: bytes = b""
    """The digest of the content that serves."""
    is_due: bool = True
    """Whether the files may differ from what serves."""
    changed: float = 0.0
    """When the files last changed, as seen here..."""
    began: float = 0.0
    """...and when they began to."""
    retry_at: float = 0.0
    refused: str = ""
    """Why the present content is not used."""
    told: tuple[bytes, ...] = ()
    """The digests of what was reported."""

    def is_stable(self, now: float) -> bool:
        """Look at the files; return whether they are due and were the same at the last look."""
        signature = tuple(map(_signature, filter(None, self.pair)))
        if signature != self.signature:
            if not self.is_due:
                self.began = now
            self.signature, self.changed, self.is_due = signature, now, True
            return now - self.began > CHANGING_SECONDS
        if self.refused and now >= self.retry_at:
            self.is_due = True
        return self.is_due


class CertificateWatch:
    """The certificates of one generation, as its arbiter watches them."""

    def __init__(
        self,
        arbiter: ArbiterActions,
        pairs: Sequence[KeyPair],
        contexts: TLSContexts | None,
        renewals: Renewals | None,
    ) -> None:
        self._arbiter, self._contexts, self._renewals = arbiter, contexts, renewals
        self._watched = [WatchedPair(pair) for pair in pairs]
        self._expiries: list[Expiry] = []
        self._next_look = 0.0
        self._next_warning: float | None = None
        """When to warn again, as Unix time; None until the first look."""
        self._is_over: bool | None = None
        """Whether one has ended; None until the first look."""

    def tick(self, now: float) -> None:
        """Look at the files if it is time, and at the clock."""
        if now < self._next_look or not self._watched:
            return
        self._next_look = now + LOOK_SECONDS
        due = [pair for pair in enumerate(self._watched) if pair[1].is_stable(now)]
        for number, watched in due:
            self._try(number, watched, now)
        if due or not self._expiries:
            self._publish()
        self._warn(time.time())

    def resume(self, events: Sequence[Event]) -> None:
        """Continue the interval of warnings from that of the previous generation."""
        if last := last_of(events, "certificate expires"):
            self._next_warning = last.time + AGAIN_SECONDS

    def _try(self, number: int, watched: WatchedPair, now: float) -> None:
        """Take the files over if they fit."""
        digest, why = b"", ""
        try:
            content = content_of(watched.pair)
            digest = hashlib.sha256(content.certificate + b"\0" + (content.key or b"")).digest()
            if digest == watched.served or self._serves(number, watched, content):
                watched.served, watched.is_due, watched.refused = digest, False, ""
                return
            self._load(number, content)
        except OSError as error:
            why = f"{error.filename or watched.pair} cannot be read: {error.strerror or error}"
        except (KeyPairError, CertificateError) as error:
            why = str(error)
        if not why:
            watched.served, watched.is_due, watched.refused = digest, False, ""
            self._report_renewed(number)
        elif now - watched.changed >= WRITING_SECONDS:
            watched.is_due, watched.refused, watched.retry_at = False, why, now + RETRY_SECONDS
            self._report_refused(number, watched, digest or why.encode())

    def _serves(self, number: int, watched: WatchedPair, content: PairContent) -> bool:
        """Return whether the content was loaded at the start, before the first look."""
        if watched.served:
            return False
        if self._contexts is None:  # Gunicorn's own workers read the files for each connection
            return True
        return parse_pem(content.certificate) == self._contexts.certificates[number]

    def _load(self, number: int, content: PairContent) -> None:
        """Load the content here, then make the workers do the same; Gunicorn's read the files themselves."""
        if self._contexts is None or self._renewals is None:
            pair = self._watched[number].pair
            if why := pair_refusal(pair):
                raise KeyPairError(pair, why)
            return
        try:
            self._contexts.renew(number, self._renewals.put(number, content))
        except KeyPairError:
            self._renewals.restore(number)
            raise
        self._renewals.order(number, content)

    def _report_renewed(self, number: int) -> None:
        expiry = self._expiry(number)
        if expiry is not None:
            text = f"The certificate of {expiry.name} is renewed: it {expiry.when(time.time())}"
            self._arbiter.log.notice("%s.", text)
            self._arbiter.record_event("certificate renewed", text)

    def _report_refused(self, number: int, watched: WatchedPair, content: bytes) -> None:
        """Report once for each content."""
        expiry = self._expiry(number)
        if content in watched.told or expiry is None:
            return
        watched.told = (*watched.told[-63:], content)
        text = (
            f"The new files of the certificate of {expiry.name} ({watched.pair}) are not used: "
            f"{watched.refused}. The old certificate serves, and {expiry.when(time.time())}"
        )
        if self._contexts is None:
            text = f"{watched.pair} cannot be used for TLS: {watched.refused}. New connections fail"
        self._arbiter.log.warning("%s.", text)
        self._arbiter.record_event("certificate refused", text)

    def _expiry(self, number: int) -> Expiry | None:
        watched = self._watched[number]
        if self._contexts is not None:
            return Expiry.of(self._contexts.certificates[number], watched.pair.certfile, watched.refused)
        with suppress(OSError, CertificateError):
            return Expiry.of(read_certificate(watched.pair.certfile), watched.pair.certfile, watched.refused)
        return None

    def _publish(self) -> None:
        """Show the certificates in the status."""
        found = [self._expiry(number) for number in range(len(self._watched))]
        self._expiries = [expiry for expiry in found if expiry is not None]
        shown = [_short(expiry).as_dict() for expiry in soonest(self._expiries)]
        while len(json.dumps(shown)) > SHOWN_BYTES:
            shown.pop()
        self._arbiter.log_line(certificates=shown)

    def _warn(self, wall: float) -> None:
        """Warn once a day, and immediately when a certificate ends."""
        near = [expiry for expiry in self._expiries if expiry.is_near(wall)]
        is_first, is_over = self._next_warning is None, any(expiry.is_over(wall) for expiry in near)
        ends_now, self._is_over = is_over and self._is_over is False, is_over
        if self._next_warning is not None and wall < self._next_warning and not ends_now:
            return
        self._next_warning = wall + AGAIN_SECONDS
        for expiry in near:
            text = expiry.sentence(wall)
            if not is_first:  # the checks of the start have printed it
                log = self._arbiter.log.error if expiry.is_over(wall) else self._arbiter.log.warning
                log("%s. Renew it: the server uses the new one without a reload.", text)
            self._arbiter.record_event("certificate expires", text)


def _signature(path: str) -> tuple[object, ...]:
    """Return what changes when the file is written, replaced or reached through another link."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _short(expiry: Expiry) -> Expiry:
    """Return it with few names and short texts."""
    names = tuple(name[:64] for name in expiry.names[:2])
    return expiry._replace(names=names, file=expiry.file[-120:], refused=expiry.refused[:200])
