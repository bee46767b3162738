"""What the processes of one server write to each other: the supervisor, its generations, and the commands.

    LaunchSpec      command's process -> supervisor   JSON in a file without a name, read once (launch.py)
    GenerationSpec  supervisor -> generation          JSON in the variable GENERATION
    Message         supervisor <-> generation         JSON, one message in a datagram of the socket pair
    ServerRecord    supervisor -> commands            JSON in the file server.json (run_directory.py)

A supervisor lives longer than the release that started it, so a newer generation may write to it. Each side
ignores kinds of messages that it does not know, and reads keys that were added later with a default.

States of a generation, as its supervisor sees them. At most one generation is in each state; a reload starts
when none is booting or retiring. A generation that misses the deadline of its state is killed.

    state     begins with              heard           deadline     its death means
    booting   fork or spawn            READY, FAILED   a reload's   a failed reload if another one serves; the
                                                                    end if none ever served; else a new start
    serving   its READY                BEAT, CHANGED,  none         a new start, after a pause
                                       FAILED; it gets
                                       RELOAD_FAILED
    retiring  the READY of the next:   STOPPED_        a stop's     the reload is over, as it is when all of
              it gets RETIRE, SIGTERM  ACCEPTING                    its workers have stopped accepting

The supervisor ignores a message that the state of its sender does not name.

Standard library alone, and of that only what the supervisor has loaded anyway. Types are evaluated at once:
types in quotes would each be compiled.
"""

import json
from enum import Enum
from typing import Any, Literal, TypedDict, cast

GENERATION = "_PRODSERVE_GENERATION"
"""The variable that tells a command that it is a generation; its value is a GenerationSpec."""


class Outcome(TypedDict):
    """How the last reload ended."""

    ok: bool
    reason: str
    """Empty if it succeeded."""
    seconds: float


class ServingFacts(TypedDict):
    """What a generation reports of itself when all its workers answer."""

    real: str
    """The directory that the code was loaded from, without links."""
    links: dict[str, str]
    """The links that led there, each with its target."""
    settings: str
    binds: list[str]
    workers: int
    seconds_to_stop: float
    """The longest that a stop takes: the drain delay and the graceful timeout."""


class _OnceServing(TypedDict, total=False):
    links: dict[str, str]
    workers: int


class ServerRecord(_OnceServing):
    """What reload, stop and status know of a running server."""

    pid: int
    started: int | None
    """When the process started, as its kernel counts: a pid alone is given to others in time."""
    project: str
    """The directory that the server was started in, as it was typed."""
    real: str
    home: str
    """The directory of the program that was typed; empty for ``python -m``."""
    settings: str
    binds: list[str]
    addresses: list[str]
    """The addresses that were bound, with the ports that the kernel chose."""
    management: str
    supervisor: bool
    why: str
    """Why there is a supervisor, or none."""
    seconds_to_stop: float
    generation: int
    ready: bool
    attempts: int
    """Reloads that were started."""
    done: int
    """Reloads that are over; a command waits until it reaches the number of its own."""
    outcome: Outcome | None


class FirstGeneration(TypedDict):
    """The generation that was the command's process before the fork."""

    pid: int
    channel: int


class LaunchSpec(TypedDict):
    """What the command's process leaves to the supervisor that it becomes. Numbers are file descriptors."""

    argv: list[str]
    directory: str
    found: bool
    """Whether the directory was found behind a link that nobody typed."""
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
    """What the supervisor gives to a generation. Numbers are file descriptors, but for those of processes."""

    number: int
    supervisor: int
    listeners: list[tuple[str, int]]
    channel: int
    stderr: int | None
    """The real standard error where the generation starts with a file instead."""
    place: str
    extra_workers: int
    beside: bool
    links: dict[str, str]
    beats: float
    """Seconds between two signs of life; 0 for none."""
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
    """A message without anything more to say."""

    kind: Literal[MessageKind.BEAT, MessageKind.STOPPED_ACCEPTING, MessageKind.RETIRE]


Message = Ready | Failed | Changed | ReloadFailed | Plain


def encode(message: Message) -> bytes:
    """Return the datagram of a message."""
    return json.dumps(message).encode()


def decode(datagram: bytes) -> Message | None:
    """Return the message of a datagram; None if it is no JSON object or its kind is unknown."""
    try:
        found: Any = json.loads(datagram)
        return cast(Message, {**found, "kind": MessageKind(found["kind"])})
    except (KeyError, TypeError, ValueError):
        return None
