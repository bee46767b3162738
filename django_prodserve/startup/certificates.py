"""The certificates that options name: checked before anything starts, and loaded before the fork.

Runs in the command's process.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ..config import kinds
from ..config.options import option_field
from ..errors import Problem, UsageError
from ..tls.contexts import ENCRYPTED, KeyPairError, TLSContexts, pair_refusal, refusal_of
from ..tls.key_pairs import KeyPair, key_pairs

if TYPE_CHECKING:
    from ..plan.plan import Plan


def contexts(plan: Plan, config: Any) -> TLSContexts | None:
    """Return the contexts that all workers of this generation share; raise UsageError if they cannot be made.

    None without TLS, and if Gunicorn's own workers serve it. ``config`` has Gunicorn's settings.
    """
    if not plan.certificates or plan.worker_class.value != "prodserve":
        return None
    try:
        return TLSContexts.make(config, plan.certificates)
    except KeyPairError as error:
        raise UsageError.of([_problem(error.pair, str(error))]) from error


def contexts_of_gunicorn(config: Any) -> TLSContexts:
    """Return the contexts under plain Gunicorn; raise ProdserveError if they cannot be made.

    Gunicorn's settings name one certificate. The variables that a file of ``plan --gunicorn-conf`` sets may
    name more.
    """
    named = {
        name: kinds.FILES.parse(text)
        for name in ("certfile", "keyfile")
        if (row := option_field(name)) and (text := os.environ.get(row.variable))
    }
    pairs = key_pairs(named.get("certfile", ()), named.get("keyfile", ()))
    try:
        return TLSContexts.make(config, pairs or [KeyPair(config.certfile or config.keyfile, config.keyfile)])
    except KeyPairError as error:
        raise UsageError.of([_problem(error.pair, str(error))]) from error


def certificate_problems(plan: Plan) -> Iterator[Problem]:
    """Yield what is wrong with the certificates, their keys and the settings of TLS: use them once."""
    if not plan.certificates:
        return
    named = [("--certfile", plan.certfile, path) for path in plan.certfile.value]
    named += [("--keyfile", plan.keyfile, path) for path in plan.keyfile.value]
    unreadable = set()
    for flag, decision, path in named:
        if why := _why_unreadable(path):
            unreadable.add(path)
            fix = f"Name a file that exists and that this user may read: {flag} PATH"
            yield Problem(f"{decision.source} {path} cannot be read: {why}.", fix, "", "tls", flag[2:])
    has_hook = "ssl_context" in plan.gunicorn  # it may know the password of a key
    for pair in plan.certificates:
        if (
            unreadable.isdisjoint(pair)
            and (why := pair_refusal(pair))
            and not (has_hook and why == ENCRYPTED)
        ):
            yield _problem(pair, why)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for name, use in (("ciphers", context.set_ciphers), ("ca_certs", context.load_verify_locations)):
        found = plan.gunicorn.get(name)
        if found and found.value and (why := _refusal(partial(use, found.value))):
            fix = f"Correct {name}, or remove it."
            yield Problem(f"{found.source} {found.value} cannot be used for TLS: {why}.", fix, "", "tls")
    wanted, trusted = plan.gunicorn.get("cert_reqs"), plan.gunicorn.get("ca_certs")
    if wanted and wanted.value and not (trusted and trusted.value) and not has_hook:
        yield Problem(
            f"{wanted.source} asks for client certificates, but no issuer is trusted: all are refused.",
            'Name the issuers: PRODSERVE["GUNICORN"] = {"ca_certs": "clients.pem", ...}',
            "",
            "tls",
        )


def _problem(pair: KeyPair, why: str) -> Problem:
    fix = "Name a certificate in PEM format, and the key that belongs to it."
    if why == ENCRYPTED:
        fix = f"Store it without a password: openssl pkey -in {pair.keyfile or pair.certfile} -out key.pem"
    return Problem(f"{pair} cannot be used for TLS: {why}.", fix, "", "tls", "certfile")


def _refusal(use: Callable[[], object]) -> str:
    """Return why OpenSSL refuses a value; empty if it takes it."""
    try:
        use()
    except ssl.SSLError as error:
        return refusal_of(error)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _why_unreadable(path: str) -> str:
    try:
        with open(path, "rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)
