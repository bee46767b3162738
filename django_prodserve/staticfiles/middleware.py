"""Answer for static files, and for uploads if they are served, in WhiteNoise's place in MIDDLEWARE.

Built in the command's process before the fork, or in the worker with --no-preload; called in every worker, on
a request's thread, once for each request that gets this far. The look-up is the same as in layer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from whitenoise.middleware import WhiteNoiseMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .place import Place

Find = Callable[[str, str], Any]
"""Finds the entry for a path, below a script name; None if there is none. The caller may have to close it."""


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise has no types
    """Replaces WhiteNoise's middleware: indexes no files, because they are indexed already."""

    finders: ClassVar[tuple[Find, ...]] = ()
    is_made: ClassVar[bool] = False

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        type(self).is_made = True

    def __call__(self, request: HttpRequest) -> Any:
        """Answer for a file; other requests, or those for a removed file, go to the middleware below.

        Async views are behind it, too. If it were sync alone, each would hold a thread as long as it runs.
        """
        found = self.file(request)
        if found is None:
            return self.get_response(request)
        return _ready(found) if self.is_async else found

    def file(self, request: HttpRequest) -> HttpResponseBase | None:
        """Return the response with a file; None if there is none."""
        for find in self.finders:
            file = find(request.path_info, request.META.get("SCRIPT_NAME", ""))
            if file is None:
                continue
            try:
                answer: HttpResponseBase = self.serve(file, request)
            except (FileNotFoundError, PermissionError):
                continue
            finally:
                getattr(file, "close", _nothing)()
            return answer
        return None


async def _ready(response: HttpResponseBase) -> HttpResponseBase:
    return response


def _nothing() -> None:
    """Close nothing."""


STANDS_IN = f"{StaticFilesMiddleware.__module__}.{StaticFilesMiddleware.__qualname__}"


def stand_in(place: Place, finders: tuple[Find, ...], *, replaces: bool) -> Callable[[], None]:
    """Put our middleware in WhiteNoise's place, or in front of one that stays; return how to undo it."""
    before, found_before = settings.MIDDLEWARE, StaticFilesMiddleware.finders
    assert place.index is not None
    changed = list(before)
    changed[place.index : place.index + replaces] = [STANDS_IN]
    StaticFilesMiddleware.finders = finders
    StaticFilesMiddleware.is_made = False
    settings.MIDDLEWARE = changed

    def undo() -> None:
        settings.MIDDLEWARE = before
        StaticFilesMiddleware.finders = found_before

    return undo


def ensure_made(handler: Any) -> None:
    """Make Django create its middleware again if it was created before ours was in place.

    A project may import its wsgi.py while its apps are loaded.
    """
    if not StaticFilesMiddleware.is_made and isinstance(handler, WSGIHandler):
        handler.load_middleware()
