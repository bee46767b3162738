"""A server's connection to the process that watches it: its supervisor, or only systemd.

Runs in the command's process, which becomes the arbiter; main thread. ``Supervised`` communicates with the
supervisor over a socket pair. ``Standalone`` does the work of a supervisor: it notifies systemd, and keeps
the record.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from ..errors import Problem, ProdserveError
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
        """A program that replaces this one binds and records everything again."""
        return {}

    def release(self) -> None:
        """In a fork that is not a worker: nothing is open."""

    def save(self) -> None:
        if self.run_dir is not None:
            with contextlib.suppress(OSError):  # serve also if the disk is full
                run_directory.write(self.run_dir, self.record)

    def ready(self, facts: ServingFacts) -> None:
        """The first full set of workers answers."""
        self.record.update({**self.record, **facts, "ready": True})
        self.save()
        self.notifier.ready("serving")

    def failed(self, reason: str, problems: Sequence[Problem] = ()) -> None:
        """The process that started us sees the reason on standard error."""

    def changed(self, file: str) -> None:
        """Without a supervisor there is no --reload."""

    def beat(self) -> None:
        self.notifier.alive()

    def stopping(self) -> None:
        self.notifier.stopping()

    def stopped_accepting(self) -> None:
        """No other generation serves, so no message is needed."""

    def failed_reloads(self) -> list[tuple[int, str]]:
        """Without a supervisor there are no reloads."""
        return []

    def is_orphan(self) -> bool:
        return False

    def is_retired(self) -> bool:
        return False

    def end(self) -> None:
        """Remove all files: the paths of sockets and the run directory."""
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
        self.during_reload = given.get("during_reload", False)
        """Whether a reload starts it: then the generation before serves, and uses memory."""
        self.links = given.get("links", {})
        """The links that led to the code that serves, each with its target."""
        self.beats = given["beats"]
        self.inherited_sockets = given["listeners"]
        self.channel = socket.socket(fileno=given["channel"])
        self.channel.settimeout(None)  # a default timeout of the project would block each poll
        self.channel.set_inheritable(False)
        self.retired = False
        self.failures: list[tuple[int, str]] = []

    def take(self, addresses: Sequence[str]) -> list[socket.socket]:
        """Return the supervisor's sockets; raise ProdserveError if the plan needs others."""
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
        """Return the variables for a program that replaces this one; keep the sockets open in it."""
        self.channel.set_inheritable(True)
        for _, number in self.inherited_sockets:
            os.set_inheritable(number, True)
        return {GENERATION: json.dumps({**self.given, "stderr": None})}

    def release(self) -> None:
        """In a fork that is not a worker: close the channel, which is the arbiter's."""
        self.channel.close()

    def ready(self, facts: ServingFacts) -> None:
        self._send({"kind": MessageKind.READY, "facts": facts})

    def failed(self, reason: str, problems: Sequence[Problem] = ()) -> None:
        """Report why this generation cannot start. A datagram holds 64 KiB, so long texts are shortened."""
        told = [[text[:400] for text in problem] for problem in problems[:3]]
        self._send({"kind": MessageKind.FAILED, "reason": reason[:4000], "problems": told})

    def changed(self, file: str) -> None:
        self._send({"kind": MessageKind.CHANGED, "file": file})

    def beat(self) -> None:
        if self.beats:
            self._send({"kind": MessageKind.BEAT})

    def stopping(self) -> None:
        """The supervisor knows already, and has notified systemd."""

    def stopped_accepting(self) -> None:
        """None of our workers accepts any more: new connections reach the newer generation."""
        self._send({"kind": MessageKind.STOPPED_ACCEPTING})

    def is_orphan(self) -> bool:
        """Return whether the supervisor is gone: no process can stop us, and a new server needs the port."""
        return os.getppid() != self.supervisor

    def is_retired(self) -> bool:
        """Return whether a newer generation serves: then the sockets stay open, and no client is rejected."""
        self._receive()
        return self.retired

    def failed_reloads(self) -> list[tuple[int, str]]:
        """Return number and reason of each generation that failed to start since the last call."""
        self._receive()
        failures, self.failures = self.failures, []
        return failures

    def _receive(self) -> None:
        """Read the supervisor's messages; a message without a required field is ignored."""
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
        """Leave paths and run directory, which belong to the supervisor."""

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone: is_orphan detects that
            self.channel.send(encode(message), socket.MSG_DONTWAIT)


SupervisorLink = Standalone | Supervised


def from_environment(environ: MutableMapping[str, str]) -> Supervised | None:
    """Return the data from the supervisor, if this process is a generation that a supervisor has started.

    Standard error was a file until now, so that a supervisor can report why settings could not be read. Its
    content goes to the real standard error.
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
