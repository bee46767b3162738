"""A generation as its supervisor sees it: a process group, a channel, and its early standard error.

Used in the supervisor. Standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

from ..machine.proc import set_oom_score_adj
from ..utils import log_lines as lines
from .protocol import GENERATION, GenerationSpec, LaunchSpec, Message, MessageKind, decode, encode

ON_TRIAL = 500
"""OOM score added to a generation that still boots, relative to one that serves (machine/proc.py)."""

STDERR = 99  # the generation's real standard error; its own is a file until it reads its GenerationSpec


class GenerationProcess:
    """One generation: number, process, deadlines in monotonic time (0 for none)."""

    def __init__(self, number: int, pid: int, channel: socket.socket, early: int | None) -> None:
        self.number = number
        self.pid = pid
        self.channel = channel
        self.boot_stderr = early
        """The file with its standard error before our code runs: a broken settings module's traceback."""
        self.deadline = 0.0
        self.served_since = 0.0
        self.seconds_to_stop = 25.0
        self.extra_workers = 0
        self.reason = ""
        self.problems: Sequence[Sequence[str]] = ()
        """The reason as data."""
        self.killed = False
        """Whether it has missed the deadline of its stop."""

    @classmethod
    def forked(cls, pid: int, channel: int) -> GenerationProcess:
        """The first generation, which was the command's process before the fork."""
        ours = socket.socket(fileno=channel)
        ours.set_inheritable(False)
        return cls(1, pid, ours, None)

    @classmethod
    def spawned(
        cls, number: int, extra_workers: int, spec: LaunchSpec, environ: dict[str, str]
    ) -> GenerationProcess:
        """Start the same command again, in the same directory; raise OSError if that fails."""
        _enter(spec["directory"], spec["record"]["real"] if spec["found"] else "")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, file_in_memory() as file:
            early = os.dup(file.fileno())
            given: GenerationSpec = {
                "number": number,
                "supervisor": os.getpid(),
                "listeners": [(address, descriptor) for address, descriptor, _ in spec["listeners"]],
                "channel": theirs.fileno(),
                "stderr": STDERR,
                "place": spec["place"],
                "extra_workers": extra_workers,
                "during_reload": spec["record"]["done"] < spec["record"]["attempts"],
                "links": spec["record"].get("links", {}),
                "beats": spec["watchdog"] / 4,
                "activated": spec["activated"],
            }
            theirs.set_inheritable(True)
            try:
                pid = os.posix_spawnp(
                    spec["argv"][0],
                    spec["argv"],
                    {**environ, GENERATION: json.dumps(given)},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),  # no terminal to wait for
                        (os.POSIX_SPAWN_DUP2, 2, STDERR),
                        (os.POSIX_SPAWN_DUP2, early, 2),
                    ],
                    setpgroup=0,
                    setsigmask=[],
                    setsigdef=[
                        getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "PIPE", "QUIT", "TERM")
                    ],
                )
            except OSError as error:
                ours.close()
                os.close(early)
                raise OSError(
                    error.errno, f"{spec['argv'][0]} cannot be started: {error.strerror}"
                ) from error
        if given["during_reload"]:
            set_oom_score_adj(pid, ON_TRIAL)
        child = cls(number, pid, ours, early)
        child.extra_workers = extra_workers
        return child

    def messages(self) -> list[Message]:
        """Return the received messages; the arbiter alone writes, one message in a datagram."""
        found: list[Message] = []
        while True:
            try:
                text = self.channel.recv(65536, socket.MSG_DONTWAIT)
            except OSError:
                return found
            if not text:
                return found
            message = decode(text)
            if message is not None:
                found.append(message)

    def retire(self) -> None:
        """Have it answer its accepted requests, and stop: the sockets stay open, so no delay is needed."""
        self._send({"kind": MessageKind.RETIRE})
        self.deadline = time.monotonic() + self.seconds_to_stop + 1
        self.kill(signal.SIGTERM)

    def report_failed_reload(self, number: int, reason: str) -> None:
        """Have it record that the generation with this number could not replace it."""
        self._send({"kind": MessageKind.RELOAD_FAILED, "number": number, "reason": reason[:8000]})

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(encode(message), socket.MSG_DONTWAIT)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill_all(self) -> None:
        """Kill it and all processes that it started, its own process group."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        self.kill(signal.SIGKILL)

    def why_it_ended(self, otherwise: str, log_format: str) -> str:
        """Return its own reason, else its early standard error; write that for the operator."""
        early = b"" if self.boot_stderr is None else os.pread(self.boot_stderr, 100_000, 0)
        text = early.decode(errors="replace")
        lines.write_if_read(2, lines.others_lines(log_format, 2, "error", text).encode(errors="replace"))
        return self.reason or last_error(text) or otherwise

    def mark_ready(self) -> None:
        """It reports for itself now: the file of its early output can be closed."""
        if self.boot_stderr is not None:
            os.close(self.boot_stderr)
            self.boot_stderr = None

    def end(self) -> None:
        """Its process has ended; its workers end by themselves."""
        self.channel.close()
        self.mark_ready()


def _enter(directory: str, otherwise: str) -> None:
    """Resolve the path again: a link may lead to another release by now.

    The server does without a link that the operator did not name, once it is removed.
    """
    try:
        os.chdir(directory)
    except OSError as error:
        if otherwise and not os.path.lexists(directory):
            with contextlib.suppress(OSError):
                return os.chdir(otherwise)
        real = os.path.realpath(directory)
        where = directory if real == directory else f"{directory}, which leads to {real},"
        raise OSError(f"the directory {where} cannot be entered: {error.strerror}") from error


class Orphans:
    """Process groups whose arbiter was killed. Their workers answer accepted requests and end by themselves,
    unless a thread holds the GIL: then no thread in them receives the stop."""

    def __init__(self) -> None:
        self.deadlines: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self.deadlines)

    def adopt(self, child: GenerationProcess) -> None:
        """Give the workers that a generation leaves behind the time of a normal stop."""
        self.deadlines[child.pid] = time.monotonic() + child.seconds_to_stop + 2

    def tick(self, now: float) -> None:
        """Drop groups without a process, whose number may be reused soon; kill those past their deadline."""
        for group, deadline in [*self.deadlines.items()]:
            try:
                os.killpg(group, signal.SIGKILL if now >= deadline else 0)
            except OSError:
                del self.deadlines[group]

    def kill(self) -> None:
        """Kill all that are left: no process would do it later."""
        self.tick(float("inf"))


def exit_code(status: int) -> int:
    """Return the exit code of a process that ended; for a signal, the number that shells use."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def ending(status: int) -> str:
    """Return how a process ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def file_in_memory() -> Any:
    """Return a file without a name; on a disk only if the system has no memory files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("prodserve-early"), "w+b")
    import tempfile  # late: it imports modules that a small process does not need

    return tempfile.TemporaryFile()


def _message(line: str) -> str:
    """Return the message of a line: its JSON field, or the text after our name."""
    if line.startswith("{"):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            known = json.loads(line)
            level = "error: " if known["level"] == "error" else ""
            return f"{level}{known['message']}"
    return line.removeprefix("prodserve: ")


def last_error(text: str) -> str:
    """Return the reason in the output of a process that died: the error, and the line that raised it.

    A traceback has its reason at the end; an error of the command line at its beginning.
    """
    lines = [_message(line) for line in text.splitlines() if line.strip()]
    if "Traceback (most recent call last):" not in text:
        told = next((line for line in lines if "Error" in line or "error" in line), lines[0] if lines else "")
        return told.removeprefix("error: ")
    places = re.findall(r'File "(.+?)", line (\d+)', text)
    where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    reason = next((line for line in reversed(lines) if not line.startswith(" ")), "")
    return reason + where
