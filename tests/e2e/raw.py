"""Say anything over a socket, and read every response to its end.

Black box: all that is needed is an address. A conversation sends a case's bytes, in pieces, reads as many
answers as the case has, and then finds out whether the connection was kept: by one more request, whose
answer must be the next thing that comes, or by the end of the stream.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int] | str  # a string is a unix socket
Status = int | frozenset[int]  # NOTHING among them: the end of the stream is an answer too

NOTHING = 0
PATIENCE = 5.0  # seconds for one answer; whoever needs more hangs
PAUSE = 0.002  # seconds between two pieces: most of them arrive apart, and none depends on it
AT_ONCE = 24  # conversations
# A loopback address for each conversation: a port alone may come again.
OWN_ADDRESSES = (f"127.1.{number // 250 % 250}.{number % 250 + 1}" for number in itertools.count())
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """What is sent and what must come of it."""

    name: str
    sent: bytes
    answers: tuple[Status, ...]
    seen: tuple[Mapping[str, Any], ...] = ()  # for each request that Django must see, a part of its echo
    kept: bool | None = False  # None: either way is right
    methods: tuple[str, ...] = ()  # of the requests, where one is HEAD
    then: bytes = b""  # sent once "100 Continue" has come
    ends: bool = False  # the client says that nothing more follows
    beyond: str = ""  # why it is refused although Gunicorn's own parser takes it

    def method(self, number: int) -> str:
        return self.methods[number] if number < len(self.methods) else "GET"


@dataclass
class Answer:
    """One response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    client: str = ""
    answers: list[Answer] = field(default_factory=list)
    kept: bool | None = None
    problem: str = ""


class Broken(Exception):
    """Not a response, or not the whole of it."""


