"""Answer for static files, and for uploads where they are served, at WhiteNoise's place among the middleware.

Built in the command's process before the fork, or in the worker with --no-preload; called in every worker, on
a request's thread, once a request that comes as far. The look-up is the same as the layer's (layer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from whitenoise.middleware import WhiteNoiseMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .place import Place

Find = Callable[[str, str], Any]
"""Finds what answers at a path, below a script name; None where nothing does. It may have to be closed."""


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise has no types
    """Stands in for WhiteNoise's: reads no files in, for they are known already."""

    finders: ClassVar[tuple[Find, ...]] = ()
    is_made: ClassVar[bool] = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        type(self).is_made = True

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer for a file; anything else, or a file that is gone, is for what stands below."""
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
        return self.get_response(request)


def _nothing() -> None:
    """Close nothing."""


STANDS_IN = f"{StaticFilesMiddleware.__module__}.{StaticFilesMiddleware.__qualname__}"


def stand_in(place: Place, finders: tuple[Find, ...], *, replaces: bool) -> Callable[[], None]:
    """Put our middleware at WhiteNoise's place, or in front of one that stays; return how to undo it."""
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
    """Have Django make its middleware anew where that was made before ours was in its place.

    A project may import its wsgi.py while its apps are loaded.
    """
    if not StaticFilesMiddleware.is_made and isinstance(handler, WSGIHandler):
        handler.load_middleware()
