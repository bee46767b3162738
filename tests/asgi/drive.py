"""Call an ASGI handler as a server does, and return what it answered."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from django_prodserve.asgi.sending import Body, Sender


@dataclass
class Answer(Sender):
    """One response, kept in memory."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)
    is_complete: bool = False
    error: str = ""
    files: list[Any] = field(default_factory=list)
    takes_files: bool = False

    def start(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, headers

    async def write(self, data: bytes, *, last: bool) -> None:
        assert not self.is_complete, "a piece after the last one"
        self.body += data
        self.is_complete = last
        if data:
            self.pieces.append(data)

    async def send_file(self, file: Any) -> bool:
        if not self.takes_files:
            return False
        self.files.append(file)
        await self.write(file.read(), last=True)
        return True

    async def take(self, message: Any) -> None:
        """Take a message through a plain function, as under another server."""
        await Sender.__call__(self, message)


def scope(target: str, method: str = "GET", *, headers: dict[str, str] | None = None, **more: Any) -> Any:
    path, _, query = target.partition("?")
    found = {
        "host": "testserver",
        "user-agent": "tests",
        **{k.lower(): v for k, v in (headers or {}).items()},
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in found.items()],
        "client": ("192.0.2.1", 1234),
        "server": ("testserver", 80),
        **more,
    }


def receiving(body: bytes) -> Callable[[], Awaitable[Any]]:
    """Return ``receive`` of a server whose client sends a body in two parts, and stays."""
    half = len(body) // 2
    parts = [body[:half], body[half:]] if body else [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


async def by_messages(handler: Any, scope: Any, body: bytes = b"") -> Answer:
    """Call a handler as any ASGI server does."""
    answer = Answer()

    async def send(message: Any) -> None:
        await answer.take(message)

    return await _answered(answer, handler(scope, receiving(body), send))


async def directly(handler: Any, scope: Any, body: bytes = b"", *, takes_files: bool = False) -> Answer:
    """Call our handler as our worker does."""
    answer = Answer(takes_files=takes_files)
    return await _answered(answer, handler(scope, Body(io.BytesIO(body)), answer))


async def _answered(answer: Answer, call: Awaitable[None]) -> Answer:
    try:
        await call
    except Exception as error:
        answer.error = f"{type(error).__name__}: {error}"
    return answer
