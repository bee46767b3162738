"""Views that change what belongs to a request alone, let others run, and tell what they see then."""

import asyncio
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.utils import timezone, translation

from django_prodserve.logs import request_id

OWN: ContextVar[str] = ContextVar("own", default="")


def seen(request: HttpRequest) -> list[Any]:
    """Return the state of this request, as code sees it that runs for it now."""
    name = request.session.get("name", "")
    zone = timezone.get_current_timezone_name()
    return [translation.get_language(), zone, OWN.get(), request_id.get(), name]


def change(request: HttpRequest) -> None:
    asked = request.GET
    translation.activate(asked["language"])
    timezone.activate(asked["zone"])
    OWN.set(asked["own"])


async def child(request: HttpRequest) -> list[Any]:
    """Tell in a task of its own, and change the state of that task alone."""
    await asyncio.sleep(0)
    found = seen(request)
    translation.activate("ja")
    OWN.set("child")
    await asyncio.sleep(0.001)
    return found


async def in_task(request: HttpRequest) -> list[Any]:
    """Run a child in a task: async_to_sync would pass on what a coroutine changes."""
    return await asyncio.create_task(child(request))


async def on_loop(request: HttpRequest) -> JsonResponse:
    before = [translation.get_language(), timezone.get_current_timezone_name(), OWN.get()]
    in_thread = request.GET.get("change") == "thread"
    await sync_to_async(change)(request) if in_thread else change(request)
    found = [seen(request)]
    await asyncio.sleep(0.002)
    found += await asyncio.gather(child(request), child(request), sync_to_async(seen)(request))
    found.append(seen(request))
    return JsonResponse({"before": before, "seen": found})


def in_thread(request: HttpRequest) -> JsonResponse:
    change(request)
    found = [seen(request)]
    time.sleep(0.001)
    found += [async_to_sync(in_task)(request), seen(request)]
    return JsonResponse({"seen": found})


def sync_only(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware that cannot be async: an async view behind it holds a thread."""
    return lambda request: get_response(request)


async def nap(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(min(float(request.GET["seconds"]), 30))
    return HttpResponse()


def name(request: HttpRequest) -> HttpResponse:
    request.session["name"] = request.GET["name"]
    return HttpResponse()


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def interval(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(sys.getswitchinterval()))


def query(request: HttpRequest) -> HttpResponse:
    """Hold a database connection for a moment."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.02)")
    return HttpResponse()


async def async_query(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(query)(request)


urlpatterns = [
    path("query/", query),
    path("async-query/", async_query),
    path("interval/", interval),
    path("", hello),
    path("loop/", on_loop),
    path("thread/", in_thread),
    path("name/", name),
    path("nap/", nap),
]
