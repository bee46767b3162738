"""What happens inside the handler to threads and connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import Context
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.signals import request_finished
from django.db import connection, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings

from django_prodserve.asgi.leases import NoThreadFreeError
from django_prodserve.asgi.sending import Body

from .drive import Answer, directly, scope
from .parity import logged
from .scene import Empty, in_thread, my_thread, scene, site, until


@scene
async def a_short_async_view_needs_no_thread() -> None:
    with site() as here:
        answer = await directly(here.handler, scope("/ahello/"))
        assert answer.status == 200
        assert here.pool.threads == 0


GZIP = ["django.middleware.gzip.GZipMiddleware"]
TAGS = ["django.middleware.http.ConditionalGetMiddleware"]
MAY_BLOCK: list[tuple[bool, str, dict[str, Any]]] = [
    (False, "/ahello/", {}),
    (False, "/ahello/", {"method": "HEAD"}),
    (False, "/nothing/", {}),
    (False, "/redirect/", {}),
    (False, "/astream/", {}),
    (True, "/ahello", {}),  # a 404 before it becomes a redirect
    (False, "/echo/", {"method": "POST"}),  # exempt from CSRF checks
    (True, "/aform/", {"method": "POST"}),
    (True, "/acount/", {}),
    (True, "/say/", {}),
    (True, "/missing/", {}),
    (True, "/gone/", {}),
    (True, "/hello/", {}),
    (True, "/lazy-page/", {}),
    (False, "/ahello/", {"CSRF_USE_SESSIONS": False}),
    (True, "/ahello/", {"CSRF_USE_SESSIONS": True}),
    (True, "/acount/", {"SESSION_SAVE_EVERY_REQUEST": True}),
    (True, "/ahello/", {"SESSION_ENGINE": "tests.asgi.middleware"}),
    (True, "/ahello/", {"MESSAGE_STORAGE": "tests.asgi.middleware.OwnStorage"}),
    (False, "/medium/", {"MIDDLEWARE": GZIP}),
    (True, "/long/", {"MIDDLEWARE": GZIP}),
    (False, "/astream/", {"MIDDLEWARE": GZIP}),
    (False, "/ahello/", {"MIDDLEWARE": TAGS}),
    (True, "/long/", {"MIDDLEWARE": TAGS}),
    (False, "/ahello/", {"MIDDLEWARE": ["django.middleware.locale.LocaleMiddleware"]}),
    (True, "/ahello/", {"MIDDLEWARE": ["tests.asgi.middleware.OwnCsrf"]}),
    (True, "/ahello/", {"MIDDLEWARE": ["tests.asgi.middleware.Mixed"]}),
]


@scene
async def what_may_block_is_called_in_a_thread_and_nothing_else() -> None:
    for needs_thread, target, changes in MAY_BLOCK:
        method = changes.get("method", "GET")
        middleware = changes.get("MIDDLEWARE")
        rest = {name: value for name, value in changes.items() if name.isupper() and name != "MIDDLEWARE"}
        with override_settings(**rest), site(middleware=middleware) as here:
            answer = await directly(here.handler, scope(target, method))
            assert answer.status, (target, answer.error)
            assert here.pool.threads == needs_thread, (target, changes)


@scene
async def a_sync_view_is_called_in_a_thread_that_is_given_back() -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(threading.current_thread().name)

    with site(view) as here:
        seen = {(await directly(here.handler, scope("/"))).body for _ in range(20)}
        assert seen == {b"prodserve-lease-1"}
        assert (here.pool.threads, here.pool.busy) == (1, 0)


@scene
async def all_calls_of_a_request_run_in_one_thread() -> None:
    seen: list[set[int]] = []

    async def view(request: Any) -> HttpResponse:
        mine = {await in_thread() for _ in range(3)}
        await asyncio.sleep(0)
        mine |= set(await asyncio.gather(in_thread(), asyncio.create_task(in_thread())))
        await User.objects.acount()
        mine.add(await in_thread())
        seen.append(mine)
        return HttpResponse()

    names = ["tests.asgi.middleware.sync_only", *settings.MIDDLEWARE, "tests.asgi.middleware.Mixed"]
    for middleware in (settings.MIDDLEWARE, names):
        seen.clear()
        with site(view, middleware=middleware) as here:
            await asyncio.gather(*(directly(here.handler, scope("/")) for _ in range(12)))
            assert here.pool.threads <= 4
        assert len(seen) == 12
        assert all(len(each) == 1 and my_thread() not in each for each in seen), seen


@scene
async def requests_run_beside_each_other_up_to_the_limit() -> None:
    barrier = threading.Barrier(4, timeout=10)

    def view(request: Any) -> HttpResponse:
        barrier.wait()
        return HttpResponse("met")

    with site(view) as here:
        answers = await asyncio.gather(*(directly(here.handler, scope("/")) for _ in range(12)))
        assert {each.body for each in answers} == {b"met"}
        assert here.pool.threads == 4


@scene
async def connections_last_as_long_as_their_threads() -> None:
    seen: list[Any] = []

    def note() -> None:
        assert User.objects.count() == 0
        seen.append(connection.connection)

    async def view(request: Any) -> HttpResponse:
        await sync_to_async(note)()
        return HttpResponse()

    with site(view) as here:
        for _ in range(5):
            await directly(here.handler, scope("/"))
        assert len({id(each) for each in seen}) == 1
        assert seen[0] is not None
        with mock.patch.dict(connections.settings["default"], CONN_MAX_AGE=0):
            seen.clear()
            with site(view) as other:
                for _ in range(3):
                    await directly(other.handler, scope("/"))
            assert len({id(each) for each in seen}) == 3


@scene
async def an_old_connection_is_replaced_when_a_request_starts() -> None:
    seen: list[Any] = []
    opened: list[Any] = []

    def note() -> None:
        connection.ensure_connection()
        seen.append(connection.connection)
        opened.append(connections["default"])

    def age() -> None:
        """Let time pass between two requests: the connections become too old."""
        for each in opened:
            each.close_at = 0.0

    async def view(request: Any) -> HttpResponse:
        await sync_to_async(note)()
        return HttpResponse()

    async def stream(request: Any) -> StreamingHttpResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                await until(lambda: here.pool.busy == 0)
                age()
                await sync_to_async(note)()
                yield b"x"

        return StreamingHttpResponse(parts())

    for each in (view, stream):
        seen.clear()
        with site(each, limit=1) as here:
            for _ in range(3):
                await directly(here.handler, scope("/"))
                await until(lambda here=here: here.pool.busy == 0)
                age()
        assert len({id(found) for found in seen}) == len(seen) >= 3, each


@scene
async def a_query_that_a_stream_reads_stays_in_its_thread() -> None:
    """The cursor belongs to the connection of that thread."""
    busy: list[int] = []
    await User.objects.abulk_create([User(username=f"u{number}") for number in range(40)])

    async def view(request: Any) -> StreamingHttpResponse:
        async def parts() -> AsyncIterator[bytes]:
            async for user in User.objects.order_by("pk").aiterator(chunk_size=2):
                if "half" in request.GET and user.username == "u7":
                    break  # the rest is never read: the thread must come back all the same
                if "alone" in request.GET:
                    await asyncio.sleep(0.001)
                    busy.append(here.pool.busy)
                yield b"."
                await asyncio.sleep(0)
            yield b"%d" % await User.objects.acount()

        return StreamingHttpResponse(parts())

    try:
        with site(view, limit=3) as here:
            await directly(here.handler, scope("/?alone"))
            assert busy[:38] == [1] * 38  # all but the last piece of two, after which nothing is left to read
            targets = ["/", "/?half", "/", "/?half", "/", "/"]
            answers = await asyncio.gather(*(directly(here.handler, scope(each)) for each in targets))
            assert [each.error for each in answers] == [""] * 6
            assert [each.body for each in answers[:2]] == [b"." * 40 + b"40", b"." * 7 + b"40"]
            await until(lambda: here.pool.busy == 0)
    finally:
        await User.objects.all().adelete()


@scene
async def a_request_that_gets_no_thread_is_refused() -> None:
    """Nothing was sent, nothing is logged as a failure of the view, and the one that ran goes on."""
    go, calls = threading.Event(), []

    def view(request: Any) -> HttpResponse:
        calls.append(request.GET.get("n"))
        go.wait(10)
        return HttpResponse("done")

    def receiver(**named: Any) -> None:
        finished.append(my_thread())

    finished: list[int] = []
    with site(view, limit=1, patience=0.05) as here:
        for has_receiver in (False, True):
            go.clear()
            first = asyncio.ensure_future(directly(here.handler, scope("/?n=1")))
            await until(lambda: here.pool.busy == 1 and bool(calls))
            if has_receiver:
                request_finished.connect(receiver)
            answer = Answer()
            records: list[str] = []
            with (
                logged(records),
                pytest.raises(NoThreadFreeError, match=r"all threads for blocking calls \(1\) were in use"),
            ):
                await here.handler(scope("/?n=2"), Body(Empty()), answer)
            assert not records
            request_finished.disconnect(receiver)
            assert answer.status == 0
            assert len(finished) == has_receiver
            go.set()
            assert (await first).body == b"done"
        assert set(calls) == {"1"}
        assert here.pool.refused == 2
        assert (await directly(here.handler, scope("/"))).body == b"done"


@scene
async def a_request_that_is_cancelled_while_it_waits_ends_at_once() -> None:
    go = threading.Event()

    def view(request: Any) -> HttpResponse:
        go.wait(10)
        return HttpResponse("done")

    with site(view, limit=1, patience=60.0) as here:
        first = asyncio.ensure_future(directly(here.handler, scope("/")))
        await until(lambda: here.pool.busy == 1)
        second = asyncio.ensure_future(directly(here.handler, scope("/")))
        await until(lambda: here.pool.waiting == 1)
        second.cancel()
        await asyncio.wait([second])
        assert (second.cancelled(), here.pool.waiting, first.done()) == (True, 0, False)
        go.set()
        assert (await first).body == b"done"


@scene
async def a_view_that_calls_its_own_site_ends() -> None:
    loop = asyncio.get_running_loop()

    def view(request: Any) -> HttpResponse:
        if request.GET:
            return HttpResponse("inner")
        call = directly(here.handler, scope("/?inner"))
        inner = Context().run(
            asyncio.run_coroutine_threadsafe, call, loop
        )  # another request: a context of its own
        try:
            return HttpResponse(inner.result(10).body)
        except NoThreadFreeError:
            return HttpResponse("refused")

    with site(view, limit=2, patience=0.2) as here:
        assert (await directly(here.handler, scope("/"))).body == b"inner"
        calls = [directly(here.handler, scope("/")) for _ in range(4)]
        for each in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(each, NoThreadFreeError) or each.body in (b"inner", b"refused")


@scene
async def a_call_from_the_thread_itself_does_not_wait_for_itself() -> None:
    def view(request: Any) -> HttpResponse:
        other = asyncio.run(in_thread())
        assert other != my_thread()
        return HttpResponse("ran")

    with site(view, limit=2) as here:
        assert (await directly(here.handler, scope("/"))).body == b"ran"
        await until(lambda: here.pool.busy == 0)


@scene
async def nested_bridges_stay_in_the_thread() -> None:
    loop_thread = my_thread()

    async def inner() -> tuple[int, int]:
        return my_thread(), await in_thread()

    def view(request: Any) -> HttpResponse:
        on_loop, back = async_to_sync(inner)()
        assert (on_loop, back) == (loop_thread, my_thread())
        return HttpResponse("both")

    with site(view) as here:
        assert (await directly(here.handler, scope("/"))).body == b"both"


@scene
async def a_task_that_outlives_its_request_can_still_read() -> None:
    found: list[Any] = []

    async def later() -> None:
        await asyncio.sleep(0.01)
        found.append(await User.objects.acount())
        async for _ in User.objects.aiterator(chunk_size=1):
            raise AssertionError("nobody is there")

    async def view(request: Any) -> HttpResponse:
        await User.objects.acount()
        found.append(asyncio.create_task(later()))
        return HttpResponse()

    with site(view, limit=1) as here:
        await asyncio.gather(*(directly(here.handler, scope("/")) for _ in range(3)))
        await asyncio.gather(*[each for each in found if isinstance(each, asyncio.Task)])
        assert [each for each in found if isinstance(each, int)] == [0, 0, 0]
        await until(lambda: here.pool.busy == 0)
