"""The private server: the operator's own command with ``serve``, on a loopback port that nobody else knows.

Lives in the command. The server ends with the command, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ..config.options import option_fields
from ..config.private_server import SECONDS_TO_STOP, PrivateServer
from ..errors import ProdserveError
from ..machine.proc_memory import read_memory
from ..project import query_count
from ..scoreboard.board import Scoreboard, board_path
from ..scoreboard.slot import SERVING, Counters, Slot
from ..supervisor import reexec, run_directory
from ..utils import command_line, working_directory
from .result import Skipped

LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 0.05
LINES = 20
"""Lines of the server's output that are shown if it does not start."""
HIDDEN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables that concern the service of the operator."""
KEPT = ("DJANGO_SETTINGS_MODULE", "DJANGO_CONFIGURATION")
"""Variables that this command has set since it started."""
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class TunedServer:
    """A running server, and what its workers report."""

    process: subprocess.Popen[bytes]
    board: Scoreboard
    port: int
    queries: str

    @property
    def workers(self) -> list[Slot]:
        """Return the slots of the workers that serve."""
        return [slot for slot in self.board.active_slots() if slot.state == SERVING]

    @property
    def pids(self) -> list[int]:
        """Return the processes whose CPU time counts: the workers. The arbiter works once a second."""
        return [slot.pid for slot in self.workers]

    def counters(self) -> Counters:
        """Return the counters of all requests."""
        return self.board.totals()

    def explained(self, skipped: Skipped) -> Skipped:
        """Add the exception of a request that has just failed."""
        path = skipped.path.partition("?")[0]
        raised = [error.exception for error in self.board.read_errors() if error.path == path]
        return replace(skipped, why=f"{skipped.why}, {raised[-1]}") if any(raised[-1:]) else skipped

    def read_queries(self) -> query_count.Queries:
        """Return the database queries so far."""
        return query_count.read(self.queries)

    def memory(self) -> int:
        """Return the bytes that the arbiter and all workers use."""
        total = 0
        for pid in (self.process.pid, *self.pids):
            with suppress(OSError):
                total += read_memory(Path(f"/proc/{pid}")).size
        return total


@contextmanager
def serving(
    flags: Mapping[str, Any], private: PrivateServer, deadline: float, wait: Callable[[str], object]
) -> Iterator[TunedServer]:
    """Serve the project until the block ends; raise ProdserveError if it does not start in time."""
    place = Path(tempfile.mkdtemp(prefix="prodserve-tune-"))
    with suppress(PermissionError):
        place.chmod(0o711)  # a worker may run as another user
    queries = place / "queries"
    queries.mkdir()
    queries.chmod(0o733)
    (place / "run").mkdir(mode=0o700)
    process = None
    try:
        with socket.create_server((LOOPBACK, 0), backlog=2048) as listener:
            port = listener.getsockname()[1]
            number = listener.fileno()
            ours = replace(private, bind=f"fd://{number}", queries=str(queries))
            with open(place / "out", "wb") as out, open(place / "err", "wb") as err:
                process = subprocess.Popen(
                    command(flags),
                    cwd=working_directory.start().real,
                    env=_environment(ours, place / "run"),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[number],
                    start_new_session=True,
                    preexec_fn=_end_with_parent(),
                )
        board = _ready(process, place, deadline, wait)
        yield TunedServer(process, board, port, str(queries))
    finally:
        if process is not None:
            stop(process)
        shutil.rmtree(place, ignore_errors=True)


def command(flags: Mapping[str, Any]) -> list[str]:
    """Return the command line that serves with the same options."""
    words = [sys.executable, "-m", command_line.MODULE]
    if command_line.is_ours(sys.orig_argv):
        given = reexec.arguments(working_directory.start().name)
        for position, word in enumerate(given):
            if position and command_line.is_ours([word]):
                words = given[: position + 1]
                break
    for name in ("settings", "pythonpath"):
        if flags.get(name):
            words += [f"--{name}", str(flags[name])]
    if flags.get("skip_checks"):
        words.append("--skip-checks")
    for row in option_fields():
        value = flags.get(row.name)
        if value is None or row.name == "bind":
            continue
        if row.kind.is_switch:
            words.append(row.flag if value else row.flag.replace("--", "--no-", 1))
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            words += [part for each in values for part in (row.flag, str(each))]
    return words


def _environment(private: PrivateServer, run: Path) -> dict[str, str]:
    """Return the environment: ``reload`` and ``status`` of the project must not find this server."""
    environ = {**reexec.original_environment(), "XDG_RUNTIME_DIR": str(run)}
    environ |= {name: os.environ[name] for name in KEPT if name in os.environ}
    for name in HIDDEN:
        environ.pop(name, None)
    return environ | private.as_variable()


def _end_with_parent() -> Callable[[], None]:
    """Return what makes the kernel end the server when this command ends, even by SIGKILL."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


def _ready(
    process: subprocess.Popen[bytes], place: Path, deadline: float, wait: Callable[[str], object]
) -> Scoreboard:
    """Wait until all workers serve; return the scoreboard."""
    while True:
        if process.poll() is not None:
            raise ProdserveError(
                f"The project does not start; exit code {process.returncode}.",
                "prodserve check shows what is missing; prodserve --local tries a project with DEBUG.",
                where=_output(place),
                code="project",
                topic="tune",
            )
        if (board := _find_board(place / "run")) is not None:
            slots = board.active_slots()
            if slots and all(slot.state == SERVING for slot in slots):
                return board
        if time.monotonic() > deadline:
            raise ProdserveError(
                "The project did not start in the time that --seconds allows.",
                "Give it more, such as --seconds 120",
                where=_output(place),
                topic="tune",
            )
        wait("start")
        time.sleep(LOOK_SECONDS)


def _find_board(run: Path) -> Scoreboard | None:
    for record in run.glob(f"{run_directory.PREFIX}*/*"):
        with suppress(OSError, ValueError):
            return Scoreboard.open(board_path(record, 1))
    return None


def _output(place: Path) -> str:
    """Return what the server has printed last: its errors, or else its lines."""
    for name in ("err", "out"):
        lines = (place / name).read_text(errors="replace").strip().splitlines()
        if lines:
            return "\n  ".join(lines[-LINES:])
    return ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything that it has started."""
    family: list[psutil.Process] = []
    with suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_STOP + 1)
    for child in family:
        with suppress(psutil.Error):
            child.kill()
    if process.poll() is None:
        process.kill()
        process.wait()
