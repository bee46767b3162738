"""What a browser makes of it: stylesheets apply, scripts run, nothing is missing, forms work."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .browsing import DESKTOP, PHONE, Browser, browsing
from .needs import need_package
from .serving import Server, environment, run, serving
from .stock import KEEPER, STOCK, Made

pytestmark = pytest.mark.stock

SHOP = Path(__file__).parents[2] / "example_project"
BLUE = "rgb(65, 118, 144)"

# An element of the last page of each project, and what the stylesheets make of it: no browser's own choice.
LOOKS = {
    "startproject": ("#header", "backgroundColor", BLUE),
    "wagtail": ("#header", "backgroundColor", BLUE),
    "unfold": ("body", "fontFamily", "Inter, sans-serif"),
    "jazzmin": ("aside", "backgroundColor", "rgb(52, 58, 64)"),
    "grappelli": ("body", "fontFamily", "Arial, sans-serif"),
    "debug-toolbar": ("#header", "backgroundColor", BLUE),
    "rest-framework": (".navbar", "position", "fixed"),
    "django-cms": ("#header", "backgroundColor", BLUE),
}

IN_VIEW = "const it = arguments[0].getBoundingClientRect(); return it.top >= 0 && it.bottom <= innerHeight"


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_project_looks_right(stock: Callable[[str], Made], tmp_path: Path, name: str) -> None:
    made = stock(name)
    selector, style, wanted = LOOKS[name]
    with serving(env=made.env, cwd=made.directory) as server, browsing(server.address, tmp_path) as browser:
        browser.log_in(made.stock.login, *KEEPER)
        for number, path in enumerate(made.stock.pages):
            browser.open(path)
            assert_whole(browser)
            browser.picture(f"{name}-{number}")
        assert browser.style(selector, style) == wanted
        browser.open(made.stock.pages[0])
        assert_nothing_is_asked_for_twice(browser)


def assert_whole(browser: Browser) -> None:
    """Nothing of this page failed, and its stylesheets and scripts came compressed."""
    problems = browser.problems()
    assert not problems, "\n".join([browser.driver.current_url, *problems])
    texts = [
        static_request
        for static_request in static_requests(browser)
        if static_request["url"].endswith((".css", ".js"))
    ]
    assert texts
    assert [text for text in texts if text["decoded"] > 1000 and text["encoded"] >= text["decoded"]] == []


def static_requests(browser: Browser) -> list[dict[str, Any]]:
    return [
        request for request in browser.requests() if request["url"].startswith(f"{browser.address}/static/")
    ]


def assert_nothing_is_asked_for_twice(browser: Browser) -> None:
    """A page seen before finds its files in the browser's cache, without a question to the server."""
    assert static_requests(browser)
    assert [
        static_request["url"] for static_request in static_requests(browser) if static_request["transferred"]
    ] == []


