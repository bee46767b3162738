"""Views on roads that their kind does not choose."""

import threading

from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_prodserve.roads import run_in_threads, run_on_loop
from shop import async_urls


@run_in_threads
async def computes(request: HttpRequest) -> JsonResponse:
    """An async view: on the worker's loop it would block all others."""
    return _where(request)


@run_on_loop
def scoped(request: HttpRequest) -> JsonResponse:
    """A sync view that needs what only ASGI offers."""
    return _where(request)


async def live(request: HttpRequest) -> JsonResponse:
    return _where(request)


def plain(request: HttpRequest) -> JsonResponse:
    return _where(request)


def _where(request: HttpRequest) -> JsonResponse:
    scope = getattr(request, "scope", {})
    return JsonResponse({"thread": threading.current_thread().name, "scope": scope.get("type")})


urlpatterns = [
    path("roads/computes/", computes, name="computes"),
    path("roads/scoped/", scoped, name="scoped"),
    path("roads/live/", live, name="live"),
    path("roads/plain/", plain, name="plain"),
    path("roads/by-path/live/", live),
    *async_urls.urlpatterns,
]