class Talk:
    """A client's side of one connection."""

    def __init__(self, address: Address) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        if family == socket.AF_INET and sys.platform == "linux":
            self.socket.bind((next(OWN_ADDRESSES), 0))
        self.socket.connect(address)
        if family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.cut = False  # the server takes nothing more

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    @property
    def name(self) -> str:
        """Return what the server calls this client."""
        name = self.socket.getsockname()
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    def send(self, data: bytes) -> None:
        """Send; a server that has refused already need not take it all."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.cut = True

    def end(self) -> None:
        """Say that nothing more follows."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut = True

    def more(self) -> bool:
        """Wait for bytes; False at the end of the stream."""
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self.more():
                raise Broken(f"{count - len(self.buffer)} bytes missing at the end")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def take_line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise Broken(f"ends after {self.buffer[:80]!r}")
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def answer(self, method: str = "GET") -> Answer | None:
        """Read one response, those before it with 1xx included; None where the stream ends instead."""
        interim: list[int] = []
        while True:
            if not self.buffer and not self.more():
                return None
            status, headers = self.head()
            if status == 101 or status >= 200:
                return Answer(status, headers, self.body(method, status, headers), interim)
            interim.append(status)

    def head(self) -> tuple[int, dict[str, str]]:
        line = self.take_line()
        found = re.fullmatch(rb"HTTP/1\.\d (\d{3}) [\t -~]*", line)
        if not found:
            raise Broken(f"no status line: {line[:80]!r}")
        headers: dict[str, str] = {}
        while field_line := self.take_line():
            name, _, value = field_line.decode("latin-1").partition(":")
            if name.lower() in ("content-length", "transfer-encoding") and name.lower() in headers:
                raise Broken(f"{name} twice")
            headers[name.lower()] = value.strip()
        return int(found[1]), headers

    def body(self, method: str, status: int, headers: Mapping[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            if status == 204 and headers.keys() & {"content-length", "transfer-encoding"}:
                raise Broken("204 with a framing header")
            return b""
        if "transfer-encoding" in headers:
            if "content-length" in headers:
                raise Broken("Content-Length beside Transfer-Encoding")
            return self.chunked()
        if "content-length" in headers:
            return self.take(int(headers["content-length"]))
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def chunked(self) -> bytes:
        found = b""
        while size := int(self.take_line(), 16):
            found += self.take(size)
            if self.take(2) != b"\r\n":
                raise Broken("no CRLF after a chunk")
        while self.take_line():
            pass
        return found


def ask(address: Address, target: str) -> Answer:
    """Send one request over a connection of its own."""
    with Talk(address) as talk:
        talk.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = talk.answer()
        assert answer is not None
        return answer


def converse(address: Address, case: Case, pieces: Sequence[bytes]) -> Outcome:
    """Send a case in pieces and see what comes of it."""
    outcome = Outcome(case)
    with Talk(address) as talk:
        outcome.client = talk.name
        try:
            send_pieces(talk, pieces)
            if case.then:
                await_continue(talk)
                talk.send(case.then)
            if case.ends:
                talk.end()
            read_answers(talk, case, outcome)
            outcome.kept = is_kept(talk) if outcome.kept is None else outcome.kept
        except TimeoutError:
            outcome.problem = f"hung after {[answer.status for answer in outcome.answers]}"
        except ConnectionResetError:
            outcome.problem = f"reset after {[answer.status for answer in outcome.answers]}"
        except (Broken, ValueError) as error:
            outcome.problem = f"broken answer: {error}"
    return outcome


def send_pieces(talk: Talk, pieces: Sequence[bytes]) -> None:
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(PAUSE)
        talk.send(piece)
        if talk.cut:
            break


def await_continue(talk: Talk) -> None:
    """Read "100 Continue"; anything else is an answer already."""
    while b"\r\n\r\n" not in talk.buffer:
        if not talk.more():
            return
    if talk.buffer.startswith(b"HTTP/1.1 100 "):
        talk.buffer = talk.buffer.partition(b"\r\n\r\n")[2]


def read_answers(talk: Talk, case: Case, outcome: Outcome) -> None:
    for number, wanted in enumerate(case.answers):
        answer = talk.answer(case.method(number))
        if answer is None:
            outcome.kept = False
            if not (isinstance(wanted, frozenset) and NOTHING in wanted):
                outcome.problem = f"ended after {[one.status for one in outcome.answers]}"
            return
        outcome.answers.append(answer)


def is_kept(talk: Talk) -> bool:
    """Ask once more: the answer must be the next thing that comes, and the end the one after."""
    talk.send(SENTINEL)
    try:
        answer = talk.answer()
    except ConnectionResetError:
        return False  # closed before; every answer is here
    if answer is None:
        return False
    if answer.status != 200 or answer.json().get("path") != "/sentinel":
        raise Broken(f"an answer too many: {answer.status} {answer.body[:80]!r}")
    if talk.answer() is not None:
        raise Broken("something after the last answer")
    return True


def judge(outcome: Outcome, seen: Sequence[str] | None) -> str:
    """Say what is wrong, if anything; ``seen`` are the targets that Django saw from this client."""
    case = outcome.case
    if outcome.problem:
        return outcome.problem
    statuses = [answer.status for answer in outcome.answers]
    for status, wanted in zip(statuses, case.answers, strict=False):
        if status not in (wanted if isinstance(wanted, frozenset) else {wanted}):
            return f"answered {statuses}, not {case.answers}"
    if case.kept is not None and outcome.kept != case.kept:
        return f"{statuses}, but the connection was {'kept' if outcome.kept else 'closed'}"
    served = [
        answer for answer in outcome.answers if answer.headers.get("content-type") == "application/json"
    ]
    for answer, part in zip(served, case.seen, strict=False):
        wrong = differs(answer.json(), part)
        if wrong:
            return wrong
    # What Django saw, as it says itself: nothing smuggled, nothing twice.
    if seen is not None:
        expected = sum("x-echo" in answer.headers for answer in outcome.answers) + bool(outcome.kept)
        if len(seen) != expected:
            return f"{expected} requests were answered by Django, it saw {list(seen)}"
        if any("smuggled" in target for target in seen):
            return f"smuggled: {list(seen)}"
    return ""


def differs(echo: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Say where an echo is not what it should be; ``never`` are words that must be nowhere in it."""
    for name, wanted in part.items():
        if name == "never":
            found = [word for word in wanted if word.lower() in json.dumps(echo).lower()]
            if found:
                return f"Django saw {found} in {echo}"
        elif name == "headers":
            for header, value in wanted.items():
                if echo["headers"].get(header) != value:
                    return f"{header} is {echo['headers'].get(header)!r}, not {value!r}"
        elif echo[name] != wanted:
            return f"{name} is {echo[name]!r}, not {wanted!r}"
    return ""


def boundaries(data: bytes, most: int = 24) -> list[bytes]:
    """Cut where parsers have states: around line ends and colons, and where a body begins."""
    cuts = {found.start() + part for found in re.finditer(rb"\r\n|[ :;]|\r|\n", data) for part in (0, 1)}
    chosen = sorted(cut for cut in cuts if 0 < cut < len(data))
    if len(chosen) > most:  # keep the first ones and the last ones
        chosen = chosen[: most // 2] + chosen[-most // 2 :]
    return [data[a:b] for a, b in zip([0, *chosen], [*chosen, len(data)], strict=True)]


def single_bytes(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def hold(address: Address, cases: Iterable[tuple[Case, Sequence[bytes]]]) -> str:
    """Have all these conversations, several at a time; return what is wrong, a line for each."""
    with ThreadPoolExecutor(AT_ONCE) as clients:
        outcomes = list(clients.map(lambda each: converse(address, *each), cases))
    by_client: dict[str, list[str]] | None = None
    if not isinstance(address, str):
        by_client = ask(address, "/seen/").json()
    wrong: list[str] = []
    for outcome in outcomes:
        seen = by_client.get(outcome.client, []) if by_client is not None else None
        if problem := judge(outcome, seen):
            wrong.append(f"{outcome.case.name}: {problem}")
    return "\n".join(wrong)
