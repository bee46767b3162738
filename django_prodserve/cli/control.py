"""Find the running server, and reload or stop it. Runs in the process of that command, not in the server.

Needs no settings and no network: everything is in the server's run directory (supervisor/run_directory.py).
So it works while the settings are broken, and only for the same user and root.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Interrupted, Problem, ProdserveError
from ..machine import proc
from ..supervisor import run_directory
from ..supervisor.protocol import Outcome, ServerRecord
from ..utils import command_line, working_directory


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is running now."""

    pid: int
    """The process that a service manager watches: the supervisor if there is one, else the arbiter."""
    started: int | None
    directory: Path
    """The server's run directory, with the scoreboard."""
    record: ServerRecord
    """The record that the server wrote into server.json."""

    @property
    def project(self) -> str:
        """The directory that the server was started in, as the operator wrote it."""
        return self.record.get("project", "")

    @property
    def binds(self) -> tuple[str, ...]:
        return tuple(self.record.get("binds", ()))

    @property
    def generation(self) -> int:
        return self.record.get("generation", 1)

    def refresh(self) -> RunningServer | None:
        """Return the same server with its current record; None once it has ended."""
        record = run_directory.read(self.directory)
        if record is None or record.get("pid") != self.pid or not self.is_alive:
            return None
        return _running(self.directory, record)

    @property
    def is_alive(self) -> bool:
        return proc.start_time(self.pid) == self.started

    def __str__(self) -> str:
        return f"pid {self.pid} on {', '.join(self.binds)} in {self.project}"


def find(directory: str | os.PathLike[str], binds: Sequence[str] | None = None) -> RunningServer:
    """Return the server of the project in ``directory``; raise ProdserveError unless there is exactly one.

    ``binds`` are addresses as given to --bind; the server must have all of them.
    """
    everyone = [_running(place, record) for place, record in run_directory.running()]
    here = [server for server in everyone if _matches_project(server, directory)]
    found = [server for server in here if _has(server, binds or ())]
    if len(found) == 1:
        return found[0]
    if found:
        lines = "\n  ".join(map(str, found))
        raise ProdserveError(
            f"{len(found)} servers of this project are running:\n  {lines}",
            f"Name one of them: --bind {found[0].binds[0] if found[0].binds else 'ADDRESS'}",
            code="no-server",
        )
    if here:
        wanted = ", ".join(binds or ())
        lines = "\n  ".join(map(str, here))
        raise ProdserveError(
            f"No server of this project has the address {wanted}. Running:\n  {lines}",
            f"--bind {here[0].binds[0] if here[0].binds else 'ADDRESS'}",
            code="no-server",
        )
    others, fix = _elsewhere(everyone)
    message = f"No server is running for the project in {directory}."
    raise ProdserveError(f"{message}{others}", fix, code="no-server")


def _running(place: Path, record: ServerRecord) -> RunningServer:
    return RunningServer(pid=record["pid"], started=record["started"], directory=place, record=record)


def _matches_project(server: RunningServer, directory: str | os.PathLike[str]) -> bool:
    """Return whether a server's project is in a directory, by the name used then or the real path now."""
    wanted = {os.fspath(directory), os.path.realpath(directory)}
    known = {server.project, server.record.get("home", ""), server.record.get("real", "")}
    return bool(wanted & (known | {os.path.realpath(place) for place in known if place}))


def _has(server: RunningServer, binds: Sequence[str]) -> bool:
    known = {_canonical(bind) for bind in (*server.binds, *server.record.get("addresses", ()))}
    return all(_canonical(bind) in known or _any_port(bind, known) for bind in binds)


def _canonical(address: str) -> str:
    """Return an address in one spelling: ``localhost`` as 127.0.0.1, the path of a socket absolute."""
    if address.startswith("unix:"):
        return "unix:" + os.path.abspath(address.removeprefix("unix:"))
    return address.replace("localhost:", "127.0.0.1:")


def _any_port(address: str, known: set[str]) -> bool:
    """Return whether a port without a host matches an address of the server, on any host."""
    port = address.lstrip(":")
    return port.isdecimal() and any(listening.endswith(f":{port}") for listening in known)


def _elsewhere(everyone: Sequence[RunningServer]) -> tuple[str, str]:
    """Return a list of the other servers, if any, and the action to take when none is here."""
    if everyone:
        lines = "\n  ".join(map(str, everyone))
        return f" Others on this machine:\n  {lines}", "Run this command in the directory of its project."
    others = sorted({f"{user} (pid {pid})" for user, pid in _of_others()})
    if others:
        return f" One belongs to {', '.join(others)}.", "Run this command as that user."
    return "", "Start it: prodserve"


