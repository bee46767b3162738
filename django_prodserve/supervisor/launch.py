"""The start: create the server's run directory, and put a supervisor in front of it.

Runs in the command's process, main thread, when the addresses are bound and nothing is loaded. The process
forks: the child continues as the first generation, the parent becomes the supervisor by exec, with the same
pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UsageError
from ..machine import proc
from ..plan.plan import Plan
from ..startup import fork_safety
from ..utils import command_line, outlet, standard_streams, working_directory
from . import bootstrap, generation, reexec, run_directory, sd_notify, supervisor
from .link import Standalone, Supervised
from .protocol import GENERATION, LaunchSpec, ServerRecord

HEARD = {getattr(signal, f"SIG{name}") for name in supervisor.SIGNALS}
RELOAD_SECONDS = 300.0  # seconds after which a reload gives up; heavy projects load in 5
MIGRATING = 660.0  # the time that servers wait for each other's migrations, plus a minute


def standalone(plan: Plan, sockets: Sequence[socket.socket]) -> Standalone:
    """Create the run directory of a server without a supervisor."""
    record = _record(plan, sockets, kept=False)
    paths = [_path_to_remove(*pair) for pair in zip(plan.addresses, sockets, strict=True)]
    return Standalone(_place(record), record, sd_notify.take(os.environ), paths)


def supervised(plan: Plan, sockets: Sequence[socket.socket]) -> Supervised:
    """Return in the first generation only; this process becomes its supervisor and never returns."""
    record = _record(plan, sockets, kept=True)
    place = _place(record)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifier = sd_notify.take(os.environ)
    start = working_directory.start()
    spec: LaunchSpec = {
        "argv": reexec.arguments(start.name),
        "directory": start.name,
        "found": bool(start.found),
        "hidden": [*sd_notify.VARIABLES, GENERATION],
        "env_file": os.path.join(record["project"], plan.env_file.value) if plan.env_file.value else "",
        "listeners": [
            (address, bound.fileno(), _path_to_remove(address, bound))
            for address, bound in zip(plan.addresses, sockets, strict=True)
        ],
        "activated": plan.bind.source == "LISTEN_FDS",
        "place": str(place or ""),
        "record": record,
        "notify": notifier.address,
        "watchdog": notifier.watchdog,
        "log_format": plan.log_format.value,
        "boot_seconds": RELOAD_SECONDS + plan.wait_for_db.value + (MIGRATING if plan.migrate.value else 0),
        "pidfile": _write_pidfile(plan),
        "first": None,
    }
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # they stay pending until a handler exists
    standard_streams.flush()
    if threads_are_running():
        _become_supervisor(spec, sockets)  # a fork would lose them: generation 1 starts from scratch
    parent, unsent = os.getpid(), outlet.unsent()
    pid = os.fork()
    if pid:
        theirs.close()
        spec["first"] = {"pid": pid, "channel": ours.detach()}
        _become_supervisor(spec, sockets)
    ours.close()
    os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which decides its effect
    _without_terminal()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    for target, data in unsent:  # the supervisor will not write it
        target.put(data)
    return Supervised(
        {
            "number": 1,
            "supervisor": parent,
            "place": spec["place"],
            "extra_workers": 0,
            "during_reload": False,
            "activated": spec["activated"],
            "beats": spec["watchdog"] / 4,
            "links": {},
            "listeners": [(address, number) for address, number, _ in spec["listeners"]],
            "channel": theirs.detach(),
            "stderr": None,
        }
    )


def predecessor_drain_seconds(plan: Plan) -> float:
    """Return for how many seconds a killed server may still hold our addresses; mostly 0.

    Its workers answer their accepted requests, and keep their copies of the listeners meanwhile.
    """
    directory = working_directory.here().name
    return max(
        (
            float(record.get("seconds_to_stop", 0)) + 1
            for record in run_directory.left_behind()
            if record.get("project") == directory
            and {*record.get("binds", ()), *record.get("addresses", ())} & set(plan.bind.value)
        ),
        default=0.0,
    )


def servers_here(settings_module: str) -> Iterator[ServerRecord]:
    """Yield the record of each server that now runs this project with these settings."""
    place = working_directory.here()
    for _, record in run_directory.running():
        is_here = {place.name, place.real} & {record.get("project"), record.get("real")}
        if is_here and record.get("settings") == settings_module:
            yield record


def threads_are_running() -> bool:
    """Return whether a fork would lose a running thread, of Python or of a C library."""
    return threading.active_count() > 1 or bool(fork_safety.foreign_threads())


def _become_supervisor(spec: LaunchSpec, sockets: Sequence[socket.socket]) -> None:
    """Write the plan into a file without a name, and exec an interpreter that reads it. Does not return."""
    environ = reexec.original_environment()
    file = generation.file_in_memory()
    file.write(json.dumps(spec).encode())
    file.seek(0)
    kept = {file.fileno(), *(bound.fileno() for bound in sockets)}
    if spec["first"]:
        kept.add(spec["first"]["channel"])
    _keep_only(kept)
    # The supervisor would write its lines into a file of the project.
    for number in standard_streams.FOREIGN:
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    command = [sys.executable, "-I", "-S", bootstrap.__file__, str(file.fileno()), *spec["argv"][1:]]
    try:
        os.execve(sys.executable, command, environ)
    except OSError:  # no memory, or the interpreter was replaced: supervise from this process, as it is
        os.environ.clear()
        os.environ.update(environ)
        code = supervisor.main(os.dup(file.fileno()))
        standard_streams.flush()
        os._exit(code)


def _keep_only(kept: set[int]) -> None:
    """Close every other descriptor before the exec: an open one would stay open forever."""
    names: list[str] = []
    with contextlib.suppress(OSError):  # a chroot without devices
        names = os.listdir("/dev/fd")
    for number in {*map(int, names), *kept}:
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            os.set_inheritable(number, number in kept or number < 3)


def _without_terminal() -> None:
    """Read from /dev/null: the kernel stops a background process that reads from the terminal."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)


