"""Websockets of Channels beside plain ones: an ASGI_APPLICATION as a project writes it."""

import asyncio
import json
import os
import threading
import time
from typing import Any

from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.urls import path

from shop.async_urls import ENDED


class Echo(AsyncWebsocketConsumer):
    """Send back what comes; note the close code."""

    async def connect(self) -> None:
        offered = self.scope["subprotocols"]
        await self.accept(subprotocol=offered[0] if offered else None)

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        ENDED.append(f"echo {code}")


class About(AsyncJsonWebsocketConsumer):
    """Say what the scope holds."""

    async def connect(self) -> None:
        await self.accept(headers=[(b"X-Own", b"yes")])
        names = ("type", "scheme", "path", "subprotocols", "client", "query_string", "raw_path")
        known = {name: repr(self.scope[name]) for name in names}
        headers = {name.decode(): value.decode() for name, value in self.scope["headers"]}
        await self.send_json({**known, "headers": headers, "pid": os.getpid()})


class Refused(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.close()


class Broken(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        if self.scope["query_string"] == b"early":
            raise RuntimeError("the view broke early")
        await self.accept()

    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        raise RuntimeError("the view broke late")


class Sleepy(JsonWebsocketConsumer):
    """A sync consumer that waits 50 ms for each message."""

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        time.sleep(0.05)
        self.send_json({"number": content, "thread": threading.current_thread().name})


class Closer(AsyncWebsocketConsumer):
    async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
        code, _, reason = (text_data or "").partition(" ")
        await self.close(int(code), reason or None)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Applications without a framework, by the query."""
    await receive()
    what = scope["query_string"].decode()
    if what == "denial":
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"own")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        body = json.dumps({"why": "no token"}).encode()
        await send({"type": "websocket.http.response.body", "body": body})
        return
    if what == "silent":
        return
    await send({"type": "websocket.accept"})
    if what == "returns":
        return
    if what == "forks":
        if (copy := os.fork()) == 0:
            return  # in a copy of the worker, which must not speak to the client
        await asyncio.to_thread(os.waitpid, copy, 0)
    if what == "blocks":
        time.sleep(1)
    if what == "late":  # receives nothing until it is told to
        while not GO.is_set():
            await asyncio.sleep(0.01)
    if what == "flood":
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(2**20)})
        except OSError:
            ENDED.append("flood")
            raise
    try:
        while (message := await receive())["type"] == "websocket.receive":
            SEEN.append(message.get("text") or message.get("bytes"))
        ENDED.append(f"plain {message['code']} {message['reason']}")
    finally:
        if what == "lingers":
            await asyncio.sleep(1)
            print("the application has ended", flush=True)


GO = asyncio.Event()
SEEN: list[Any] = []


class Control(AsyncJsonWebsocketConsumer):
    """What the tests ask."""

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "go":
            GO.set()
        in_order = sorted(SEEN) == SEEN
        await self.send_json({"seen": len(SEEN), "in order": in_order, "ended": ENDED, "pid": os.getpid()})


wsgi = get_wsgi_application()
application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("ws/echo/", Echo.as_asgi()),
                path("ws/about/", About.as_asgi()),
                path("ws/refused/", Refused.as_asgi()),
                path("ws/broken/", Broken.as_asgi()),
                path("ws/sleepy/", Sleepy.as_asgi()),
                path("ws/closer/", Closer.as_asgi()),
                path("ws/control/", Control.as_asgi()),
                path("ws/plain/", plain),
            ]
        ),
    }
)
