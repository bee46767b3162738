"""An ASGI application with a websocket part, as Channels' router has one."""

from typing import Any

from django.core.asgi import get_asgi_application


class Router:
    """Passes each connection to the application of its type."""

    def __init__(self, application_mapping: dict[str, Any]) -> None:
        self.application_mapping = application_mapping

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.application_mapping[scope["type"]](scope, receive, send)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send each message back, after the client's address."""
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": str(scope["client"][0])})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


application = Router({"http": get_asgi_application(), "websocket": echo})
