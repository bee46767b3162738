"""The example project's live page in a real browser: feed and chat, through a reload of the server."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browsing import Browser, browsing
from .needs import need_package
from .serving import Server, environment, run, serving

pytestmark = pytest.mark.stock

SHOP = Path(__file__).parents[2] / "example_project"
REVIEWS = "return [...document.querySelectorAll('.feed li p')].map((e) => e.textContent)"
TALK = "return [...document.querySelectorAll('.talk li')].map((e) => e.textContent)"
PUBLISH = """
const [path, text, done] = arguments;
(async () => {
  const page = new DOMParser().parseFromString(await (await fetch(path)).text(), "text/html");
  const form = new FormData(page.querySelector("#review"));
  for (const [name, value] of Object.entries({ name: "Ada", stars: "5", text })) form.set(name, value);
  form.delete("photo");
  done((await fetch(path, { method: "POST", body: form })).status);
})();
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the example project."""
    need_package("dj_database_url", "PIL", "channels", "websockets")
    data = tmp_path_factory.mktemp("shop")
    env = environment(data, {"BOOKSHOP_DATA": str(data)})
    assert run("manage.py", "migrate", "-v", "0", env=env, cwd=SHOP).returncode == 0
    with serving(env=env, cwd=SHOP) as server:
        yield server


@pytest.fixture
def visitor(shop: Server, tmp_path: Path) -> Iterator[Browser]:
    """Open the reading room in a browser."""
    with browsing(shop.address, tmp_path) as browser:
        browser.open("/reading-room/")
        yield browser


def publish(browser: Browser, text: str) -> None:
    assert browser.driver.execute_async_script(PUBLISH, "/books/emma/", text) == 200


def test_reviews_appear_while_one_watches_and_none_is_lost_in_a_reload(
    shop: Server, visitor: Browser
) -> None:
    publish(visitor, "before")
    visitor.wait(lambda: visitor.script(REVIEWS)[0] == "before", "the first review")
    reload(shop)
    publish(visitor, "after")
    visitor.wait(lambda: visitor.script(REVIEWS)[:2] == ["after", "before"], "the second review")
    visitor.picture("feed")
    assert not visitor.problems()


def test_a_chat_goes_on_through_a_reload(shop: Server, visitor: Browser) -> None:
    from websockets.sync.client import connect

    address = shop.address.replace("http", "ws") + "/reading-room/chat/"
    is_at_the_table = "return document.querySelector('.state').textContent.includes('at the table')"
    visitor.wait(lambda: visitor.script(is_at_the_table), "the chat")
    with connect(address, origin=shop.address) as other:
        say(visitor, "Ada", "Good evening.")
        assert json.loads(other.recv(20))["text"] == "Good evening."
        other.send(json.dumps({"name": "Ben", "text": "And to <i>you</i>."}))
        expected = ["Ada Good evening.", "Ben And to <i>you</i>."]
        visitor.wait(lambda: visitor.script(TALK) == expected, "the answer")
        reload(shop)
        for _ in itertools.takewhile(lambda _: other.close_code is None, other):
            pass
        assert other.close_code == 1012
    say(visitor, "Ada", "Still here?")  # into a connection that may just be on its way
    with connect(f"{address}?after=0", origin=shop.address) as other:
        said = [json.loads(other.recv(20))["text"] for _ in range(3)]
        assert said[-1] == "Still here?"
    visitor.wait(lambda: visitor.script(TALK) == [*expected, "Ada Still here?"], "the third remark")
    visitor.picture("chat")


def test_a_page_of_another_site_cannot_join_the_chat(shop: Server) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    address = shop.address.replace("http", "ws") + "/reading-room/chat/"
    with pytest.raises(InvalidStatus) as refused, connect(address, origin="https://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def say(browser: Browser, name: str, text: str) -> None:
    form = browser.find(".say")
    field = form.find_element("css selector", "[name=name]")
    field.clear()
    field.send_keys(name)
    form.find_element("css selector", "[name=text]").send_keys(text)
    form.find_element("css selector", "button").click()


def reload(server: Server) -> None:
    """Replace all workers, and wait until the new ones serve."""
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("Reloaded in")
