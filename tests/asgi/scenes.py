"""What happens inside the handler: threads, connections, signals, streams, clients that leave.

Each scene runs in an event loop of its own and asserts what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import Context
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.db import connection, connections
from django.http import HttpResponse, StreamingHttpResponse
from django.middleware.security import SecurityMiddleware
from django.test import override_settings
from django.urls import path
from django.utils import timezone, translation

from django_prodserve.asgi import handler as handler_module
from django_prodserve.asgi import leases as leases_module
from django_prodserve.asgi.handler import Handler, load
from django_prodserve.asgi.leases import Leases, NoThreadFreeError
from django_prodserve.asgi.sending import AHEAD, Body

from .drive import Answer, by_messages, directly, receiving, scope
from .parity import logged

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
async def a_stream_holds_no_thread_between_its_pieces() -> None:
    """Five streams that read the database take turns on one thread."""
    busy: list[int] = []

    async def view(request: Any) -> StreamingHttpResponse:
        await User.objects.acount()

        async def parts() -> AsyncIterator[bytes]:
            for _ in range(5):
                await until(lambda: here.pool.busy == 0)
                yield b"%d" % await User.objects.acount()
                await asyncio.sleep(0)

        return StreamingHttpResponse(parts())

    with site(view, limit=1) as here:

        class Looking(Answer):
            async def write(self, data: bytes, *, last: bool) -> None:
                await until(lambda: here.pool.busy == 0)
                busy.append(here.pool.busy)
                await super().write(data, last=last)

        answers = [Looking() for _ in range(5)]
        await asyncio.gather(*(here.handler(scope("/"), Body(Empty()), each) for each in answers))
        assert {each.body for each in answers} == {b"00000"}
        assert len(busy) == 5 * 7


class Empty:
    """A body without bytes."""

    def read(self, size: int = -1) -> bytes:
        return b""

    def close(self) -> None:
        pass


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


@scene
async def a_cancelled_view_sees_it_and_the_task_ends_cancelled() -> None:
    seen: list[str] = []
    started = asyncio.Event()

    async def view(request: Any) -> HttpResponse:
        await User.objects.acount()
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("finally")
        return HttpResponse()

    with site(view) as here:
        answer = Answer()
        task = asyncio.ensure_future(here.handler(scope("/"), Body(Empty()), answer))
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
        assert (task.cancelled(), seen, answer.status) == (True, ["finally"], 0)
        await until(lambda: here.pool.busy == 0)


@scene
async def a_cancelled_call_ends_before_its_body_is_closed() -> None:
    """As Django's handler: a sync view in a thread runs to its end, and may read what was sent."""
    go, outcome = threading.Event(), []
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def view(request: Any) -> HttpResponse:
        loop.call_soon_threadsafe(started.set)
        go.wait(10)
        outcome.append(request.body)
        return HttpResponse()

    for call in (directly, by_messages):
        go.clear()
        started.clear()
        with site(view, middleware=[]) as here:
            task = asyncio.ensure_future(call(here.handler, scope("/", "POST"), b"a body"))
            await started.wait()
            task.cancel()
            loop.call_later(0.02, go.set)
            await asyncio.wait([task])
            await until(lambda: here.pool.busy == 0)
            assert outcome.pop() == b"a body"


@scene
async def a_client_that_leaves_ends_the_view() -> None:
    """By the message of another server; once, with one signal."""
    started, left = asyncio.Event(), asyncio.Event()
    seen: list[Any] = []

    async def view(request: Any) -> HttpResponse:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return HttpResponse()

    async def receive() -> Any:
        if not started.is_set():
            return {"type": "http.request"}
        await left.wait()
        return {"type": "http.disconnect"}

    async def listening() -> Any:
        if not seen:
            seen.append("read")
            return {"type": "http.request"}
        await left.wait()
        return {"type": "http.disconnect"}

    def receiver(sender: Any, **named: Any) -> None:
        seen.append(sender)

    request_finished.connect(receiver)
    try:
        with site(view) as here:
            answer = Answer()
            task = asyncio.ensure_future(here.handler(scope("/"), listening, answer.take))
            await started.wait()
            left.set()
            await task
            assert seen == ["read", "cancelled", ASGIHandler]
            assert answer.status == 0
    finally:
        request_finished.disconnect(receiver)


@scene
async def an_unknown_message_is_an_error() -> None:
    messages = [{"type": "http.request"}, {"type": "http.nonsense"}]

    async def receive() -> Any:
        return messages.pop(0)

    with site() as here, pytest.raises(AssertionError, match=r"http\.nonsense"):
        await here.handler(scope("/hello/"), receive, Answer().take)


@scene
async def a_client_that_leaves_before_its_body_is_there() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with site() as here:
        answer = Answer()
        await here.handler(scope("/hello/"), receive, answer.take)
        assert (answer.status, here.pool.threads) == (0, 0)


