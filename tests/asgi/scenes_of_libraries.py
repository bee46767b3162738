"""What happens inside the handler beside receivers of signals and libraries that replace parts of Django."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from typing import Any
from unittest import mock

from asgiref.sync import ThreadSensitiveContext
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.http import HttpResponse
from django.middleware.security import SecurityMiddleware
from django.test import override_settings

from django_prodserve.asgi import handler as handler_module
from django_prodserve.asgi import leases as leases_module
from django_prodserve.asgi.handler import Handler, load
from django_prodserve.asgi.sending import Body

from . import middleware as middleware_module
from .drive import Answer, by_messages, directly, scope
from .scene import Empty, my_thread, scene, site


@scene
async def receivers_get_both_signals_in_one_thread() -> None:
    seen: list[tuple[str, int, Any]] = []

    def on_start(sender: Any, scope: Any, **named: Any) -> None:
        seen.append(("started", my_thread(), sender))
        assert scope["path"] == "/ahello/"

    def on_finish(sender: Any, **named: Any) -> None:
        seen.append(("finished", my_thread(), sender))

    for call in (directly, by_messages):
        seen.clear()
        request_started.connect(on_start, sender=ASGIHandler)
        request_finished.connect(on_finish, sender=ASGIHandler)
        try:
            with site() as here:
                assert (await call(here.handler, scope("/ahello/"))).status == 200
        finally:
            request_started.disconnect(on_start, sender=ASGIHandler)
            request_finished.disconnect(on_finish, sender=ASGIHandler)
        assert [(each[0], each[2]) for each in seen] == [("started", ASGIHandler), ("finished", ASGIHandler)]
        assert len({each[1] for each in seen} | {my_thread()}) == 2


@scene
async def async_receivers_run_on_the_loop() -> None:
    seen: list[str] = []

    async def on_start(**named: Any) -> None:
        assert asyncio.get_running_loop() is loop
        seen.append("started")

    async def on_finish(**named: Any) -> None:
        assert asyncio.get_running_loop() is loop
        seen.append("finished")

    loop = asyncio.get_running_loop()
    request_started.connect(on_start)
    request_finished.connect(on_finish)
    try:
        with site() as here:
            assert (await directly(here.handler, scope("/ahello/"))).status == 200
    finally:
        request_started.disconnect(on_start)
        request_finished.disconnect(on_finish)
    assert seen == ["started", "finished"]


@scene
async def a_wrapped_sender_gets_messages() -> None:
    """A library that watches ASGI applications sees what it expects, and so does our sender behind it."""
    seen: list[str] = []
    answer = Answer(takes_files=True)

    async def watching(message: Any) -> None:
        seen.append(message["type"])
        await answer(message)

    with site() as here:
        for target in ("/ahello/", "/afile/", "/astream/"):
            answer = Answer(takes_files=True)
            seen.clear()
            await here.handler(scope(target), Body(Empty()), watching)
            assert seen[0] == "http.response.start"
            assert set(seen[1:]) == {"http.response.body"}
            assert (answer.status, answer.is_complete, answer.files) == (200, True, [])


@scene
async def a_wrapped_body_is_read_by_messages() -> None:
    import io

    inner = Body(io.BytesIO(b"y" * 200_000))

    async def receive() -> Any:
        return await inner()

    with site() as here, override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        answer = Answer()
        await here.handler(scope("/echo/", "POST"), receive, answer)
        assert answer.body == b"y" * 200_000


@scene
async def what_a_tracing_library_replaces_is_called() -> None:
    """As Sentry does: the entry, the response, the request, and who gets a signal."""
    from django.dispatch import Signal

    calls: list[str] = []

    def spied(kind: Any, name: str) -> Any:
        original = getattr(kind, name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        return mock.patch.object(kind, name, replacement)

    with contextlib.ExitStack() as stack:
        for name in ("__call__", "create_request", "run_get_response"):
            stack.enter_context(spied(ASGIHandler, name))
        for name in ("get_response_async", "_get_response_async", "load_middleware", "resolve_request"):
            stack.enter_context(spied(BaseHandler, name))
        stack.enter_context(spied(Signal, "_live_receivers"))
        assert type(load(None, speedups=True)) is Handler
        with site() as here:
            assert (await directly(here.handler, scope("/ahello/"))).status == 200
            assert here.pool.threads == 0
    assert set(calls) >= {
        *("__call__", "create_request", "run_get_response", "get_response_async"),
        *("_get_response_async", "load_middleware", "resolve_request"),
    }


@scene
async def another_source_of_django_means_djangos_handler() -> None:
    async def handle(self: Any, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never called")

    assert type(load(None, speedups=True)) is Handler
    assert type(load(None, speedups=False)) is ASGIHandler
    with mock.patch.object(ASGIHandler, "handle", handle):
        assert "is not that of 5.2" in handler_module.why_not()
        assert type(load(None, speedups=True)) is ASGIHandler


@scene
async def another_source_of_asgiref_means_its_own_threads() -> None:
    with mock.patch.object(leases_module, "TESTED", {}):
        assert "is not as tested" in leases_module.why_not()
        with site() as here:
            for target in ("/ahello/", "/hello/", "/count/", "/astream/"):
                assert (await directly(here.handler, scope(target))).status == 200
            assert here.pool.threads == 0


@scene
async def another_source_of_a_middleware_means_a_thread() -> None:
    from django_prodserve.asgi.django_middleware import rule_of

    original = SecurityMiddleware.process_response

    def replacement(self: Any, request: Any, response: Any) -> Any:
        response["X-Thread"] = str(my_thread())
        return original(self, request, response)

    with mock.patch.object(SecurityMiddleware, "process_response", replacement):
        rule_of.cache_clear()
        with site() as here:
            answer = await directly(here.handler, scope("/ahello/"))
            assert dict(answer.headers)["X-Thread"] != str(my_thread())
    rule_of.cache_clear()


@scene
async def middleware_that_another_one_wraps_is_shortened_too() -> None:
    """As Sentry wraps each."""
    with site(middleware=["tests.asgi.middleware.Wrapped"]) as here:
        assert (await directly(here.handler, scope("/ahello/"))).status == 200
        assert here.pool.threads == 0


@scene
async def a_method_that_is_only_measured_needs_no_thread() -> None:
    """The wrapper's module decides: another one may do anything."""
    source = """def measured(method):
    @functools.wraps(method)
    def wrapper(*args):
        calls.append(method.__name__)
        return method(*args)
    wrapper.__self__ = method.__self__
    return wrapper
"""
    for module, needs_thread in (("sentry_sdk.integrations.django.middleware", False), ("theirs", True)):
        calls: list[str] = []
        namespace: dict[str, Any] = {"__name__": module, "functools": functools, "calls": calls}
        exec(source, namespace)
        middleware = middleware_module.Measured
        measured = mock.patch.object(middleware, "measured", staticmethod(namespace["measured"]))
        with measured, site(middleware=["tests.asgi.middleware.Measured"]) as here:
            assert (await directly(here.handler, scope("/ahello/"))).status == 200
            assert here.pool.threads == needs_thread
            assert calls == ["process_view"]


@scene
async def an_executor_that_is_there_is_used() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from asgiref.sync import SyncToAsync

    def view(request: Any) -> HttpResponse:
        return HttpResponse(threading.current_thread().name)

    with site(view) as here, ThreadPoolExecutor(1, "theirs") as executor:
        async with ThreadSensitiveContext() as context:
            SyncToAsync.context_to_thread_executor[context] = executor
            assert (await directly(here.handler, scope("/"))).body == b"theirs_0"
            del SyncToAsync.context_to_thread_executor[context]
        assert here.pool.threads == 0


@scene
async def a_dead_receiver_is_none() -> None:
    def forgotten(**named: Any) -> None:
        raise AssertionError("it is gone")

    request_started.connect(forgotten)
    del forgotten
    with site() as here:
        assert (await by_messages(here.handler, scope("/ahello/"))).status == 200
        assert here.pool.threads == 0
