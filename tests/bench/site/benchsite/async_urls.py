"""The same views, and async ones beside them; what Channels' consumers do stands in async_site.py."""

import asyncio
import time
from collections.abc import AsyncIterator

from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from . import urls


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def json(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"books": urls.BOOKS})


async def sleep(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0.05)
    return HttpResponse("slept")


async def db(request: HttpRequest) -> JsonResponse:
    rows = Permission.objects.select_related("content_type").order_by("pk")[:20]
    return JsonResponse({"rows": [[row.pk, row.name, row.content_type.model] async for row in rows]})


async def events(request: HttpRequest) -> StreamingHttpResponse:
    """``count`` events, ``ms`` apart."""
    count, pause = int(request.GET["count"]), float(request.GET["ms"]) / 1000

    async def stream() -> AsyncIterator[str]:
        for number in range(count):
            yield f"data: {number}\n\n"
            await asyncio.sleep(pause)

    return StreamingHttpResponse(stream(), content_type="text/event-stream")


async def block(request: HttpRequest) -> HttpResponse:
    """What no async view may do."""
    time.sleep(min(float(request.GET["ms"]), 5000) / 1000)
    return HttpResponse("blocked")


def group_send(request: HttpRequest) -> HttpResponse:
    """Send to a group of Channels from a sync view."""
    from channels.layers import get_channel_layer

    async_to_sync(get_channel_layer().group_send)("bench", {"type": "bench.message"})
    return HttpResponse("sent")


urlpatterns = [
    *urls.urlpatterns,
    path("async/hello/", hello),
    path("async/json/", json),
    path("async/sleep/", sleep),
    path("async/db/", db),
    path("async/events/", events),
    path("async/block/", block),
    path("group-send/", group_send),
]