def _of_others() -> Iterator[tuple[str, int]]:
    """Yield user and pid of servers that belong to other users; their run directories are closed to us."""
    import psutil

    for process in psutil.process_iter(["pid", "uids", "username", "cmdline"]):
        words = process.info["cmdline"] or ()
        uids = process.info["uids"]
        if uids and uids.effective != os.geteuid() and command_line.is_ours(words):
            yield process.info["username"] or str(uids.effective), process.info["pid"]


POLL_SECONDS = 0.05  # seconds between two polls
Say = Callable[[str], object]


def run(action: str, binds: Sequence[str] | None, say: Say) -> None:
    """Reload or stop the server of the project that this command belongs to; wait for the outcome."""
    server = find_here(binds)
    try:
        {"reload": reload, "stop": stop}[action](server, say)
    except KeyboardInterrupt:
        raise Interrupted(
            f"The server (pid {server.pid}) was asked to {action}; this command no longer waits for it.",
            "prodserve status shows what became of it.",
        ) from None


def find_here(binds: Sequence[str] | None) -> RunningServer:
    """Return the server of the project in this directory, or in the directory of the program that runs."""
    here = working_directory.here()
    places = [here.real if here.found else here.name]  # reported as the operator wrote it
    program = os.path.join(working_directory.start().real, sys.argv[0])
    if not command_line.is_own_entry(program):
        places.append(os.path.dirname(os.path.abspath(program)))
    for place in places[1:]:
        with contextlib.suppress(ProdserveError):
            return find(place, binds)
    return find(places[0], binds)


def reload(server: RunningServer, say: Say) -> None:
    """Have the supervisor start a new generation; raise ProdserveError with the reason if that fails."""
    if not server.record.get("supervisor"):
        raise ProdserveError(
            f"The server (pid {server.pid}) has no supervisor, so it cannot reload: "
            f"{server.record.get('why')}.",
            "Restart it to serve new code.",
            code="reload-failed",
            topic="supervisor",
        )
    attempt = server.record.get("attempts", 0) + 1
    _send(server, signal.SIGHUP)
    while True:
        now = server.refresh()
        if now is None:
            raise ProdserveError(
                f"The server (pid {server.pid}) ended before it had reloaded.",
                "Its log has the reason.",
                code="reload-failed",
            )
        if now.record["done"] >= attempt:
            break
        time.sleep(POLL_SECONDS)
    outcome = now.record["outcome"]
    assert outcome is not None  # the supervisor writes it together with the count
    if not outcome["ok"]:
        raise _reload_failed(outcome, now.generation)
    where = ", ".join(now.binds)
    say(f"reloaded in {outcome['seconds']:.1f} s: generation {now.generation} serves {where}")


def _reload_failed(outcome: Outcome, generation: int) -> ProdserveError:
    """Return the errors of the generation that could not start; a process that died left only a text."""
    told = [Problem(*fields) for fields in outcome.get("problems", ())]
    first, *others = told or [_of_text(outcome["reason"])]
    message = f"Reload failed; generation {generation} keeps serving. {first.message}"
    return ProdserveError.of([first._replace(message=message, code="reload-failed", topic=""), *others])


def _of_text(reason: str) -> Problem:
    first, _, rest = reason.partition("\n")
    return Problem(first, where="\n".join(line.strip() for line in rest.splitlines()))


def stop(server: RunningServer, say: Say) -> None:
    """Send SIGTERM and wait until the server has ended; raise ProdserveError if it does not in time."""
    seconds = server.record.get("seconds_to_stop", 25.0) + 5
    deadline = time.monotonic() + seconds
    _send(server, signal.SIGTERM)
    while server.is_alive:
        if time.monotonic() > deadline:
            raise ProdserveError(
                f"The server (pid {server.pid}) still runs after {seconds:g} s.",
                "prodserve dump shows where it waits.",
            )
        time.sleep(POLL_SECONDS)
    say(f"stopped: {server}")


def _send(server: RunningServer, number: int) -> None:
    try:
        os.kill(server.pid, number)
    except ProcessLookupError:
        raise ProdserveError(f"The server (pid {server.pid}) has just ended.", code="no-server") from None
    except PermissionError:
        raise ProdserveError(
            f"The server (pid {server.pid}) belongs to another user.",
            "Run this command as that user.",
            code="no-permission",
        ) from None
