"""ASGI_APPLICATION of the site with async views: Django, and websockets where Channels is installed."""

import importlib.util

from django.core.asgi import get_asgi_application

application = get_asgi_application()

if importlib.util.find_spec("channels"):
    import os
    import time

    from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.urls import path

    class Echo(AsyncWebsocketConsumer):
        """Tell the process, then send each message back."""

        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data=str(os.getpid()))

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    class Wait(WebsocketConsumer):
        """The same in threads, after 50 ms."""

        def connect(self) -> None:
            self.accept()
            self.send(text_data=str(os.getpid()))

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            time.sleep(0.05)
            self.send(text_data=text_data, bytes_data=bytes_data)

    sockets = URLRouter([path("ws/echo/", Echo.as_asgi()), path("ws/wait/", Wait.as_asgi())])
    application = ProtocolTypeRouter({"http": application, "websocket": sockets})
