"""Messages between the processes of one server: the supervisor, its generations, and the commands.

    LaunchSpec      command's process -> supervisor   JSON in a file without a name, read once (launch.py)
    GenerationSpec  supervisor -> generation          JSON in the variable GENERATION
    Message         supervisor <-> generation         JSON, one message in a datagram of the socket pair
    ServerRecord    supervisor -> commands            JSON in the file server.json (run_directory.py)

A supervisor may be older than a generation, which then comes from a newer release. Each side ignores unknown
kinds of messages, and reads keys that were added later with a default.

The table shows the states of a generation, as its supervisor sees them. At most one generation is in each
state. A reload starts when no generation is booting or retiring. The supervisor kills a generation that
misses the deadline of its state.

    state     begins with              received        deadline     its death means
    booting   fork or spawn            READY, FAILED   a reload's   a failed reload if another one serves; the
                                                                    end if none ever served; else a new start
    serving   its READY                BEAT, CHANGED,  none         a new start, after a pause
                                       FAILED; it gets
                                       RELOAD_FAILED
    retiring  the READY of the next:   STOPPED_        a stop's     the reload is over, as it is when all of
              it gets RETIRE, SIGTERM  ACCEPTING                    its workers have stopped accepting

The supervisor ignores a message that the state of its sender does not list.

Standard library alone, and only modules that the supervisor has loaded anyway. Python evaluates the types
immediately: it would compile each type in quotes separately.
"""

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Literal, TypedDict, cast

GENERATION = "_PRODSERVE_GENERATION"
"""The variable that marks a command as a generation; its value is a GenerationSpec."""


class Outcome(TypedDict):
    """How the last reload ended."""

    ok: bool
    reason: str
    """Empty if it succeeded."""
    problems: Sequence[Sequence[str]]
    """The same as data, if the generation reported it: the fields of each errors.Problem."""
    seconds: float


class ServingFacts(TypedDict):
    """Facts that a generation reports about itself when all its workers answer."""

    real: str
    """The directory that the code was loaded from, without links."""
    links: dict[str, str]
    """The links that led there, each with its target."""
    settings: str
    binds: list[str]
    workers: int
    seconds_to_stop: float
    """The maximum duration of a stop: the drain delay plus the graceful timeout."""


class _OnceServing(TypedDict, total=False):
    links: dict[str, str]
    workers: int


class ServerRecord(_OnceServing):
    """Facts about a running server for reload, stop and status."""

    pid: int
    started: int | None
    """When the process started, as its kernel counts: the kernel reuses pids."""
    project: str
    """The directory that the server was started in, as the operator wrote it."""
    real: str
    home: str
    """The directory of the program that was run; empty for ``python -m``."""
    settings: str
    binds: list[str]
    addresses: list[str]
    """The addresses that were bound, with the ports that the kernel chose."""
    management: str
    redirect: str
    """The address of plain HTTP whose requests are redirected; empty without one."""
    supervisor: bool
    why: str
    """Why there is a supervisor, or none."""
    seconds_to_stop: float
    generation: int
    ready: bool
    attempts: int
    """Reloads that were started."""
    done: int
    """Reloads that are over; a command waits until this reaches the number of its own reload."""
    outcome: Outcome | None


class FirstGeneration(TypedDict):
    """The generation that was the command's process before the fork."""

    pid: int
    channel: int


class LaunchSpec(TypedDict):
    """Data from the command's process for the supervisor that it becomes. Numbers are file descriptors."""

    argv: list[str]
    directory: str
    found: bool
    """Whether the directory was found through a link that the operator did not name."""
    hidden: list[str]
    """Environment variables that generations must not see."""
    env_file: str
    listeners: list[tuple[str, int, str]]
    """Address, socket, and the path to remove at the end, or nothing."""
    activated: bool
    """Whether systemd has passed the sockets."""
    place: str
    record: ServerRecord
    notify: str
    watchdog: float
    log_format: str
    boot_seconds: float
    pidfile: str
    first: FirstGeneration | None


class GenerationSpec(TypedDict):
    """Data from the supervisor for a generation. Numbers are file descriptors, except for pids."""

    number: int
    supervisor: int
    listeners: list[tuple[str, int]]
    channel: int
    stderr: int | None
    """The real standard error, if the generation starts with a file instead."""
    place: str
    extra_workers: int
    during_reload: bool
    links: dict[str, str]
    beats: float
    """Seconds between two heartbeats; 0 for none."""
    activated: bool


class MessageKind(str, Enum):
    """The kinds of messages between a generation and its supervisor."""

    READY = "ready"
    FAILED = "failed"
    CHANGED = "changed"
    BEAT = "beat"
    STOPPED_ACCEPTING = "stopped-accepting"
    RETIRE = "retire"
    RELOAD_FAILED = "reload-failed"


class Ready(TypedDict):
    """All workers of a generation answer."""

    kind: Literal[MessageKind.READY]
    facts: ServingFacts


class Failed(TypedDict):
    """A generation cannot start."""

    kind: Literal[MessageKind.FAILED]
    reason: str
    problems: Sequence[Sequence[str]]


class Changed(TypedDict):
    """A file of the project changed: --reload is on."""

    kind: Literal[MessageKind.CHANGED]
    file: str


class ReloadFailed(TypedDict):
    """The next generation could not start; the one that serves records that as an event."""

    kind: Literal[MessageKind.RELOAD_FAILED]
    number: int
    reason: str


class Plain(TypedDict):
    """A message without further fields."""

    kind: Literal[MessageKind.BEAT, MessageKind.STOPPED_ACCEPTING, MessageKind.RETIRE]


Message = Ready | Failed | Changed | ReloadFailed | Plain


def encode(message: Message) -> bytes:
    """Return the datagram of a message."""
    return json.dumps(message).encode()


def decode(datagram: bytes) -> Message | None:
    """Return the message of a datagram; None if it is not a JSON object or its kind is unknown."""
    try:
        found: Any = json.loads(datagram)
        return cast(Message, {**found, "kind": MessageKind(found["kind"])})
    except (KeyError, TypeError, ValueError):
        return None
