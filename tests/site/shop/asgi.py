"""ASGI applications: as startproject makes it, and with a router around Django that has routes of its own."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from django.core.asgi import get_asgi_application

application = get_asgi_application()

STARTUP = Path(os.environ.get("SITE_STARTUP", "/nonexistent"))
"""A file with what goes wrong at the startup; without it all goes well."""
GONE: list[str] = []
"""Paths of requests whose client has left."""
NAPS: list[int] = []


async def router(scope: Any, receive: Any, send: Any) -> None:
    """Answer what is below /api/, and pass everything else on."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["state"]["greeting"]})
    elif scope["type"] == "http" and scope["path"].startswith("/api/"):
        await api(scope, receive, send)
    else:
        await application(scope, receive, send)


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    fault = STARTUP.read_text() if STARTUP.exists() else ""
    if fault == "raise":
        raise ValueError("there is no queue")
    if fault == "failed":
        await send({"type": "lifespan.startup.failed", "message": "the queue is not reachable"})
        return
    if fault == "starlette":
        try:
            raise ConnectionError("the broker is away")
        except ConnectionError:
            await send({"type": "lifespan.startup.failed", "message": "Traceback (most recent call last)"})
            raise
    scope["state"].update(greeting="hello from the startup", shared=[])
    print(f"startup in {os.getpid()}", flush=True)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print(f"shutdown in {os.getpid()}", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def api(scope: Any, receive: Any, send: Any) -> None:
    name = scope["path"].removeprefix("/api/")
    if name == "state":
        state = scope["state"]
        state["mine"] = state.get("mine", 0) + 1  # a copy: the next request does not see it
        state["shared"].append(1)
        await reply(send, {**state, "shared": len(state["shared"])})
    elif name == "size":
        sizes = []
        while True:
            message = await receive()
            sizes.append(len(message["body"]))
            if not message["more_body"]:
                break
        await reply(send, sizes)
    elif name == "pieces":
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 203, "headers": headers})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
        await send({"type": "http.response.body"})
    elif name == "wait":
        await receive()
        message = await receive()
        GONE.append(f"{scope['path']} {message['type']}")
    elif name == "gone":
        await reply(send, GONE)
    elif name == "nap":
        NAPS.append(1)
        await asyncio.sleep(1)
        await reply(send, "rested")
    elif name == "naps":
        await reply(send, len(NAPS))
    elif name == "boom":
        raise RuntimeError("the view broke")
    elif name == "nothing":
        return
    else:
        await reply(send, {"path": scope["path"], "client": scope["client"], "scheme": scope["scheme"]})


async def reply(send: Any, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
