"""Put static files and uploads in their configured place: in front of Django, or among its middleware.

Called once, when the application is built: before the fork, or in the worker with --no-preload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.core.handlers.wsgi import WSGIHandler
from whitenoise import WhiteNoise

from ..utils.names import full_name
from . import StaticFiles
from .media import Uploads
from .middleware import ensure_made, stand_in
from .place import Place

if TYPE_CHECKING:
    from .layer import StaticLayer

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def with_files(
    load: Callable[[], WSGI], static: StaticFiles, uploads: Uploads | None, say: Callable[[str], object]
) -> tuple[WSGI, StaticLayer | None]:
    """Load Django and return it with its files, and the static middleware if that is the outermost.

    If the project sets a place by WhiteNoise's middleware, files pass the code that it has put above: other
    middleware, and wrappers around Django in its wsgi.py. In front of both they cost no thread.
    """
    finders = (*static.finders, *([uploads.look_up] if uploads is not None else []))
    place = Place.from_settings() if finders else Place()
    if place.index is None:
        return _in_front(load(), static, uploads)
    stand_in(place, finders, replaces=static.site is not None)
    django = load()
    ensure_made(django)
    wrapper = _wrapper(django)
    if not (place.above or wrapper):
        return _in_front(django, static, uploads)
    if not place.above:
        say(
            f"static files go through {wrapper} (WSGI_APPLICATION), because MIDDLEWARE has WhiteNoise's: "
            "each file takes a thread. Without WhiteNoise's middleware prodserve answers them first"
        )
    return django, None


def _in_front(django: WSGI, static: StaticFiles, uploads: Uploads | None) -> tuple[WSGI, StaticLayer | None]:
    behind = django if uploads is None else uploads.layer(django)
    layer = static.in_front_of(behind)
    return layer or behind, layer


def _wrapper(application: Any) -> str:
    """Return the name of the wrapper around Django's handler, or an empty text."""
    if isinstance(application, WhiteNoise):  # serves only files, and comes after ours
        application = application.application
    return "" if isinstance(application, WSGIHandler) else full_name(application)
