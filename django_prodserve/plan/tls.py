"""How TLS is served: by the default worker on its event loop, or by Gunicorn's own workers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import Problem
from ..utils.decision import Decision

if TYPE_CHECKING:
    from ..config.options import SourcedValue

COST = "handshakes on the event loop; about 17 KiB for each connection, and files are sent without sendfile"
WITHOUT_EFFECT: Mapping[str, tuple[object, str]] = {
    "do_handshake_on_connect": (False, "the event loop continues a handshake whenever bytes arrive"),
    "suppress_ragged_eofs": (True, "a client that closes without a word has closed"),
    "ssl_version": (None, "Gunicorn ignores it, too: set minimum_version in its hook ssl_context"),
}
"""Gunicorn's settings that the default worker does not use: their defaults, and what it does instead."""


def choose_tls(certfile: Decision[tuple[str, ...]], worker_class: Decision[str]) -> Decision[str]:
    """Return which versions of TLS are spoken, and what that costs."""
    if not certfile.value:
        return Decision("off", "no certificate is named: --certfile")
    if worker_class.value == "prodserve":
        return Decision("1.2, 1.3", COST)
    return Decision("1.2, 1.3", f"as Gunicorn's {worker_class.value} workers do it")


def notes(
    tls: Decision[str], worker_class: Decision[str], passed: Mapping[str, SourcedValue]
) -> Iterator[str]:
    """Yield settings of Gunicorn's TLS that were seen and have no effect."""
    if tls.value != "off" and worker_class.value == "prodserve":
        for name, (default, instead) in WITHOUT_EFFECT.items():
            if name in passed and passed[name].value != default:
                yield f"{passed[name].source} is not used: {instead}"


def warnings(
    certfile: Decision[tuple[str, ...]],
    worker_class: Decision[str],
    passed: Mapping[str, SourcedValue],
    slots: int,
) -> Iterator[Problem]:
    """Warn of what Gunicorn's own workers do worse. ``slots``: requests that run at a time."""
    name, fix = worker_class.value, "Remove --worker-class: the default worker keeps clients off its threads."
    if certfile.value and name in ("gthread", "sync"):
        yield Problem(
            f"{name} workers wait for the TLS handshake of each client: {slots} that stall stop the site.",
            fix,
            topic="certfile",
        )
    if certfile.value[1:] and name != "prodserve":
        yield Problem(
            f"{name} workers have one certificate: all clients get {certfile.value[0]}.",
            "Name one, with all hosts in it. Or remove --worker-class.",
            topic="certfile",
        )
    if speaks_http2(passed) and name == "gthread":
        yield Problem(
            "With HTTP/2, the streams of a connection run one after another. "
            f"Each connection holds a thread: {slots} connections stop the site.",
            "Let a proxy speak HTTP/2 to browsers: prodserve export nginx, or caddy.",
            topic="worker-class",
        )


def speaks_http2(passed: Mapping[str, SourcedValue]) -> bool:
    """Return whether Gunicorn's settings ask for HTTP/2."""
    return "http_protocols" in passed and "h2" in str(passed["http_protocols"].value)
