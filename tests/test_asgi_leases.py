"""Threads that are leased to requests: one for each, bounded, given back whatever happens."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.db import close_old_connections

from django_prodserve.asgi import leases
from django_prodserve.asgi.floating import floating_lease
from django_prodserve.asgi.leases import Lease, Leases, NoThreadFreeError
from django_prodserve.utils import fork_guard

Scene = Callable[[Leases], Awaitable[None]]


def play(scene: Scene, *, limit: int = 2, patience: float = 10.0) -> None:
    """Run a scene with a pool; every thread of it must end."""
    pool = Leases(limit, patience)
    try:
        asyncio.run(asyncio.wait_for(scene(pool), 20))
        assert pool.waiting == 0
    finally:
        assert pool.close(5.0)
    assert pool.threads == pool.busy == 0
    assert not [each for each in threading.enumerate() if each.name.startswith("prodserve-lease")]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def call(lease: Lease, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    return asyncio.wrap_future(lease.submit(function, *args))


def name() -> str:
    return threading.current_thread().name


def test_the_asgiref_that_is_here_is_known() -> None:
    assert leases.why_not() == ""


def test_a_thread_is_taken_with_the_first_call_and_is_the_same_for_all() -> None:
    async def scene(pool: Leases) -> None:
        lease = pool.lend()
        assert (pool.threads, lease.is_taken) == (0, False)
        seen = {await call(lease, name) for _ in range(5)}
        seen |= set(await asyncio.gather(*(call(lease, name) for _ in range(5))))
        assert seen == {"prodserve-lease-1"}
        assert (pool.threads, pool.busy, lease.is_taken) == (1, 1, True)
        lease.release(settled=True)
        assert (pool.threads, pool.busy, lease.is_taken) == (1, 0, False)

    play(scene)


def test_the_thread_used_last_is_taken_first() -> None:
    async def scene(pool: Leases) -> None:
        first, second = pool.lend(), pool.lend()
        names = [await call(first, name), await call(second, name)]
        assert len({*names}) == 2
        first.release(settled=True)
        second.release(settled=True)
        third = pool.lend()
        assert await call(third, name) == names[1]
        third.release()

    play(scene)


def test_who_waits_longest_gets_the_next_thread() -> None:
    async def scene(pool: Leases) -> None:
        holding = pool.lend()
        await call(holding, name)
        order: list[int] = []
        waiting = [pool.lend() for _ in range(3)]
        calls = [call(lease, order.append, number) for number, lease in enumerate(waiting)]
        calls.append(call(waiting[0], order.append, 10))
        assert (pool.waiting, pool.busy) == (3, 1)
        holding.release(settled=True)
        for lease, done in zip(waiting, calls, strict=False):
            await done
            lease.release()
        await asyncio.gather(*calls)
        assert order == [0, 10, 1, 2]

    play(scene, limit=1)


def test_begin_and_settle_frame_each_stay_in_a_thread() -> None:
    async def scene(pool: Leases) -> None:
        seen: list[str] = []
        lease = pool.lend(lambda: seen.append("begin"), lambda: seen.append("settle"))
        lease.release()
        assert seen == []
        lease = pool.lend(lambda: seen.append("begin"), lambda: seen.append("settle"))
        await call(lease, seen.append, "a")
        await call(lease, seen.append, "b")
        lease.release()
        await until(lambda: pool.busy == 0)
        assert seen == ["begin", "a", "b", "settle"]
        seen.clear()
        await call(lease, seen.append, "c")  # it floats now
        await until(lambda: pool.busy == 0)
        assert seen == ["begin", "c", "settle"]

    play(scene)


def test_what_was_settled_is_not_settled_again() -> None:
    async def scene(pool: Leases) -> None:
        seen: list[str] = []
        lease = pool.lend(settle=lambda: seen.append("settle"))
        await call(lease, name)
        lease.release(settled=True)
        assert pool.busy == 0
        other = pool.lend()
        await call(other, name)  # in the same thread, after all that came before
        other.release()
        assert seen == []

    play(scene, limit=1)


def test_a_call_after_the_end_of_the_request_is_settled_too() -> None:
    """Of a task that outlives its request, or that was still running when it ended."""

    async def scene(pool: Leases) -> None:
        seen: list[str] = []
        go = threading.Event()
        lease = pool.lend(settle=lambda: seen.append("settle"))
        await call(lease, name)
        running = call(lease, go.wait, 10)
        lease.release(settled=True)
        go.set()
        await running
        await until(lambda: pool.busy == 0)
        assert seen == ["settle"]
        lease.release(settled=True)
        await call(lease, name)
        await until(lambda: pool.busy == 0)
        assert seen == ["settle"] * 2

    play(scene)


def test_calls_in_progress_end_before_the_thread_goes_back() -> None:
    async def scene(pool: Leases) -> None:
        go, seen = threading.Event(), []
        lease = pool.lend(settle=lambda: seen.append("settle"))
        calls = [call(lease, go.wait, 10), call(lease, seen.append, "second")]
        lease.release()
        assert pool.busy == 1
        go.set()
        await asyncio.gather(*calls)
        await until(lambda: pool.busy == 0)
        assert seen == ["second", "settle"]

    play(scene)


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("a"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_call_raises_goes_to_its_caller(error: BaseException) -> None:
    async def scene(pool: Leases) -> None:
        lease = pool.lend()
        future: Future[Any] = lease.submit(raising, error)
        await until(future.done)
        assert future.exception() is error
        assert await call(lease, name) == "prodserve-lease-1"
        lease.release()

    play(scene)


def test_a_failing_begin_fails_the_call_and_a_failing_settle_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene(pool: Leases) -> None:
        lease = pool.lend(
            begin=lambda: raising(ValueError("begin")), settle=lambda: raising(ValueError("settle"))
        )
        with pytest.raises(ValueError, match="begin"):
            await call(lease, name)
        assert await call(lease, name) == "prodserve-lease-1"
        lease.release()
        await until(lambda: pool.busy == 0)

    play(scene)
    assert "could not be settled" in caplog.text


def test_no_thread_in_time_is_a_refusal_for_all_that_waits() -> None:
    async def scene(pool: Leases) -> None:
        holding, late = pool.lend(), pool.lend()
        await call(holding, name)
        calls = [call(late, name), call(late, name)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found] == [NoThreadFreeError] * 2
        assert (late.was_refused, late.is_taken, pool.waiting, pool.refused) == (True, False, 0, 1)
        holding.release(settled=True)
        assert await call(late, name) == "prodserve-lease-1"  # the next call may try again
        late.release()

    play(scene, limit=1, patience=0.02)


def test_no_code_takes_a_refusal_for_an_error() -> None:
    assert not issubclass(NoThreadFreeError, Exception)


def test_a_call_that_got_its_thread_is_not_refused_later() -> None:
    async def scene(pool: Leases) -> None:
        holding, late = pool.lend(), pool.lend()
        await call(holding, name)
        go = threading.Event()
        waiting = call(late, go.wait, 10)
        holding.release(settled=True)
        await asyncio.sleep(0.05)  # longer than its patience: the timer fires, and finds nothing
        assert not waiting.done()
        again = call(late, name)
        go.set()
        assert await waiting is True
        assert await again == "prodserve-lease-1"
        late.release()

    play(scene, limit=1, patience=0.02)


@pytest.mark.parametrize("withdraws", [True, False])
def test_a_call_that_was_cancelled_while_it_waited_does_not_run(withdraws: bool) -> None:
    async def scene(pool: Leases) -> None:
        holding, late = pool.lend(), pool.lend()
        await call(holding, name)
        ran: list[int] = []
        waiting = call(late, ran.append, 1)
        await late.withdraw()
        assert pool.waiting == 1  # it still waits for something
        waiting.cancel()
        if withdraws:
            await late.withdraw()
            assert (pool.waiting, late.is_taken) == (0, False)
        else:
            await asyncio.wait([waiting])
            await asyncio.sleep(0)
        late.release()
        holding.release(settled=True)
        await until(lambda: pool.busy == 0)
        assert ran == []

    play(scene, limit=1)


def test_a_closed_pool_ends_its_threads_and_takes_no_more() -> None:
    async def scene(pool: Leases) -> None:
        go, idle, busy = threading.Event(), pool.lend(), pool.lend()
        running = call(busy, go.wait, 10)
        await call(idle, name)
        idle.release(settled=True)
        assert not pool.close(0.01)
        await until(lambda: pool.threads == 1)
        with pytest.raises(RuntimeError, match="have been closed"):
            pool.lend().submit(name)
        go.set()
        await running
        busy.release()
        await until(lambda: pool.threads == 0)

    play(scene)


def test_a_thread_that_cannot_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(pool: Leases) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(
                threading.Thread, "start", lambda self: raising(RuntimeError("can't start new thread"))
            )
            with pytest.raises(RuntimeError, match="can't start"):
                pool.lend().submit(name)
        assert (pool.threads, pool.busy) == (0, 0)
        lease = pool.lend()
        assert await call(lease, name)
        lease.release()

    play(scene)


def test_a_call_from_its_own_thread_gets_another_one() -> None:
    async def scene(pool: Leases) -> None:
        lease = pool.lend()

        def inner() -> str:
            found: str = lease.submit(name).result(10)
            return found

        assert await call(lease, inner) == "prodserve-lease-2"
        await until(lambda: pool.busy == 1)
        lease.release()

    play(scene)


def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Thing:
        pass

    async def scene(pool: Leases) -> None:
        lease = pool.lend()
        thing = Thing()
        seen = weakref.ref(thing)
        await call(lease, lambda each: each, thing)
        lease.release(settled=True)
        del thing, lease
        await until(lambda: seen() is None)

    gc.collect()
    gc.disable()  # no help from the collector
    try:
        play(scene)
    finally:
        gc.enable()


def read(query: Iterator[int]) -> tuple[int, str]:
    return next(query), name()


def numbers() -> Iterator[int]:
    yield from range(3)


async def floating(pool: Leases) -> Lease:
    lease = pool.lend()
    lease.release()
    return lease


def test_a_floating_lease_returns_its_thread_after_each_call() -> None:
    async def scene(pool: Leases) -> None:
        with (await floating(pool)).entered():
            for _ in range(3):
                assert await sync_to_async(name)() == "prodserve-lease-1"
                await until(lambda: pool.busy == 0)

    play(scene)


@pytest.mark.parametrize("is_read", [True, False], ids=["read to its end", "dropped"])
def test_a_query_keeps_its_thread_until_it_ends(is_read: bool) -> None:
    """Its cursor belongs to the connection of one thread."""

    async def scene(pool: Leases) -> None:
        with (await floating(pool)).entered():
            query = numbers()
            threads = {(await sync_to_async(read)(query))[1] for _ in range(2)}
            other = pool.lend()
            assert await call(other, name) not in threads
            assert pool.busy == 2
            if is_read:
                await sync_to_async(list)(query)  # type: ignore[arg-type]
            else:
                del query
                gc.collect()  # Python 3.10 leaves it in a cycle
            await until(lambda: pool.busy == 1)
            other.release()

    play(scene)


def test_asgiref_uses_the_lease_in_the_task_and_in_those_it_starts() -> None:
    async def scene(pool: Leases) -> None:
        lease = pool.lend()
        with lease.entered():
            task = asyncio.create_task(sync_to_async(name)())
            assert await sync_to_async(name)() == await task == "prodserve-lease-1"
        assert SyncToAsync.thread_sensitive_context.get(None) is None
        lease.release()
        assert not await sync_to_async(lambda: name().startswith("prodserve"))()

    play(scene)


def test_asgiref_forgets_the_lease_with_its_context() -> None:
    async def request(pool: Leases) -> None:
        lease = pool.lend()
        with lease.entered():
            await sync_to_async(name)()
        lease.release()

    async def scene(pool: Leases) -> None:
        before = len(SyncToAsync.context_to_thread_executor)
        for _ in range(5):
            await asyncio.create_task(request(pool))
        deadline = time.monotonic() + 5.0  # less than the patience of the pool
        while len(SyncToAsync.context_to_thread_executor) > before:  # a thread has just ended its last call
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
            gc.collect()

    play(scene)


def test_many_leases_at_once_never_share_a_thread_and_stay_in_the_limit() -> None:
    async def scene(pool: Leases) -> None:
        using: dict[str, Lease] = {}
        lock = threading.Lock()

        def work(lease: Lease) -> None:
            with lock:
                assert using.setdefault(name(), lease) is lease

        async def request(number: int) -> None:
            lease = pool.lend()
            for _ in range(3):
                await call(lease, work, lease)
                await asyncio.sleep(0)
            with lock:
                using.pop(next(each for each, user in using.items() if user is lease))
            lease.release(settled=number % 2 == 0)

        await asyncio.gather(*(request(number) for number in range(200)))
        await until(lambda: pool.busy == 0)
        assert pool.threads <= 7

    play(scene, limit=7)


def test_a_floating_lease_keeps_its_order_and_no_thread() -> None:
    async def scene(pool: Leases) -> None:
        seen: list[str] = []
        lease = pool.lend(lambda: seen.append("begin"), lambda: seen.append("settle"), floats=True)
        calls = [call(lease, seen.append, str(number)) for number in range(3)]
        await asyncio.gather(*calls)
        await until(lambda: pool.busy == 0)
        assert seen == ["begin", "0", "1", "2", "settle"]
        await call(lease, seen.append, "3")
        await until(lambda: pool.busy == 0)
        assert seen[5:] == ["begin", "3", "settle"]

    play(scene)


def test_floating_leases_share_few_threads_and_wait_as_long_as_it_takes() -> None:
    async def scene(pool: Leases) -> None:
        meets = threading.Barrier(2, timeout=20)
        holding = [pool.lend(floats=True, patience=math.inf) for _ in range(2)]
        both = [call(lease, meets.wait) for lease in holding]
        waiting = [pool.lend(floats=True, patience=math.inf) for _ in range(20)]
        late = [call(lease, name) for lease in waiting]
        refused = pool.lend()
        await asyncio.gather(*both)
        assert {*await asyncio.gather(*late)} <= {"prodserve-lease-1", "prodserve-lease-2"}
        assert await call(refused, name)
        refused.release()

    play(scene, limit=2, patience=10.0)


def test_a_lease_without_a_thread_needs_none_to_close_old_connections() -> None:
    async def scene(pool: Leases) -> None:
        lease = floating_lease(pool)
        with lease.entered():
            await sync_to_async(close_old_connections)()
            assert pool.threads == 0
            assert (await sync_to_async(name)()).startswith("prodserve-lease-")
            calls = [sync_to_async(time.sleep)(0.1), sync_to_async(close_old_connections)()]
            await asyncio.gather(*calls)  # the second one runs in the thread of the first
        await until(lambda: pool.busy == 0)

    play(scene)


def test_the_sync_code_of_a_websocket_runs_by_its_lease() -> None:
    async def scene(pool: Leases) -> None:
        meets = threading.Barrier(2, timeout=20)

        async def websocket() -> None:
            with floating_lease(pool).entered():
                for _ in range(3):
                    await sync_to_async(meets.wait)()  # only two threads can pass it

        await asyncio.gather(websocket(), websocket())
        await until(lambda: pool.busy == 0)

    play(scene)


def test_a_copy_that_a_call_forks_ends_although_another_thread_held_the_lock() -> None:
    """That thread is not in the copy, so nobody would release the lock there."""
    held, has_ended, copies = threading.Event(), threading.Event(), list[int]()

    def forks() -> int:
        assert held.wait(20)
        copies.append(os.fork())
        if not copies[0]:
            fork_guard.PROCESS.is_copy = True
            running[0].set_result = os._exit  # type: ignore[method-assign]  # as fork_guard.mark arranges it
            return 7
        code = os.waitstatus_to_exitcode(os.waitpid(copies[0], 0)[1])
        has_ended.set()
        return code

    running: list[Future[int]] = []

    async def scene(pool: Leases) -> None:
        lease = pool.lend()
        running.append(lease.submit(forks))
        with pool._lock:
            held.set()
            if not has_ended.wait(10):
                os.kill(copies[0], signal.SIGKILL)
        assert await asyncio.wrap_future(running[0]) == 7
        lease.release()

    play(scene)
