"""The lifespan of an application: its startup, what it stores, how it fails, its shutdown."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_prodserve.errors import ProdserveError
from django_prodserve.worker import lifespan
from django_prodserve.worker.lifespan import Lifespan

Make = Callable[..., Lifespan]
LATER = 30.0


@pytest.fixture
def make() -> Iterator[Make]:
    """Give a function that makes the lifespan of an application, on a loop in a thread as in a worker."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    log = logging.getLogger("tests.lifespan")

    def make_one(application: Any, state: dict[str, Any] | None = None) -> Lifespan:
        return Lifespan(application, "shop.asgi.application", {} if state is None else state, loop, log)

    yield make_one
    tasks = asyncio.run_coroutine_threadsafe(cancel_all(), loop)
    tasks.result(LATER)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def always() -> bool:
    return True


async def whole(scope: Any, receive: Any, send: Any) -> None:
    scope["state"]["seen"] = [(await receive())["type"]]
    await send({"type": "lifespan.startup.complete"})
    scope["state"]["seen"].append((await receive())["type"])
    await send({"type": "lifespan.shutdown.complete"})


def test_startup_and_shutdown_with_what_the_application_stores(make: Make) -> None:
    state: dict[str, Any] = {}
    found = make(whole, state)
    found.start(always)
    assert state == {"seen": ["lifespan.startup"]}
    found.stop(time.monotonic() + LATER)
    assert state == {"seen": ["lifespan.startup", "lifespan.shutdown"]}


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize(
    "application",
    [returns, get_asgi_application(), ProtocolTypeRouter({"http": get_asgi_application()})],
    ids=["returns", "Django", "Channels"],
)
def test_what_has_no_lifespan_is_served_in_silence(
    make: Make, application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = make(application)
    found.start(always)
    found.stop(time.monotonic() + LATER)
    assert caplog.records == []


def test_an_application_that_breaks_at_its_startup_is_reported(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("there is no queue")

    make(breaks).start(always)
    assert "shop.asgi.application raised on lifespan.startup. The worker serves" in caplog.text
    assert "there is no queue" in caplog.text


async def fails(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    message = "Traceback (most recent call last):\n  ...\nValueError: there is no queue\n"
    await send({"type": "lifespan.startup.failed", "message": message})


async def fails_as_starlette(scope: Any, receive: Any, send: Any) -> None:
    try:
        raise ValueError("there is no queue")
    except ValueError:
        await fails(scope, receive, send)
        raise


async def exits(scope: Any, receive: Any, send: Any) -> None:
    raise SystemExit("there is no queue")


@pytest.mark.parametrize(
    ("application", "where"), [(fails, ""), (fails_as_starlette, "test_lifespan.py, line"), (exits, "line")]
)
def test_a_failed_startup_is_an_error_with_its_reason(make: Make, application: Any, where: str) -> None:
    with pytest.raises(ProdserveError) as caught:
        make(application).start(always)
    assert caught.value.message.startswith("The lifespan startup of shop.asgi.application failed: ")
    assert caught.value.message.endswith("there is no queue")
    assert where in caught.value.where
    assert caught.value.hint


def test_a_failure_without_a_message_is_a_sentence(make: Make) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(ProdserveError, match=r"The lifespan startup of shop.asgi.application failed\.\n"):
        make(silent).start(always)


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def test_a_startup_that_takes_too_long_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan, "STARTUP_SECONDS", 0.1)
    with pytest.raises(ProdserveError, match="did not complete within") as caught:
        make(hangs).start(always)
    assert "timeout" in caught.value.hint


def test_a_worker_that_must_stop_waits_for_no_startup(make: Make) -> None:
    found = make(hangs)
    found.start(lambda: False)
    found.stop(time.monotonic() + LATER)


async def never_shuts(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await asyncio.Event().wait()


async def shuts_badly(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await receive()


async def refuses_to_shut(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})


async def breaks_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await receive()
    raise ValueError("the queue broke")


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (never_shuts, "The lifespan shutdown of shop.asgi.application did not complete within"),
        (shuts_badly, ""),
        (refuses_to_shut, "The lifespan shutdown of shop.asgi.application failed: the queue is not empty"),
        (breaks_late, "ValueError: the queue broke"),
    ],
)
def test_a_shutdown_that_goes_wrong_is_logged(
    make: Make, application: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = make(application)
    found.start(always)
    found.stop(time.monotonic() + (0.05 if application is never_shuts else LATER))
    assert words in caplog.text
    assert bool(words) == bool(caplog.text)
