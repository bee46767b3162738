"""Put static files and uploads where the project wants them: in front of Django, or among its middleware.

Called once, where the application is built: before the fork, or in the worker with --no-preload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from whitenoise import WhiteNoise

from .media import Uploads
from .staticfiles import StaticFiles
from .staticfiles.middleware import ensure_made, stand_in
from .staticfiles.place import Place

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def onion(core: WSGI, *layers: Callable[[WSGI], WSGI]) -> WSGI:
    """Wrap core in layers; the first one named sees the request first."""
    for layer in reversed(layers):
        core = layer(core)
    return core


def with_files(
    load: Callable[[], WSGI], static: StaticFiles, uploads: Uploads | None, say: Callable[[str], object]
) -> WSGI:
    """Load Django and return it with its files.

    Where the project states a place by WhiteNoise's middleware, files pass all that it has put above: other
    middleware, and what its wsgi.py wraps around Django. In front of both they cost no thread.
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
            "each takes a thread and its time. Without WhiteNoise's middleware they are answered before it"
        )
    return django


def _in_front(django: WSGI, static: StaticFiles, uploads: Uploads | None) -> WSGI:
    media = [uploads.layer] if uploads is not None else []
    return onion(django, static.layer, *media)


def _wrapper(application: Any) -> str:
    """Return the name of what stands around Django's handler, or an empty text."""
    if isinstance(application, WhiteNoise):  # serves files alone, and comes after ours
        application = application.application
    if isinstance(application, WSGIHandler):
        return ""
    named = application if hasattr(application, "__qualname__") else type(application)
    return f"{named.__module__}.{named.__qualname__}"
