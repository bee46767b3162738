"""CPU of one request in Django's ASGI handler and in ours, without a server, with startproject's middleware.

    python -m tests.bench.asgi_handler [rounds]

Rounds of the handlers alternate, so that a busy machine hits all of them. Prints the medians as microseconds
of CPU and as shares of Django's. "by messages" is ours under another server, or behind a library's wrapper.
"WSGI" is the sync view in Django's WSGI handler.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

ROUNDS, REQUESTS = 9, 100
TARGETS = {"async view": "/ahello/", "sync view": "/hello/", "session in an async view": "/acount/"}

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/hello/",
    "QUERY_STRING": "",
    "SERVER_NAME": "testserver",
    "SERVER_PORT": "80",
    "HTTP_HOST": "testserver",
    "HTTP_USER_AGENT": "tests",
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "http",
}


async def cpu(call: Callable[..., Awaitable[Any]], handler: Any, request: Any) -> float:
    """Return the microseconds of CPU of one request, threads included."""
    began = time.process_time()
    for _ in range(REQUESTS):
        answer = await call(handler, request)
        assert answer.status == 200, answer
    return (time.process_time() - began) / REQUESTS * 1e6


async def by_wsgi(handler: Any, request: Any) -> Any:
    """Call a WSGI handler with the same request; its view blocks nothing."""
    answer = SimpleNamespace()

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answer.status = int(status[:3])

    response = handler({**ENVIRON, "wsgi.input": io.BytesIO()}, start_response)
    answer.body = b"".join(response)
    response.close()
    return answer


async def main(rounds: int) -> None:
    from django.contrib.auth.models import User
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command

    from django_prodserve.asgi.handler import Handler
    from django_prodserve.asgi.leases import Leases
    from tests.asgi import drive

    await asyncio.to_thread(call_command, "migrate", verbosity=0)
    assert await User.objects.acount() == 0
    pool = Leases(8, 10.0)
    stock, ours = ASGIHandler(), Handler(pool)
    ways: dict[str, tuple[Any, Any]] = {
        "Django": (drive.by_messages, stock),
        "ours": (drive.directly, ours),
        "by messages": (drive.by_messages, ours),
        "WSGI": (by_wsgi, WSGIHandler()),
    }
    print(f"{'':26}" + "".join(f"{way:>18}" for way in ways))
    for name, target in TARGETS.items():
        seen: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, (call, handler) in ways.items():
                took = await cpu(call, handler, drive.scope(target))
                if number:  # the first round fills caches
                    seen[way].append(took)
        middle = {way: median(found) for way, found in seen.items()}
        cells = (f"{took:9.0f} us {took / middle['Django']:5.3f}" for took in middle.values())
        print(f"{name:26}" + "".join(f"{cell:>18}" for cell in cells))
    pool.close(5.0)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.asgi.settings"
        os.environ["ASGI_TESTS_DATABASE"] = os.path.join(directory, "db.sqlite3")
        import django

        django.setup()
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