@pytest.fixture(scope="module")
def shop_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fill the shelves of the example project, once."""
    need_package("dj_database_url", "PIL")
    data = tmp_path_factory.mktemp("shop")
    done = run(
        "manage.py", "migrate", "-v", "0", env=environment(data, {"BOOKSHOP_DATA": str(data)}), cwd=SHOP
    )
    assert done.returncode == 0, done.stderr
    return data


@contextlib.contextmanager
def open_shop(data: Path, pictures: Path) -> Iterator[tuple[Server, Browser]]:
    """Serve the example project and open a browser for it."""
    env = environment(pictures, {"BOOKSHOP_DATA": str(data)})
    with serving(env=env, cwd=SHOP) as server, browsing(server.address, pictures) as browser:
        yield server, browser


@pytest.fixture(scope="module")
def shared_shop(shop_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_shop(shop_data, tmp_path_factory.mktemp("pictures")) as (_, browser):
        yield browser


@pytest.fixture
def shop(shared_shop: Browser) -> Browser:
    """Give a browser that has never been in the shop."""
    shared_shop.forget()
    return shared_shop


@pytest.mark.parametrize(("window", "metrics"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_every_page_of_the_shop_is_whole(shop: Browser, window: str, metrics: dict[str, Any]) -> None:
    shop.size(metrics)
    for path in (
        "/",
        "/?q=sea",
        "/?q=nothingatall",
        "/books/emma/",
        "/basket/",
        "/recommendations/",
        "/template",
    ):
        shop.open(path)
        assert_whole(shop)
        shop.picture(f"{window}-{path.strip('/?').replace('/', '-').replace('=', '-') or 'front'}")
        too_wide = "return document.documentElement.scrollWidth - innerWidth"
        assert shop.script(too_wide) <= 0, path
        assert shop.style(".brand", "fontFamily") == shop.style("h1", "fontFamily") != ""
    shop.open("/")
    assert_nothing_is_asked_for_twice(shop)


def test_the_lamp_switches_and_remembers(shop: Browser) -> None:
    shop.open("/")
    before = shop.style("body", "backgroundColor")
    shop.find(".lamp").click()
    after = shop.style("body", "backgroundColor")
    assert {before, after} == {"rgb(251, 247, 238)", "rgb(20, 24, 26)"}
    shop.open("/basket/")
    assert shop.style("body", "backgroundColor") == after
    shop.picture("the-other-light")
    assert_whole(shop)


def test_titles_are_suggested_and_found(shop: Browser) -> None:
    shop.open("/")
    shop.find("#q").send_keys("emma")
    options = "return [...document.querySelectorAll('#suggestions option')].map((e) => e.value)"
    assert "Emma" in shop.wait(lambda: shop.script(options), "suggestions")
    shop.leave_by(shop.find("#q").submit)
    assert "Emma" in shop.find(".books").text
    assert shop.find("h1").text.startswith("“emma”")
    assert_whole(shop)


def test_the_courier_answers_on_the_page(shop: Browser) -> None:
    shop.open("/books/emma/")
    shop.find(".quote").click()
    shop.wait(lambda: "Penny Post: £3.20" in shop.find("output").text, "the courier")
    assert_whole(shop)


def test_a_book_goes_into_the_basket(shop: Browser) -> None:
    shop.open("/books/emma/")
    shop.leave_by(shop.find(".editions button").click)
    assert shop.find(".count").text == "1"
    assert "Emma" in shop.find(".lines").text
    shop.picture("basket")
    shop.leave_by(shop.find(".lines .quiet").click)
    assert "It is empty" in shop.find("main").text
    assert_whole(shop)


def test_a_review_with_a_photo_is_published(shop: Browser, tmp_path: Path) -> None:
    from PIL import Image

    photo = tmp_path / "my copy.png"
    Image.effect_noise((900, 600), 80).save(photo)
    shop.open("/books/emma/")
    shop.find("[name=name]").send_keys("Ada")
    shop.find("[name=stars] option[value='5']").click()
    shop.find("[name=text]").send_keys("Read it twice, <b>once</b> aloud.")
    shop.find("[name=photo]").send_keys(str(photo))
    shop.leave_by(shop.find("#review button").click)
    assert "Thank you" in shop.find(".message").text
    assert shop.script(IN_VIEW, shop.find(".message"))
    assert "Read it twice, <b>once</b> aloud." in shop.find(".review").text
    width = "const it = document.querySelector('.review img'); it.scrollIntoView(); return it.naturalWidth"
    assert shop.wait(lambda: shop.script(width), "the photo") == 900
    shop.picture("review")
    assert_whole(shop)


def test_a_review_that_is_incomplete_says_so(shop: Browser) -> None:
    shop.open("/books/emma/")
    shop.script("document.querySelector('#review').noValidate = true")
    shop.leave_by(shop.find("#review button").click)
    assert "This field is required" in shop.find(".errorlist").text
    shop.picture("incomplete")
    assert_whole(shop)


def test_ctrl_c_ends_it_while_a_browser_keeps_connections_open(shop_data: Path, tmp_path: Path) -> None:
    with open_shop(shop_data, tmp_path) as (server, browser):
        browser.open("/")
        began = time.monotonic()
        assert server.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 10  # far below the 25 s that a request in work would get
        assert "Traceback" not in server.output
