"""What blocks the asyncio loop of a worker, and what only delays it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import Slot
from django_prodserve.worker.asyncio_loop import CALLS, REPLACED_AFTER, AsyncioLoop, stack_of
from django_prodserve.worker.watchdog import HUNG

PATIENCE = 30.0


class Running(list[Any]):
    """The requests of the loop: as many as the list has."""

    def describe(self, task: asyncio.Task[Any]) -> str:
        return f"GET /{task.get_name()}/"


@pytest.fixture
def slot() -> Slot:
    return Scoreboard.create(None, slots=1, rows=2, now=0.0).claim()


@pytest.fixture
def loop(slot: Slot) -> Iterator[AsyncioLoop]:
    found = AsyncioLoop(slot, Running([1]), logging.getLogger("looped"))
    found.start()
    yield found
    ended = threading.Event()

    async def end() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        ended.set()

    found.run_soon(lambda: found.loop.create_task(end()))
    assert ended.wait(PATIENCE)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_task_that_two_checks_find_running_is_named(
    loop: AsyncioLoop, slot: Slot, caplog: pytest.LogCaptureFixture
) -> None:
    runs, goes_on = threading.Event(), threading.Event()

    async def report() -> None:
        runs.set()
        goes_on.wait(PATIENCE)

    loop.run_soon(lambda: loop.loop.create_task(report(), name="report"))
    assert runs.wait(PATIENCE)
    for now in (1.0, 1.2):
        loop.tick(now)
    assert not caplog.messages  # it may have begun right before the second check
    loop.tick(1.4)
    loop.tick(1.6)
    (line,) = caplog.messages
    assert line.startswith("GET /report/ blocks the asyncio loop for 0.4 s, in ")
    assert "test_asyncio_loop.py" in line
    assert slot.loop_blocked == 1
    assert slot.replacement_reason == 0
    loop.tick(1.0 + REPLACED_AFTER)
    assert slot.replacement_reason == HUNG
    goes_on.set()


def test_many_tasks_that_take_their_turns_block_nothing(
    loop: AsyncioLoop, slot: Slot, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [threading.Event() for _ in range(6)]
    taken = threading.Semaphore(0)

    async def turn(number: int) -> None:
        taken.release()
        turns[number].wait(PATIENCE)

    def begin() -> None:
        for number in range(6):
            loop.loop.create_task(turn(number))

    loop.run_soon(begin)
    for number in range(6):
        assert taken.acquire(timeout=PATIENCE)
        loop.tick(1.0 + number)  # the loop has not answered since the first of them
        turns[number].set()
    until(lambda: slot.loop_lag > 0)  # it answers when all had their turn
    assert not caplog.messages
    assert slot.loop_blocked == 0


def test_a_loop_without_requests_is_left_alone(slot: Slot) -> None:
    idle = AsyncioLoop(slot, Running(), logging.getLogger("looped"))
    idle.tick(1.0)
    idle.tick(60.0)
    assert slot.loop_lag == slot.loop_blocked == slot.replacement_reason == 0
    idle.loop.close()


def test_the_stack_of_a_task_leads_to_where_it_waits(loop: AsyncioLoop) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def inner() -> None:
        await asyncio.sleep(PATIENCE)

    async def outer() -> None:
        await inner()

    loop.run_soon(lambda: tasks.append(loop.loop.create_task(outer())))
    until(lambda: bool(tasks) and "in inner" in stack_of(tasks[0]))
    assert stack_of(tasks[0]).index("in outer") < stack_of(tasks[0]).index("in inner")


class Wrapped:
    """An awaitable of a library."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        self.wait = wait

    def __await__(self) -> Any:
        return self.wait().__await__()


def test_the_stack_leads_through_generators_and_awaitables(loop: AsyncioLoop) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def inner() -> None:
        await asyncio.sleep(PATIENCE)

    async def pieces() -> AsyncIterator[str]:
        await Wrapped(inner)
        yield ""

    async def by_loop() -> None:
        async for _ in pieces():
            pass

    async def by_next() -> None:
        await anext(pieces(), "")

    loop.run_soon(lambda: tasks.extend(map(loop.loop.create_task, (by_loop(), by_next()))))
    for number, outer in enumerate(("by_loop", "by_next")):
        until(lambda number=number: len(tasks) == 2 and "in inner" in stack_of(tasks[number]))  # type: ignore[misc]
        places = [stack_of(tasks[number]).index(f"in {name}") for name in (outer, "pieces", "inner")]
        assert places == sorted(places)


def test_a_deep_stack_is_cut_to_its_innermost_calls(loop: AsyncioLoop) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def deep(left: int) -> None:
        await (deep(left - 1) if left else asyncio.sleep(PATIENCE))

    loop.run_soon(lambda: tasks.append(loop.loop.create_task(deep(100))))
    until(lambda: bool(tasks) and "in sleep" in stack_of(tasks[0]))
    shown = CALLS - 1 - 3  # without sleep(), and Python writes three lines of a recursion
    assert f"[Previous line repeated {shown} more times]" in stack_of(tasks[0])
