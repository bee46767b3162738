"""Several machines behind one proxy: where each serves, and what its server needs for that. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..config import parsers
from ..config.parse_errors import ParseError
from ..errors import Problem, UsageError

if TYPE_CHECKING:
    from ..plan.plan import Plan

DRAIN = "4s"  # three checks of HAProxy: of 32,769 requests in a rolling restart, 0 failed
LOOPBACK = ("127.", "localhost:", "[::1]:")
BALANCERS = ("haproxy",)
"""Kinds of files that name several machines."""


def parse_servers(words: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Return HOST:PORT of each machine; raise UsageError with every wrong one."""
    others = [kind for kind in kinds if kind not in BALANCERS]
    if words and others:
        raise UsageError(
            f"--server names machines behind HAProxy, not for {', '.join(others)}.",
            f"prodserve export haproxy --server {words[0]}",
            topic="many-machines",
        )
    if problems := [*_problems(words)]:
        raise UsageError.of(problems)
    return tuple(dict.fromkeys(parsers.address(word) for word in words))


def _problems(words: Sequence[str]) -> Iterator[Problem]:
    for word in words:
        try:
            text = parsers.address(word)
        except ParseError as error:
            yield Problem(f"--server is {word!r}: {error}", error.fix, code=error.code, topic="many-machines")
            continue
        if text.startswith(("unix:", "fd:", "0.0.0.0:", "[::]:", ":")):
            yield Problem(
                f"--server is {word!r}, which names no machine.",
                "Write its address, such as --server 10.0.0.11:8000",
                code="bad-address",
                topic="many-machines",
            )


def needed(plan: Plan, servers: Sequence[str]) -> dict[str, Any]:
    """Return the flags that servers on several machines need, unless an operator has set them.

    Raise UsageError if the address that was set cannot be reached from another machine.
    """
    flags: dict[str, Any] = {}
    here, there = plan.bind.value[0], [text for text in servers if not text.startswith(LOOPBACK)]
    if plan.bind.is_computed:
        any_host = "[::]" if servers[0].startswith("[") else "0.0.0.0"
        flags["bind"] = [f"{any_host}:{servers[0].rpartition(':')[2]}"]
    elif there and here.startswith(("unix:", *LOOPBACK)):
        raise UsageError(
            f"The server listens at {here}, and HAProxy cannot reach that address at {there[0]}.",
            f"--bind 0.0.0.0:{there[0].rpartition(':')[2]}",
            code="conflict",
            topic="many-machines",
        )
    if plan.drain_delay.source == "default":
        flags["drain_delay"] = DRAIN
    return flags
