"""A Channels project with groups over Redis: a real browser hears what views and other workers send."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .browsing import browsing
from .needs import need_package, need_program
from .postgres import free_port
from .serving import PATIENCE, copy_site, serving, until

pytestmark = pytest.mark.stock

ASGI = """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

pages = get_asgi_application()


class News(AsyncWebsocketConsumer):
    groups = ["news"]

    async def connect(self):
        await self.accept()
        await self.send(f"hello {self.scope['user'].is_anonymous} from {os.getpid()}")

    async def receive(self, text_data):
        await self.channel_layer.group_send("news", {"type": "news", "text": text_data})

    async def news(self, event):
        await self.send(event["text"])


sockets = AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter([path("news/", News.as_asgi())])))
application = ProtocolTypeRouter({"http": pages, "websocket": sockets})
"""
VIEWS = '''

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

PAGE = """<!doctype html><html><head><title>News</title></head><body><ul></ul><script>
const open = () => {
  const socket = new WebSocket("/news/".replace(/^/, `ws://${location.host}`));
  socket.onmessage = ({ data }) => document.querySelector("ul").append(
    Object.assign(document.createElement("li"), { textContent: data }));
  socket.onclose = open;
  window.say = (text) => socket.send(text);
};
open();
</script></body></html>"""


def page(request):
    return HttpResponse(PAGE)


def publish(request, text):
    async_to_sync(get_channel_layer().group_send)("news", {"type": "news", "text": text})
    return HttpResponse(str(os.getpid()))


async def publish_later(request, text):
    await get_channel_layer().group_send("news", {"type": "news", "text": text})
    return HttpResponse(str(os.getpid()))


urlpatterns += [path("news-page/", page), path("publish/<str:text>/", publish)]
urlpatterns += [path("publish-later/<str:text>/", publish_later)]
'''
HEARD = "return [...document.querySelectorAll('li')].map((e) => e.textContent)"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    """Run a Redis of our own; give its port."""
    need_package("channels", "channels_redis")
    port = free_port()
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen([need_program("redis-server"), *where], stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(port))
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(b"PING\r\n")
        return client.recv(100).startswith(b"+PONG")
    return False


def connections(port: int) -> int:
    """Return how many clients Redis has."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client, client.makefile("rb") as answer:
        client.sendall(b"INFO clients\r\n")
        for line in answer:
            if line.startswith(b"connected_clients:"):
                return int(line.split(b":")[1])
    raise AssertionError("no such line")


def test_a_group_reaches_a_browser_from_every_worker_and_both_kinds_of_views(
    env: Callable[..., dict[str, str]], tmp_path: Path, redis: int
) -> None:
    site = copy_site(tmp_path, VIEWS)
    (site / "shop" / "asgi.py").write_text(ASGI)
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer"}
    layers = {"default": layer | {"CONFIG": {"hosts": [["127.0.0.1", redis]]}}}
    settings = env(
        WSGI_APPLICATION=None, ASGI_APPLICATION="shop.asgi.application", CHANNEL_LAYERS=layers, SITE_ID=1
    )
    with (
        serving("--workers", "2", "--threads", "4", "--migrate", env=settings, cwd=site) as server,
        browsing(server.address, tmp_path / "browser") as browser,
    ):
        browser.open("/news-page/")
        browser.wait(lambda: len(browser.script(HEARD)) == 1, "the socket")
        assert browser.script(HEARD)[0].startswith("hello True from ")
        browser.script("say('from the page')")
        browser.wait(lambda: browser.script(HEARD)[1:] == ["from the page"], "its own words")
        with ThreadPoolExecutor(8) as pool:
            paths = [f"/publish{kind}/{n}/" for n in range(40) for kind in ("", "-later")]
            assert len({answer.text for answer in pool.map(server.get, paths)}) == 2
        expected = sorted(2 * [str(n) for n in range(40)])
        browser.wait(lambda: sorted(browser.script(HEARD)[2:]) == expected, "all news")
        # Each worker's loop has a pool: as many connections as calls at the same time, not one for each call.
        assert connections(redis) <= 30
        server.get("/publish/last/")
        browser.wait(lambda: browser.script(HEARD)[-1] == "last", "the last news")
        assert not browser.problems()
