"""Where a response goes: what the worker passes to the handler in place of ASGI's ``receive`` and ``send``.

Runs on the event loop's thread of a worker; ``Pieces.read`` in a leased thread. A library that watches ASGI
applications wraps ``send`` and ``receive``, and expects messages. So both classes are ASGI callables, too.
The handler uses their methods only if it gets the objects themselves, and speaks ASGI to anything else.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async

Message = MutableMapping[str, Any]
Headers = list[tuple[str, str]]

PIECE = 2**16
"""Bytes of a body in one ASGI message, as in Django's handler."""
AHEAD = 2**18
"""Bytes that a thread reads ahead of the client: enough that neither waits for the other at each piece."""


class Body:
    """The body of a request that the worker has read. As ASGI's ``receive`` it then waits for the end.

    Our handler is cancelled when the client goes. ``disconnect`` is for any other application.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._has_ended = False
        self._has_gone = asyncio.Event()

    def disconnect(self) -> None:
        """On the loop: inform an application that listens that the client has gone."""
        self._has_gone.set()

    async def __call__(self) -> Message:
        """Return the next part of the body, and after the last one that the client has gone."""
        if self._has_ended:
            await self._has_gone.wait()
            return {"type": "http.disconnect"}
        part = self.file.read(PIECE)
        self._has_ended = len(part) < PIECE
        return {"type": "http.request", "body": part, "more_body": not self._has_ended}


class Sender:
    """Sends one response: the worker's writes to a connection. As ASGI's ``send`` it takes messages."""

    def start(self, status: int, reason: str, headers: Headers) -> None:
        """Take what comes before the body; sent with its first bytes."""
        raise NotImplementedError

    async def write(self, data: bytes, *, last: bool) -> None:
        """Send a piece of the body, and what comes before; wait while the client is far behind.

        An empty piece that is not the last sends what comes before the body.
        """
        raise NotImplementedError

    async def send_file(self, file: Any) -> bool:
        """Send a file from its position to its end; return False, and send nothing, if it must be read.

        The file may be closed when this returns.
        """
        return False

    async def __call__(self, message: Message) -> None:
        """Take an ASGI message."""
        if message["type"] == "http.response.start":
            headers = [
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]
            ]
            self.start(message["status"], "", headers)
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            await self.write(message.get("body", b""), last=not more)


class MessageSender(Sender):
    """Sends a response by ASGI messages: under another server, or through a library's wrapper."""

    def __init__(self, send: Callable[[Message], Awaitable[None]]) -> None:
        self._send = send
        self._head: Message | None = None

    def start(self, status: int, reason: str, headers: Headers) -> None:
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        self._head = {"type": "http.response.start", "status": status, "headers": encoded}

    async def write(self, data: bytes, *, last: bool) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            await self._send(head)
        for start in range(0, len(data), PIECE) or ([0] if last else []):
            more = not last or start + PIECE < len(data)
            part = data[start : start + PIECE]
            await self._send({"type": "http.response.body", "body": part, "more_body": more})


def sender_of(send: Any) -> Sender:
    """Return the worker's sender, or one that passes messages to whatever else this is."""
    # Of the type alone: a proxy object claims the class of what it wraps.
    return send if issubclass(type(send), Sender) else MessageSender(send)


async def send(response: Any, sender: Sender) -> None:
    """Send a response of Django's."""
    headers = [*response.items()]
    headers += [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
    sender.start(response.status_code, response.reason_phrase, headers)
    if not response.streaming:
        await sender.write(response.content, last=True)
        return
    if getattr(response, "file_to_stream", None) is not None and await sender.send_file(
        response.file_to_stream
    ):
        return
    await sender.write(b"", last=False)  # the client gets the headers before the first piece is there
    if getattr(response, "is_async", True):
        await _send_async(response, sender)
    else:
        await _send_sync(response.streaming_content, sender)
    await sender.write(b"", last=True)


async def send_stream(response: Any, sender: Sender) -> None:
    """Send the body of an async stream; the sender has its status and headers."""
    await sender.write(b"", last=False)
    await _send_async(response, sender)
    await sender.write(b"", last=True)


async def _send_async(response: Any, sender: Sender) -> None:
    """Send what an async iterator yields. Its ``finally`` blocks have run when this returns."""
    parts = aiter(response)
    try:
        async for part in parts:
            await sender.write(part, last=False)
    finally:
        for each in (parts, getattr(response, "_iterator", None)):
            if (close := getattr(each, "aclose", None)) is not None:
                await close()


async def _send_sync(parts: Iterable[bytes], sender: Sender) -> None:
    """Send what a sync iterator yields, piece by piece. It runs in the request's thread, in one call."""
    pieces = Pieces()
    reading = asyncio.ensure_future(sync_to_async(pieces.read)(parts))
    reading.add_done_callback(pieces.end)
    try:
        async for part in pieces:
            await sender.write(part, last=False)
        await reading
    finally:
        pieces.stop()
        await asyncio.wait([reading])  # what it reads is closed next


class Pieces:
    """What a thread has read and the event loop has not yet sent."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._room = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._is_stopped = self._has_ended = False

    def read(self, parts: Iterable[bytes]) -> None:
        """In a thread: read all, at most ``AHEAD`` bytes ahead of the client."""
        for part in parts:
            with self._room:
                self._room.wait_for(lambda: self._size < AHEAD or self._is_stopped)
                if self._is_stopped:
                    return
                self._pieces.append(part)
                self._size += len(part)
                is_first = len(self._pieces) == 1
            if is_first:
                self._loop.call_soon_threadsafe(self._arrived.set)

    def end(self, reading: asyncio.Future[None]) -> None:
        """On the loop: the thread is done, or has failed."""
        if not reading.cancelled():
            reading.exception()  # raised by who waits; if nobody does any more, asyncio need not complain
        self._has_ended = True
        self._arrived.set()

    def stop(self) -> None:
        """On the loop: nobody wants the rest."""
        with self._room:
            self._is_stopped = True
            self._room.notify()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with self._room:
                taken = b"".join(self._pieces)
                self._pieces.clear()
                self._size = 0
                self._room.notify()
            if taken:
                yield taken
            elif self._has_ended:
                return
            else:
                await self._arrived.wait()
                self._arrived.clear()
