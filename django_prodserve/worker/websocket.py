"""One websocket: ASGI messages on one side, frames on the other, bounded both ways.

Lives in a worker, in the asyncio loop's thread. Nothing here knows the worker: websockets.py starts the
application, answers a handshake that it refuses, and writes the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any, Protocol

from ..http import limits
from ..http.exceptions import ClientGoneError
from ..http.websocket_frames import (
    ABNORMAL,
    BINARY,
    CLOSE,
    MAX_MESSAGE_BYTES,
    NORMAL,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    close_frame,
    frame_head,
    is_sendable,
)
from .websocket_link import Endpoint, WebSocketLink

Message = MutableMapping[str, Any]

QUEUED_MESSAGES, QUEUED_BYTES = 32, 64 * 1024
"""Messages and bytes that wait for the application before the worker stops reading: 32 as in Gunicorn."""
READ_BYTES = 16 * 1024
"""Bytes read at a time between messages: 2,700 pings, which take 5 ms. So a flood delays nobody."""
PING_SECONDS = 20.0
"""Interval of pings, as in uvicorn. Proxies close what is silent for long: Heroku after 55 s, nginx 60 s."""
CLOSE_SECONDS = 5.0
"""Seconds in which the client must answer a close frame."""
SENDS_DROPPED_SECONDS = 1.0
"""Seconds after the end in which a send does nothing: an application that receives learns of the end so."""
MESSAGES_AT_A_TIME = 32
"""Messages that an application may exchange before other tasks run."""

CONNECTING, OPEN, CLOSING, CLOSED = range(4)
"""Before the answer to the handshake; messages pass; our close frame is sent; nothing passes any more."""


class Host(Protocol):
    """What a websocket needs from the worker."""

    def accepted(self, websocket: WebSocket, subprotocol: str | None, headers: list[Any]) -> bytes:
        """Return the response that opens it."""

    def denied(self, websocket: WebSocket, status: int, headers: list[Any]) -> bytes:
        """Return the head of the response of an application that refuses it."""

    def received(self) -> None:
        """Count a message of a client."""

    def sent(self) -> None:
        """Count a message of an application."""

    def closed(self, websocket: WebSocket, *, politely: bool) -> None:
        """Take the connection back, and close it."""


class WebSocket(WebSocketLink):
    """A websocket, as ASGI's ``receive`` and ``send``, and as the reader of its client's frames."""

    __slots__ = (
        *("_connects", "_denial", "_frames", "_held", "_host", "_messages"),
        *("_pings_at", "_turns", "_waits", "closes_at", "code", "ended_at"),
        *("has_heard", "is_told", "leaves", "reason", "state"),
    )

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        connection: Endpoint,
        *,
        limit: int = MAX_MESSAGE_BYTES,
    ) -> None:
        super().__init__(loop, connection)
        self._host, self.state = host, CONNECTING
        self._frames = FrameReader(limit)
        self._messages: deque[Message] = deque()
        self._held = 0  # bytes of these messages
        self._waits: list[asyncio.Future[None]] = []
        self._connects, self._turns = True, 0
        self._denial: bytes | None = None  # the head of the application's own refusal
        self._pings_at = self.closes_at = self.ended_at = 0.0
        self.has_heard = True
        """Whether anything has come since the last ping."""
        self.code, self.reason = 0, ""
        """Why it has ended, for the application and the log; 0 while it is open."""
        self.is_told = False
        """Whether the application has received the end."""
        self.leaves: tuple[int, str] | None = None
        """The close code and the reason of a worker that stops, for a websocket that is not open yet."""

    # ASGI.

    async def receive(self) -> Message:
        """Return the next message of the client; at the end, always that it has ended."""
        if self._connects:
            self._connects = False
            return {"type": "websocket.connect"}
        await self._take_turns()
        while not self._messages:
            if self.code:
                self.is_told = True
                return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}
            future = self._loop.create_future()
            self._waits.append(future)
            await future
        message = self._messages.popleft()
        self._held -= _size(message)
        self._read_more()
        return message

    async def send(self, message: Message) -> None:
        """Take a message of the application."""
        kind = message["type"]
        if self.state == OPEN and kind == "websocket.send":
            await self._send(message)
        elif self.state == CONNECTING:
            self._answer(kind, message)
            if self.is_ahead:
                await self.room()
        elif self.code:
            await self._send_late(kind)
        elif kind == "websocket.close":
            self.close(message.get("code") or NORMAL, message.get("reason") or "")
        else:
            raise RuntimeError(f"the application sent {kind} to an open websocket")

    async def _send(self, message: Message) -> None:
        text = message.get("text")
        data = message.get("bytes") if text is None else text.encode()
        if data is None:
            raise RuntimeError("the application sent a message without text and bytes")
        if type(data) is not bytes:  # the application may change it before it is sent
            data = bytes(data)
        opcode = BINARY if text is None else TEXT
        self._host.sent()
        self.write(frame_head(opcode, len(data)), data)
        if self.is_ahead:
            await self.room()
        await self._take_turns()

    async def _send_late(self, kind: str) -> None:
        """Drop what is sent after the end: at first silently, since the application may not know of it."""
        if kind == "websocket.close":
            return
        if self.is_told or self._loop.time() - self.ended_at > SENDS_DROPPED_SECONDS:
            raise ClientGoneError("the websocket has ended")
        await asyncio.sleep(0.01)

    def _answer(self, kind: str, message: Message) -> None:
        """Answer the handshake."""
        if kind == "websocket.http.response.body" and self._denial is not None:
            self.write(self._denial, message.get("body", b""))
            self._denial = b""
            if not message.get("more_body", False):
                self.refused()
        elif self._denial is not None:
            raise RuntimeError(f"the application sent {kind} in the middle of its response")
        elif kind == "websocket.accept":
            self._open(message)
        elif kind == "websocket.close":
            self.write(self._host.denied(self, 403, []))
            self.refused()
        elif kind == "websocket.http.response.start":
            self._denial = self._host.denied(self, message["status"], [*message.get("headers", ())])
        else:
            raise RuntimeError(f"the application sent {kind} before it has accepted the websocket")

    def _open(self, message: Message) -> None:
        headers = [*message.get("headers", ())]
        self.write(self._host.accepted(self, message.get("subprotocol"), headers))
        if self.state == CONNECTING:
            self.bytes_sent, self.state = 0, OPEN
            self._pings_at = self._loop.time() + PING_SECONDS
            if self.leaves is not None:
                self.close(*self.leaves)
            self._read_frames()
            self.read_on()

    @property
    def is_answered(self) -> bool:
        """Return whether the handshake has an answer, or a part of one."""
        return self.state != CONNECTING or self._denial == b""

    def refused(self) -> None:
        """End it after the response that refuses it."""
        self._end(ABNORMAL, "")
        self.state = CLOSED
        self.finish(politely=True)

    async def _take_turns(self) -> None:
        self._turns += 1
        if self._turns % MESSAGES_AT_A_TIME == 0:
            await asyncio.sleep(0)

    # Frames.

    @property
    def is_full(self) -> bool:
        """Return whether the application must receive first."""
        if self.state == CONNECTING:
            return self._frames.has_bytes
        full = len(self._messages) >= QUEUED_MESSAGES or self._held >= QUEUED_BYTES
        return full and self.state == OPEN

    @property
    def read_size(self) -> int:
        """Return how many bytes to read at a time: more within a large message."""
        return limits.RECEIVE_BYTES if self._frames.missing > READ_BYTES else READ_BYTES

    def arrived(self, data: bytes) -> None:
        """Take bytes of the client."""
        self.has_heard = True
        self._frames.feed(data)
        if self.state != CONNECTING:
            self._read_frames()

    def _read_frames(self) -> None:
        """Read the frames that are here, as far as there is room for messages."""
        ping = None
        try:
            while not self.is_full and (frame := self._frames.read()) is not None:
                opcode, payload = frame
                if opcode == PING:
                    ping = payload
                elif opcode == CLOSE:
                    self._client_closes(*payload)
                    return
                elif opcode != PONG and self.state == OPEN:
                    self._take(opcode, payload)
        except FrameError as error:
            self._fail(error.code, error.reason)
            return
        # The RFC allows to answer only the last of several pings: so a flood of them fills no buffer.
        if ping is not None and self.state == OPEN and not self.is_ahead:
            self.write(frame_head(PONG, len(ping)) + ping)

    def _read_more(self) -> None:
        """Read on after the application has received a message."""
        if self._frames.has_bytes and not self.ends:
            self._read_frames()
        if not (self._reads or self.ends or self.is_full):
            self.has_heard = True  # an answer to the last ping may wait in the kernel
            self.read_on()

    def _take(self, opcode: int, payload: Any) -> None:
        self._messages.append({"type": "websocket.receive", "text" if opcode == TEXT else "bytes": payload})
        self._held += len(payload)
        self._host.received()
        self._wake_receiver()

    def _wake_receiver(self) -> None:
        if self._waits:
            waits, self._waits = self._waits, []
            for future in waits:
                if not future.done():
                    future.set_result(None)

    # The end.

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, and wait for the client's."""
        if not is_sendable(code):
            raise ValueError(f"{code} is not a close code that a server may send")
        if self.state == CONNECTING:
            self.leaves = code, reason
        elif self.state == OPEN:
            self.state, self.closes_at = CLOSING, self._loop.time() + CLOSE_SECONDS
            self.write(close_frame(code, reason))
            self._end(code, reason)
            self.read_on()

    def _client_closes(self, code: int, reason: str) -> None:
        self._answer_and_end(code, "", reason, politely=False)

    def _fail(self, code: int, reason: str) -> None:
        """End it because the client violates the protocol."""
        self._answer_and_end(code, reason, reason, politely=True)

    def _answer_and_end(self, code: int, told: str, reason: str, *, politely: bool) -> None:
        if self.state == OPEN:
            self.closes_at = self._loop.time() + CLOSE_SECONDS
            self.write(close_frame(code, told))
        self.state = CLOSED
        self._end(code, reason)
        self.finish(politely=politely)

    def gone(self) -> None:
        """End it without its client."""
        self.state = CLOSED
        self._end(ABNORMAL, "")
        self.cut()

    def _end(self, code: int, reason: str) -> None:
        """Note the end, if it is the first."""
        if not self.code:
            self.code, self.reason, self.ended_at = code, reason, self._loop.time()
            self._wake_receiver()

    def closed(self, *, politely: bool) -> None:
        """Return the connection."""
        self._host.closed(self, politely=politely)

    def check(self, now: float) -> None:
        """From time to time: find a client that does not read, does not answer, or is gone."""
        if self.is_stalled(now):
            self.aborted = True
            self.gone()
        elif self.closes_at and now >= self.closes_at:
            self.gone()
        elif self.state == OPEN and now >= self._pings_at:
            self._ping(now)

    def _ping(self, now: float) -> None:
        """Ask for a sign of life; end it if the last question was not answered."""
        if not self._reads:  # an answer would wait behind messages that the application has not received
            is_dead = self.has_failed()
        else:
            is_dead = not self.has_heard
        if is_dead:
            self.gone()
            return
        self.has_heard, self._pings_at = False, now + PING_SECONDS
        if not self.is_ahead:
            self.write(frame_head(PING, 0))


def _size(message: Message) -> int:
    return len(message.get("text") or message.get("bytes") or "")
