"""Async views beside the sync ones, for what runs on the asyncio loop."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator

from asgiref.sync import async_to_sync
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.utils import translation
from django.views.decorators.csrf import csrf_exempt

from shop import urls

ENDED: list[str] = []
"""Names of the requests whose ``finally`` ran."""
RUNNING: list[str] = []
"""Names of those that wait."""


async def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def where(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"thread": threading.current_thread().name, "pid": os.getpid()})


async def nap(request: HttpRequest) -> HttpResponse:
    name = request.GET.get("name", "")
    RUNNING.append(name)
    try:
        await asyncio.sleep(min(float(request.GET["seconds"]), 30))
    finally:
        RUNNING.remove(name)
        ENDED.append(name)
    return HttpResponse(name)


async def stubborn(request: HttpRequest) -> HttpResponse:
    """Swallow every cancellation."""
    until = time.monotonic() + 8
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)
    return HttpResponse()


MET = asyncio.Event()
WAITING: list[int] = []


async def meet(request: HttpRequest) -> HttpResponse:
    """Wait until ``count`` requests are here."""
    WAITING.append(1)
    if len(WAITING) >= int(request.GET["count"]):
        MET.set()
    await MET.wait()
    return HttpResponse()


STEP = asyncio.Condition()
STEPS = [0]


async def steps(request: HttpRequest) -> StreamingHttpResponse:
    """A stream with an event for each request to ``step``."""

    async def pieces() -> AsyncIterator[str]:
        seen = STEPS[0]
        try:
            yield f"data: {seen}\n\n"
            while True:
                async with STEP:
                    while STEPS[0] == seen:
                        await STEP.wait()
                    seen = STEPS[0]
                yield f"data: {seen}\n\n"
        finally:
            ENDED.append(request.GET.get("name", ""))

    STEPS[0] = 0
    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


def sync_steps(request: HttpRequest) -> StreamingHttpResponse:
    """The same stream from a sync view."""

    async def pieces() -> AsyncIterator[str]:
        response = await steps(request)
        async for piece in response.streaming_content:
            yield piece

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


def sync_where(request: HttpRequest) -> JsonResponse:
    """A sync view: its own thread, and the one in which a coroutine runs that it calls."""

    async def thread() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    return JsonResponse([threading.current_thread().name, async_to_sync(thread)()], safe=False)


async def step(request: HttpRequest) -> HttpResponse:
    async with STEP:
        STEPS[0] += 1
        STEP.notify_all()
    return HttpResponse(str(STEPS[0]))


async def running(request: HttpRequest) -> JsonResponse:
    return JsonResponse(RUNNING, safe=False)


async def ended(request: HttpRequest) -> JsonResponse:
    return JsonResponse(ENDED, safe=False)


async def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view broke")


async def block(request: HttpRequest) -> HttpResponse:
    time.sleep(min(float(request.GET["seconds"]), 5))
    return HttpResponse()


@csrf_exempt
async def size(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


async def events(request: HttpRequest) -> StreamingHttpResponse:
    """A stream of ``count`` events of ``size`` bytes, ``pause`` seconds apart."""
    asked = request.GET
    count, length, pause = int(asked["count"]), int(asked.get("size", 0)), float(asked.get("pause", 0))
    name = asked.get("name", "")

    async def pieces() -> AsyncIterator[bytes]:
        try:
            for number in range(count):
                yield f"data: {number}\n\n".encode().rjust(length, b".")
                if pause:
                    await asyncio.sleep(pause)
        finally:
            ENDED.append(name)

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def language(request: HttpRequest, code: str) -> HttpResponse:
    """Activate a language, let other tasks run, and say which is active."""
    translation.activate(code)
    await asyncio.sleep(0.01)
    return HttpResponse(translation.get_language())


async def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(__file__, "rb"))


urlpatterns = [
    path("async/hello/", hello),
    path("async/where/", where),
    path("async/nap/", nap),
    path("async/stubborn/", stubborn),
    path("async/ended/", ended),
    path("async/running/", running),
    path("async/meet/", meet),
    path("async/steps/", steps),
    path("async/step/", step),
    path("sync/where/", sync_where),
    path("async/sync-steps/", sync_steps),
    path("async/boom/", boom),
    path("async/block/", block),
    path("async/size/", size),
    path("async/events/", events),
    path("async/language/<code>/", language),
    path("async/file/", file),
    *urls.urlpatterns,
]
