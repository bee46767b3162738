"""Many requests on both roads at a time: none sees the state of another, and none waits for ever."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from .management import MANAGEMENT, ask
from .serving import PATIENCE, Server, serving, until

Env = Callable[..., dict[str, str]]
pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 50, 70
"""3,500 requests; each on the loop has two more tasks and a call to a thread: 10,000 contexts in all."""
LANGUAGES = ("de", "fr", "nl", "es", "pt-br")
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/Lima", "Africa/Cairo")
SESSIONS = ["django.contrib.sessions.middleware.SessionMiddleware"]
POLLS = 1000
LEASED = 4


class Client:
    """A connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""
        self.writer: asyncio.StreamWriter | None = None

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {self.cookie}\r\n\r\n".encode())
        head, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(head.split()[1]), headers, body

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def project(env: Env, *middleware: str) -> dict[str, str]:
    return env(
        ROOT_URLCONF="shop.isolation_urls",
        WSGI_APPLICATION=None,
        INSTALLED_APPS=["django_prodserve"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=[*SESSIONS, "django.middleware.common.CommonMiddleware", *middleware],
    )


async def requests_of_one(port: int, number: int) -> int:
    """Send requests of one visitor; return how many answers were those of this request alone."""
    client, chance, right = Client(port), random.Random(number), 0
    _, headers, _ = await client.get(f"/name/?name=visitor-{number}")
    client.cookie = headers["set-cookie"].partition(";")[0]
    for each in range(REQUESTS):
        language, zone, own = chance.choice(LANGUAGES), chance.choice(ZONES), f"{number}-{each}"
        road, change = chance.choice([("loop", "loop"), ("loop", "thread"), ("thread", "")])
        asked = f"language={language}&zone={zone}&own={own}&change={change}"
        status, headers, body = await client.get(f"/{road}/?{asked}")
        assert status == 200
        answer: dict[str, Any] = json.loads(body)
        expected = [language, zone, own, headers["x-request-id"], f"visitor-{number}"]
        wrong = [found for found in answer["seen"] if found != expected]
        assert not wrong, (road, change, expected, wrong)
        assert answer.get("before") in (None, ["en-us", "America/Chicago", ""])
        right += 1
    client.close()
    return right


def test_no_request_sees_the_language_time_zone_or_session_of_another(env: Env) -> None:
    async def all_of_them(port: int) -> list[int]:
        return await asyncio.gather(*(requests_of_one(port, number) for number in range(CLIENTS)))

    flags = ("--workers", "1", "--threads", "8", "--queue-timeout", "0")
    with serving(*flags, env=project(env)) as server:
        assert asyncio.run(all_of_them(server.port)) == [REQUESTS] * CLIENTS


def state(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = ask(server, "/status.json").json()["workers"][0]
    return found


def test_long_polls_behind_a_sync_only_middleware_are_refused_and_stop_nobody(env: Env) -> None:
    async def poll(port: int) -> int:
        client = Client(port)
        try:
            return (await client.get("/nap/?seconds=4"))[0]
        finally:
            client.close()

    async def others(port: int, over: asyncio.Event) -> int:
        client, count = Client(port), 0
        while not over.is_set():
            assert (await client.get("/"))[2] == b"hello"
            count += 1
            await asyncio.sleep(0.01)
        client.close()
        return count

    async def all_of_them(port: int) -> tuple[list[int], int, int]:
        over = asyncio.Event()
        beside = asyncio.create_task(others(port, over))
        polls = [asyncio.create_task(poll(port)) for _ in range(POLLS)]
        await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        threads = await asyncio.to_thread(psutil.Process(pid).num_threads)
        statuses = await asyncio.wait_for(asyncio.gather(*polls), 2 * PATIENCE)
        over.set()
        return statuses, await beside, threads

    flags = ("--workers", "1", "--threads", str(LEASED), "--queue-timeout", "1")
    more = ("--worker-connections", "2000", *MANAGEMENT)
    with serving(*flags, *more, env=project(env, "shop.isolation_urls.sync_only")) as server:
        (pid,) = server.workers()
        assert server.get("/nap/?seconds=0").status == 200
        statuses, count, threads = asyncio.run(all_of_them(server.port))
        assert statuses.count(200) >= LEASED
        assert {*statuses} == {200, 503}
        assert count > 10  # sync views were served meanwhile
        assert threads <= 2 * LEASED + 6  # threads, leased threads, and those of the worker itself
        until(lambda: state(server)["async"] == state(server)["loop"]["leases_busy"] == 0)
        assert state(server)["loop"]["leases_waiting"] == 0
        assert server.get("/nap/?seconds=0").status == 200