@scene
async def only_http_is_handled() -> None:
    with site() as here:
        answer = await directly(here.handler, {"type": "websocket", "path": "/"})
        assert answer.error.startswith("ValueError: Django can only handle ASGI/HTTP")


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
async def languages_and_time_zones_stay_with_their_requests() -> None:
    pairs = [("de", "Europe/Berlin"), ("fr", "Asia/Tokyo"), ("en", "America/Lima")] * 40
    with site() as here, translation.override("en"):
        targets = [f"/activate/?language={language}&zone={zone}" for language, zone in pairs]
        answers = await asyncio.gather(*(directly(here.handler, scope(each)) for each in targets))
        assert [each.body.decode() for each in answers] == [" ".join(pair) for pair in pairs]
        assert (translation.get_language(), timezone.get_current_timezone_name()) == ("en", "UTC")


@scene
async def a_file_is_handed_over_and_closed() -> None:
    with site() as here:
        for target in ("/afile/", "/file/"):
            answer = await directly(here.handler, scope(target), takes_files=True)
            read = await directly(here.handler, scope(target))
            assert (answer.is_complete, answer.body, read.files) == (True, read.body, [])
            assert [each.closed for each in answer.files] == [True]
        with site(middleware=["django.middleware.gzip.GZipMiddleware"]) as other:
            headers = {"Accept-Encoding": "gzip"}
            answer = await directly(other.handler, scope("/afile/", headers=headers), takes_files=True)
            assert not answer.files
            assert answer.body.startswith(b"\x1f\x8b")


@scene
async def a_sync_stream_arrives_piece_by_piece_in_one_thread() -> None:
    arrived, threads = threading.Event(), set()

    def parts() -> Iterator[str]:
        try:
            threads.add(my_thread())
            yield "first"
            assert arrived.wait(10), "the second piece was read before the first had arrived"
            threads.add(my_thread())
            yield ""
            yield "second"
        finally:
            threads.add(my_thread())

    async def view(request: Any) -> StreamingHttpResponse:
        threads.add(await in_thread())
        return StreamingHttpResponse(parts())

    class Telling(Answer):
        async def write(self, data: bytes, *, last: bool) -> None:
            await super().write(data, last=last)
            if data == b"first":
                arrived.set()

    with site(view) as here:
        answer = Telling()
        await here.handler(scope("/"), Body(Empty()), answer)
        assert (answer.pieces, answer.is_complete, len(threads)) == ([b"first", b"second"], True, 1)


@scene
async def a_sync_stream_waits_for_its_client() -> None:
    read: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(100):
            read.append(number)
            yield b"x" * (AHEAD // 4)

    async def view(request: Any) -> StreamingHttpResponse:
        return StreamingHttpResponse(parts())

    class Slow(Answer):
        async def write(self, data: bytes, *, last: bool) -> None:
            if data and not self.pieces:
                before = -1
                while before != len(read):  # until the thread stands still
                    before = len(read)
                    await asyncio.sleep(0.02)
                assert len(read) < 12, read
            await super().write(data, last=last)

    with site(view) as here:
        answer = Slow()
        await here.handler(scope("/"), Body(Empty()), answer)
        assert len(answer.body) == 100 * (AHEAD // 4)


class ClientLeftError(Exception):
    pass


class Leaving(Answer):
    """A client that goes after the first piece."""

    async def write(self, data: bytes, *, last: bool) -> None:
        if self.pieces:
            raise ClientLeftError
        await super().write(data, last=last)


@scene
async def streams_end_when_their_client_has_gone() -> None:
    """Their ``finally`` has run, the response is closed and the thread is back when the handler returns."""
    ended: list[str] = []

    def sync_parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.append("sync")

    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            ended.append("async")

    async def view(request: Any) -> StreamingHttpResponse:
        return StreamingHttpResponse(sync_parts() if request.GET else parts())

    def on_finish(**named: Any) -> None:
        ended.append("finished")

    request_finished.connect(on_finish)
    try:
        with site(view) as here:
            for target, kind in (("/?sync", "sync"), ("/", "async")):
                for answer in (Answer(), Leaving()):
                    ended.clear()
                    task = asyncio.ensure_future(here.handler(scope(target), Body(Empty()), answer))
                    await until(lambda answer=answer, task=task: bool(answer.pieces) or task.done())
                    if type(answer) is Answer:
                        task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled() or isinstance(task.exception(), ClientLeftError)
                    assert ended == [kind, "finished"], (target, ended)
                    await until(lambda: here.pool.busy == 0)
    finally:
        request_finished.disconnect(on_finish)


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


@scene
async def a_server_that_fails_to_send_frees_everything() -> None:
    async def send(message: Any) -> None:
        raise OSError("broken pipe")

    with site() as here:
        for target in ("/ahello/", "/count/", "/astream/", "/stream/", "/afile/"):
            with pytest.raises(OSError, match="broken pipe"):
                await here.handler(scope(target), receiving(b""), send)
            await until(lambda: here.pool.busy == 0)
