"""What happens inside the handler when clients wait, read slowly or leave, and to streams and files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone, translation

from django_prodserve.asgi.sending import AHEAD, Body

from .drive import Answer, by_messages, directly, receiving, scope
from .scene import Empty, in_thread, my_thread, scene, site, until


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
async def djangos_handler_runs_with_the_objects_of_the_worker() -> None:
    """Where its source is not as tested, and any other application."""
    started, seen = asyncio.Event(), []

    async def view(request: Any) -> HttpResponse:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")
        return HttpResponse()

    with site():
        for target, status in (("/ahello/", 200), ("/long/", 200), ("/missing/", 404), ("/astream/", 200)):
            answer = await directly(ASGIHandler(), scope(target))
            assert (answer.status, answer.is_complete, answer.error) == (status, True, "")
        answer = await directly(ASGIHandler(), scope("/echo/", "POST"), b"a body")
        assert answer.body == b"a body"
    with site(view):
        body, answer = Body(Empty()), Answer()
        task = asyncio.ensure_future(ASGIHandler()(scope("/"), body, answer))
        await started.wait()
        body.disconnect()
        await task
        assert (seen, answer.status) == (["ended"], 0)


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
async def a_server_that_fails_to_send_frees_everything() -> None:
    async def send(message: Any) -> None:
        raise OSError("broken pipe")

    with site() as here:
        for target in ("/ahello/", "/count/", "/astream/", "/stream/", "/afile/"):
            with pytest.raises(OSError, match="broken pipe"):
                await here.handler(scope(target), receiving(b""), send)
            await until(lambda: here.pool.busy == 0)
