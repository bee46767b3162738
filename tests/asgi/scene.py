"""What a scene needs: a site with our handler, and a look at its threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.test import override_settings
from django.urls import path

from django_prodserve.asgi.handler import Handler
from django_prodserve.asgi.leases import Leases

Scene = Callable[[], Awaitable[None]]
SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    SCENES[function.__name__] = function
    return function


@contextlib.contextmanager
def site(
    view: Any = None, *, limit: int = 4, patience: float = 10.0, middleware: Any = None
) -> Iterator[Any]:
    """Yield a handler of a project with one view at ``/``, and its threads; none may be left over."""
    pool = Leases(limit, patience)
    urls: Any = settings.ROOT_URLCONF
    if view:
        urls = ModuleType("urls")
        urls.urlpatterns = [path("", view)]
    names = settings.MIDDLEWARE if middleware is None else middleware
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=names):
        yield SimpleNamespace(pool=pool, handler=Handler(pool))
    assert pool.waiting == 0
    assert pool.close(5.0), "a thread did not end"
    assert pool.threads == 0


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads go on until this holds."""
    while not condition():
        await asyncio.sleep(0.001)


def my_thread() -> int:
    return threading.get_ident()


in_thread = sync_to_async(my_thread)


class Empty:
    """A body without bytes."""

    def read(self, size: int = -1) -> bytes:
        return b""

    def close(self) -> None:
        pass