def _record(plan: Plan, sockets: Sequence[socket.socket], *, kept: bool) -> ServerRecord:
    place = working_directory.here()
    program = os.path.join(working_directory.start().name, sys.argv[0])
    return {
        "pid": os.getpid(),
        "started": proc.start_time(os.getpid()),
        "project": place.name,
        "real": place.real,
        "home": "" if command_line.is_own_entry(program) else os.path.dirname(os.path.abspath(program)),
        "settings": plan.settings.value,
        "binds": list(plan.bind.value),
        "addresses": [_address(bound) for bound in sockets[: len(plan.bind.value)]],
        "management": _address(sockets[-1]) if plan.management_bind.value else "",
        "redirect": _address(sockets[len(plan.bind.value)]) if plan.redirect_http.value else "",
        "supervisor": kept,
        "why": plan.supervisor.why,
        "seconds_to_stop": plan.drain_delay.value + plan.graceful_timeout.value,
        "generation": 1,
        "ready": False,
        "attempts": 0,
        "done": 0,
        "outcome": None,
    }


def _place(record: ServerRecord) -> Path | None:
    with contextlib.suppress(OSError):
        place = run_directory.create(record["project"], sys.argv[0])
        run_directory.write(place, record)
        return place
    return None


def _address(bound: socket.socket) -> str:
    name = bound.getsockname()
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if bound.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
    return f"unix:{name}"


def _path_to_remove(address: str, bound: socket.socket) -> str:
    """Return the path of a unix socket that we have created; a passed socket belongs to its owner."""
    return str(os.path.abspath(bound.getsockname())) if address.startswith("unix:") else ""


def _write_pidfile(plan: Plan) -> str:
    """Write Gunicorn's pid file; not behind a supervisor, because the supervisor's pid stays."""
    stated = plan.gunicorn.get("pidfile")
    if not stated or not stated.value:
        return ""
    path = os.path.abspath(str(stated.value))
    try:
        Path(path).write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise UsageError(
            f"{stated.source}: {path} cannot be written: {error.strerror}.",
            "Name a file that this user may write, or remove the setting.",
            code="file",
        ) from error
    return path
