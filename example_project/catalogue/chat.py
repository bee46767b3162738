"""The talk in the reading room: a websocket for each visitor; what one says, all hear from the database."""

import asyncio

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.urls import path

from .forms import RemarkForm
from .models import Remark
from .reading_room import remarks


class Chat(AsyncJsonWebsocketConsumer):
    """One visitor in the room."""

    telling = None

    async def connect(self):
        """Tell what has been said since the visitor was last here."""
        await self.accept()
        query = self.scope["query_string"].decode()
        after = query.removeprefix("after=")
        start = int(after) if after.isdecimal() else await remarks.newest()
        self.telling = asyncio.create_task(self.tell(start))

    async def tell(self, after):
        """Send each remark behind this key, and each new one."""
        async for remark in remarks.follow(after):
            if remark is not None:
                await self.send_json(remark.as_dict())

    async def receive_json(self, content, **kwargs):
        """Keep what the visitor says; all hear it when it is in the database, he too."""
        form = RemarkForm(content if isinstance(content, dict) else {})
        if form.is_valid():
            await Remark.objects.acreate(**form.cleaned_data)
        else:
            await self.send_json(
                {"error": " ".join(text for texts in form.errors.values() for text in texts)}
            )

    async def disconnect(self, code):
        """Stop telling."""
        if self.telling is not None:
            self.telling.cancel()


websocket_urlpatterns = [path("reading-room/chat/", Chat.as_asgi())]
