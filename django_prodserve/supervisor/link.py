"""A server's tie to whoever watches over it: its supervisor, or nobody but systemd.

Lives in the command's process, which becomes the arbiter; main thread. ``Supervised`` speaks to the
supervisor over a socket pair. ``Standalone`` does what a supervisor would do: it tells systemd, and keeps the
record.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from ..errors import ProdserveError
from ..startup import listeners
from ..utils import outlet
from . import run_directory
from .protocol import (
    GENERATION,
    GenerationSpec,
    Message,
    MessageKind,
    ServerRecord,
    ServingFacts,
    decode,
    encode,
)
from .sd_notify import Notifier


class Standalone:
    """A server without a supervisor."""

    supervisor = 0
    number = 1
    extra_workers = 0
    during_reload = False

    def __init__(
        self, place: Path | None, record: ServerRecord, notifier: Notifier, paths: Sequence[str]
    ) -> None:
        self.run_dir = place
        self.paths = paths
        self.record = record
        self.notifier = notifier
        self.beats = notifier.watchdog / 4
        self.save()

    def handed_on(self) -> dict[str, str]:
        """A program that takes this one's place binds and writes down everything anew."""
        return {}

    def save(self) -> None:
        if self.run_dir is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason not to serve
                run_directory.write(self.run_dir, self.record)

    def ready(self, facts: ServingFacts) -> None:
        """The first full set of workers answers."""
        self.record.update({**self.record, **facts, "ready": True})
        self.save()
        self.notifier.ready("serving")

    def failed(self, reason: str) -> None:
        """Whoever started us sees it on standard error."""

    def changed(self, file: str) -> None:
        """Without a supervisor there is no --reload."""

    def beat(self) -> None:
        self.notifier.alive()

    def stopping(self) -> None:
        self.notifier.stopping()

    def stopped_accepting(self) -> None:
        """Nobody else serves, so nobody needs to know."""

    def failed_reloads(self) -> list[tuple[int, str]]:
        """Without a supervisor there are no reloads."""
        return []

    def is_orphan(self) -> bool:
        return False

    def is_retired(self) -> bool:
        return False

    def end(self) -> None:
        """Leave nothing behind: neither paths of sockets nor the private place."""
        for path in self.paths:
            listeners.remove_path(path)
        with contextlib.suppress(OSError):
            if self.run_dir is not None:
                run_directory.remove(self.run_dir)


class Supervised:
    """A generation of a server that has a supervisor."""

    def __init__(self, given: GenerationSpec) -> None:
        self.given = given
        self.number = given["number"]
        self.supervisor = given["supervisor"]
        self.run_dir = Path(given["place"]) if given["place"] else None
        self.extra_workers = given["extra_workers"]
        self.during_reload = given.get("beside", False)
        """Whether it is a reload that starts it: the generation before serves, and takes memory."""
        self.links = given.get("links", {})
        """The links that led to the code that serves, each with where it led."""
        self.beats = given["beats"]
        self.inherited_sockets = given["listeners"]
        self.channel = socket.socket(fileno=given["channel"])
        self.channel.settimeout(None)  # a default of the project's would hold up each look at it
        self.channel.set_inheritable(False)
        self.retired = False
        self.failures: list[tuple[int, str]] = []

    def take(self, addresses: Sequence[str]) -> list[socket.socket]:
        """Return the supervisor's sockets; raise ProdserveError where the plan wants others."""
        held = [address for address, _ in self.inherited_sockets]
        if sorted(held) != sorted(addresses):
            raise ProdserveError(
                f"The addresses changed from {', '.join(held)} to {', '.join(addresses)}.",
                "Restart the server: a reload keeps its sockets.",
            )
        left = list(self.inherited_sockets)
        taken = [left.pop([name for name, _ in left].index(address)) for address in addresses]
        return [socket.socket(fileno=number) for _, number in taken]

    def handed_on(self) -> dict[str, str]:
        """Return what a program needs that takes this one's place; let the sockets live on in it."""
        self.channel.set_inheritable(True)
        for _, number in self.inherited_sockets:
            os.set_inheritable(number, True)
        return {GENERATION: json.dumps({**self.given, "stderr": None})}

    def ready(self, facts: ServingFacts) -> None:
        self._send({"kind": MessageKind.READY, "facts": facts})

    def failed(self, reason: str) -> None:
        self._send({"kind": MessageKind.FAILED, "reason": reason[:8000]})

    def changed(self, file: str) -> None:
        self._send({"kind": MessageKind.CHANGED, "file": file})

    def beat(self) -> None:
        if self.beats:
            self._send({"kind": MessageKind.BEAT})

    def stopping(self) -> None:
        """The supervisor has been told before us, and has told systemd."""

    def stopped_accepting(self) -> None:
        """None of our workers accepts any more: whoever connects now meets the newer generation."""
        self._send({"kind": MessageKind.STOPPED_ACCEPTING})

    def is_orphan(self) -> bool:
        """Say whether the supervisor is gone: then nobody can stop us, and the next server needs the port."""
        return os.getppid() != self.supervisor

    def is_retired(self) -> bool:
        """Say whether a newer generation serves: then the sockets stay open, and nobody is turned away."""
        self._receive()
        return self.retired

    def failed_reloads(self) -> list[tuple[int, str]]:
        """Return number and reason of each generation that could not take over since this was last asked."""
        self._receive()
        failures, self.failures = self.failures, []
        return failures

    def _receive(self) -> None:
        """Read what the supervisor has sent; a message that lacks what is read here is ignored."""
        with contextlib.suppress(OSError):
            while datagram := self.channel.recv(65536, socket.MSG_DONTWAIT):
                message = decode(datagram)
                if message is None:
                    continue
                if message["kind"] is MessageKind.RETIRE:
                    self.retired = True
                elif message["kind"] is MessageKind.RELOAD_FAILED:
                    with contextlib.suppress(KeyError):
                        self.failures.append((message["number"], message["reason"]))

    def end(self) -> None:
        """Paths and the private place are the supervisor's."""

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: is_orphan tells
            self.channel.send(encode(message), socket.MSG_DONTWAIT)


SupervisorLink = Standalone | Supervised


def from_environment(environ: MutableMapping[str, str]) -> Supervised | None:
    """Return what the supervisor gave to this process, if it is a generation that a supervisor has started.

    Standard error was a file until now, so that a supervisor can tell why settings could not be read; what
    stands in it goes where it belongs.
    """
    text = environ.pop(GENERATION, "")
    if not text:
        return None
    given: GenerationSpec = json.loads(text)
    if given["stderr"] is not None:
        early = os.pread(2, 1_000_000, 0)
        os.ftruncate(2, 0)
        os.dup2(given["stderr"], 2)
        os.close(given["stderr"])
        outlet.follow()
        outlet.console(2, "Standard error").put(early)
    if given["activated"]:  # systemd's sockets were passed to the supervisor's pid, and by it to ours
        environ["LISTEN_PID"] = str(os.getpid())
    return Supervised(given)
