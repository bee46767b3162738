"""Middleware as third parties write it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.sessions.backends import signed_cookies
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.middleware.security import SecurityMiddleware
from django.utils.decorators import async_only_middleware, sync_and_async_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin


@sync_only_middleware
def sync_only(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response["X-Sync-Only"] = "seen"
        return response

    return middleware


@async_only_middleware
def async_only(get_response: Callable[[HttpRequest], Awaitable[Any]]) -> Callable[[HttpRequest], Any]:
    async def middleware(request: HttpRequest) -> Any:
        response = await get_response(request)
        response["X-Async-Only"] = "seen"
        return response

    return middleware


@sync_and_async_middleware
def both(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    if not iscoroutinefunction(get_response):
        return sync_only(get_response)

    async def middleware(request: HttpRequest) -> Any:
        response = await get_response(request)
        response["X-Both"] = "seen"
        return response

    return middleware


class Mixed(MiddlewareMixin):
    """All hooks, some of which answer."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if "early" in request.GET:
            return HttpResponse("early", status=418)
        if "raise" in request.GET:
            raise ValueError("a middleware failed")
        return None

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        return HttpResponse("instead of the view") if "instead" in request.GET else None

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return HttpResponse(f"handled {error}", status=503) if "handle" in request.GET else None

    def process_template_response(self, request: HttpRequest, response: Any) -> Any:
        response.context_data["word"] += " changed"
        return response

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        if "late" in request.GET:
            raise ValueError("a middleware failed late")
        response["X-Mixed"] = "seen"
        return response


class SessionStore(signed_cookies.SessionStore):
    """A session that may do anything when it is made; this module is its engine."""

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)


class OwnStorage(FallbackStorage):
    """Messages that may do anything when they are made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class OtherUrls(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        request.urlconf = "tests.urls"  # type: ignore[attr-defined]


class OwnCsrf(CsrfViewMiddleware):
    """A subclass of Django's, which may do anything."""

    def process_response(self, request: HttpRequest, response: Any) -> Any:
        response["X-Own-Csrf"] = "seen"
        return super().process_response(request, response)


class Wrapped:
    """Wraps a middleware of Django's as a tracing library does."""

    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self._inner = SecurityMiddleware(get_response)

    async def __call__(self, request: HttpRequest) -> Any:
        return await self._inner.__acall__(request)


markcoroutinefunction(Wrapped.__call__)


class Measured(Wrapped):
    """Wraps a method of Django's as a tracing library does."""

    measured: Any = None

    def __init__(self, get_response: Any) -> None:
        self._inner: Any = CsrfViewMiddleware(get_response)
        self.process_view = self.measured(self._inner.process_view)
