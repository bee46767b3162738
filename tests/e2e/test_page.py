"""The live page in a real browser: under load, a replacement, a reload, and while there is no server."""

from __future__ import annotations

import calendar
import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest

from .browsing import DESKTOP, Browser, browsing
from .management import MANAGEMENT, address, ask
from .serving import SITE, Server, at_work, copy_site, run, serving, until

pytestmark = pytest.mark.stock

SMALL = {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
HOSTILE = "/named/<img/src=x/onerror=document.title='owned'><script>document.title='owned'</script>?seconds=5"

# How many values each line of each chart has, and how many pixels of its canvas are painted.
PAINTED = """
return CHARTS.map(({title, plot}) => {
  const {width, height} = plot.ctx.canvas;
  const pixels = plot.ctx.getImageData(0, 0, width, height).data;
  let painted = 0;
  for (let at = 3; at < pixels.length; at += 4) painted += pixels[at] > 0;
  return {title, painted, values: plot.data.map((line) => line.filter((value) => value !== null).length)};
});
"""
ROWS = """
const rows = [...document.querySelector(arguments[0]).tBodies[0].rows];
return rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
"""
NEGATIVE = "return CHARTS.flatMap(({plot}) => plot.data.flat()).filter((value) => value < 0)"
# The least contrast (WCAG 2) of a text with what lies behind it, over all elements with a text of their own.
CONTRAST = """
const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const light = (...layers) => {
  for (const layer of layers) { paint.fillStyle = layer; paint.fillRect(0, 0, 1, 1); }
  const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3)
    .map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (const layers = []; ; element = element.parentElement) {
    layers.unshift(getComputedStyle(element).backgroundColor);
    if (element === document.body) return layers;
  }
};
const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
const seen = (element) => own(element) && element.checkVisibility();
return [...document.body.querySelectorAll("*")].filter(seen).map((each) => {
  const layers = behind(each);
  const [low, high] = [light(...layers), light(...layers, getComputedStyle(each).color)].sort();
  return [(high + 0.05) / (low + 0.05), each.tagName + " " + each.textContent.slice(0, 40)];
}).sort((a, b) => a[0] - b[0])[0];
"""


@contextlib.contextmanager
def load(server: Server, *more: str) -> Iterator[None]:
    """Ask for pages, good and bad ones, until the block ends."""

    def work(over: threading.Event) -> None:
        while not over.is_set():
            for path in ("/", "/slow/?seconds=0.05", "/nowhere/", *more):
                with contextlib.suppress(OSError):  # a worker is killed meanwhile
                    server.get(path)

    with at_work(work, 3):
        yield


def text(browser: Browser, selector: str) -> str:
    return str(browser.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector))


def prefer(browser: Browser, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def assert_readable(browser: Browser, name: str) -> None:
    """Nothing is wider than the window, and no text is faint."""
    browser.picture(name)
    assert browser.script("return document.documentElement.scrollWidth - innerWidth") <= 0
    least, where = browser.script(CONTRAST)
    assert least >= 4.5, where


def assert_says_what_to_do(browser: Browser) -> None:
    """Each finding has its time or its minute, an action, and where there is more."""
    (killed,) = [finding for finding in findings(browser) if "was killed" in finding]
    assert re.match(r"\d\d:\d\d:\d\d UTC: Worker \d+ was killed", killed)
    assert "Find out which process or user sent SIGKILL" in killed
    assert killed.endswith(" More: prodserve help killed")
    (errors,) = [finding for finding in findings(browser) if "(5xx)" in finding]
    assert re.match(r"[\d.]+ % of responses in the last minute are errors \(5xx\): [\d,]+ of [\d,]+", errors)
    assert errors.endswith(" More: prodserve help logs")


def findings(browser: Browser) -> list[str]:
    found = browser.script("return [...document.querySelectorAll('#verdict p')].map((e) => e.textContent)")
    return [str(mark) for mark in found]


def assert_says_who_it_is(browser: Browser, server: Server) -> None:
    header = text(browser, "header")
    assert all(word in header for word in (socket.gethostname(), f"127.0.0.1:{server.port}", str(SITE)))
    assert all(word in header for word in (f"Django {django.get_version()}", "prodserve ", "times in UTC"))
    assert re.search(r" · up \d+ s · generation 1 loaded \d+ s ago", header)


def test_overload_is_said_at_once_with_what_to_do_and_read_out_once(env: Any, tmp_path: Path) -> None:
    """In a time zone that is not UTC, with all times in UTC."""
    flags = (*MANAGEMENT, "--workers", "1", "--threads", "2", "--queue-timeout", "0.1")

    def hurry(over: threading.Event) -> None:
        while not over.is_set():
            if server.get("/slow/?seconds=0.2").status == 503:
                over.wait(0.01)

    with (
        serving(*flags, env=env()) as server,
        browsing(f"http://{address(server)}", tmp_path) as browser,
    ):
        browser.driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
        browser.open("/")
        browser.wait(lambda: "Serving normally" in text(browser, "#spoken"), "the first verdict")
        browser.script(LISTEN)
        with at_work(hurry, 30):
            overloaded = r"Overloaded since (\d\d:\d\d):\d\d UTC: [\d,]+ requests/s are rejected with 503, "
            browser.wait(lambda: re.match(overloaded, text(browser, "#verdict .bad")), "the verdict")
            match = re.match(overloaded, text(browser, "#verdict .bad"))
            assert match is not None
            assert abs(time.time() - seconds_of(match[1])) % 86400 < 180
            assert "More: prodserve help overload" in text(browser, "#verdict .bad")
            slow = r"; 100 % of the time goes to the route shop\.urls\.slow \(\d{3} ms a request\)"
            browser.wait(lambda: re.search(slow, text(browser, "#verdict .bad")), "the route that is slow")
            browser.wait(lambda: "Rejected/s" in text(browser, "#tiles > div:first-child"), "the tile")
            browser.wait(lambda: "overload" in text(browser, "#events .kind.bad"), "the event")
            shown = text(browser, "#verdict .bad")
            browser.wait(lambda: text(browser, "#verdict .bad") != shown, "another rate")
            assert text(browser, "#advice") == ""
            browser.picture("overload")
        over = r"\d\d:\d\d:\d\d UTC: Overload over after .* requests rejected"
        browser.wait(lambda: re.match(over, text(browser, "#verdict .warn")), "its end")
        assert "overload over" in text(browser, "#events")
        spoken = browser.script("return window.heard")
        assert 1 <= len(spoken) <= 6, spoken  # one for each kind, and none for each second
        kinds = browser.script("return window.kinds")
        assert len(spoken) == len(kinds)
        assert browser.script("return document.querySelectorAll('[role=status], [aria-live]').length") == 1
        assert browser.problems() == []


def test_the_end_of_a_certificate_is_shown(env: Any, certificate: Path, tmp_path: Path) -> None:
    """The certificate of these tests lives for two days."""
    pair = (f"--certfile={certificate}/cert.pem", f"--keyfile={certificate}/key.pem")
    with (
        serving(*MANAGEMENT, *pair, "--workers", "1", env=env()) as server,
        browsing(f"http://{address(server)}", tmp_path) as browser,
    ):
        browser.open("/")
        shown = r" · certificate of localhost valid until 20\d\d-\d\d-\d\d$"
        browser.wait(lambda: re.search(shown, text(browser, "#server")), "the day")
        ends = r"The certificate of localhost \(\S+\) expires on \S+, in \d+ h"
        browser.wait(lambda: re.match(ends, text(browser, "#verdict .warn")), "the warning")
        assert "More: prodserve help certificate expires" in text(browser, "#verdict .warn")
        assert browser.problems() == []


def seconds_of(moment: str) -> int:
    """Return the time of a minute of today, in UTC, in seconds since 1970."""
    day = time.strftime("%Y-%m-%d ", time.gmtime())
    return calendar.timegm(time.strptime(day + moment, "%Y-%m-%d %H:%M"))


# Every text that a screen reader is given, and the kinds of findings of that moment.
LISTEN = """
window.heard = [];
window.kinds = [];
const spoken = document.getElementById("spoken");
new MutationObserver(() => {
  window.heard.push(spoken.textContent);
  if (window.kinds.at(-1) !== spoken.dataset.kinds) window.kinds.push(spoken.dataset.kinds);
}).observe(spoken, { childList: true });
"""


def test_the_page_during_load_and_a_replacement(env: Any, tmp_path: Path) -> None:
    flags = (*MANAGEMENT, "--workers", "2", "--threads", "4", "--slow-request", "1s")
    with (
        serving(*flags, env=env()) as server,
        browsing(f"http://{address(server)}", tmp_path) as browser,
        load(server, "/boom/"),
    ):
        browser.open("/")
        victim = server.workers(2)[0]
        until(lambda: len(ask(server, "/history.json").json()) > 5)
        hostile = threading.Thread(target=server.get, args=[HOSTILE])
        hostile.start()
        browser.wait(lambda: HOSTILE.partition("?")[0] in text(browser, "#workers"), "the running request")
        browser.wait(lambda: "in named" in text(browser, "#events"), "the slow request's stack")
        hostile.join()
        os.kill(victim, signal.SIGKILL)
        browser.wait(lambda: f"Worker {victim} was killed" in text(browser, "#verdict"), "the verdict")
        browser.wait(lambda: f"Worker {victim} was killed" in text(browser, "#events"), "the event")
        until(lambda: len(server.workers(2)) == 2)
        browser.wait(lambda: text(browser, "#workers tbody").count("serving") == 2, "the new worker")

        charts = browser.script(PAINTED)
        assert [chart["title"] for chart in charts] == [
            "Requests each second",
            "Latency (log scale)",
            "Threads and queue",
            "Memory",
        ]
        *requests, room = charts[0]["values"]
        assert room == 0  # not known in the first seconds
        for values in (requests, charts[1]["values"], charts[2]["values"]):
            assert all(count > 3 for count in values), charts
        for chart in charts:
            assert chart["painted"] > 1000, chart
        _, _, limited, machine = charts[3]["values"]
        assert min(limited, machine) == 0 < max(limited, machine)
        assert ("(machine)" in text(browser, "#tiles")) == (machine > 0)
        assert float(text(browser, "#tiles .value").replace(",", "")) > 0
        assert "Requests/s" in text(browser, "#tiles")
        assert "Limit" in text(browser, "#workers thead")
        limits = (
            "return [...document.querySelectorAll('#workers td[data-label=Limit]')].map((e) => e.innerText)"
        )
        assert {*browser.script(limits)} <= {"1", "2", "3", "4"}
        assert len(browser.script(limits)) == 2
        assert text(browser, "#main-decisions").count("set explicitly") >= 2

        assert_says_what_to_do(browser)
        assert_says_who_it_is(browser, server)
        failed = text(browser, "#errors tbody tr")
        assert all(word in failed for word in ("500", "GET /boom/", "shop.urls.boom", "RuntimeError"))
        assert browser.script("return document.querySelector('#plan').open") is False
        (slow,) = [row for row in browser.script(ROWS, "#routes") if row[0] == "shop.urls.slow"]
        assert all(map(re.fullmatch, (r"[\d.]+ %", r"[\d,]+", r"\d+ ms", r"[\d.]+ m?s"), slow[1:])), slow
        assert "/nowhere/" not in text(browser, "#routes")
        assert "no route" in text(browser, "#routes")

        assert "owned" not in browser.driver.title
        assert browser.script("return document.querySelectorAll('main img, main script').length") == 0
        event = "Slow request: GET " + HOSTILE.partition("?")[0]
        assert event in text(browser, "#events")

        assert "in named, shop/urls.py line " in text(browser, "#events")
        browser.script("for (const each of document.querySelectorAll('details')) each.open = true")
        colours = set()
        for scheme in ("light", "dark"):
            prefer(browser, scheme)
            for window, metrics in (("desktop", DESKTOP), ("phone", SMALL)):
                browser.size(metrics)
                browser.wait(
                    lambda: browser.script(
                        "return CHARTS.every(({plot, place}) => plot.width === place.clientWidth)"
                    ),
                    "the charts to fit",
                )
                assert_readable(browser, f"{scheme}-{window}")
            colours.add(browser.style("body", "backgroundColor"))
        assert len(colours) == 2
        assert browser.problems() == []
        assert all(request["url"].startswith(browser.address) for request in browser.requests())


def test_the_page_survives_reload_and_restart_and_rests_when_hidden(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(*MANAGEMENT, env=env(), cwd=site) as server:
        where = address(server)
        with browsing(f"http://{where}", tmp_path) as browser:
            browser.open("/")
            with load(server):
                browser.wait(lambda: "Serving normally: " in text(browser, "#verdict"), "the verdict")
                assert "generation 1" in text(browser, "#server")
                assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 0
                browser.wait(lambda: "generation 2" in text(browser, "#server"), "the new generation")
                browser.wait(lambda: "Generation 2 serves" in text(browser, "#events"), "its event")
                assert "Generation 1 serves" in text(browser, "#events")
                browser.wait(lambda: "/s" in text(browser, "#verdict .ok"), "rates after the reload")
                assert browser.script(NEGATIVE) == []
            assert browser.problems() == []

            asked = (
                "return performance.getEntriesByType('resource').filter(({name}) => /live/.test(name)).length"
            )
            browser.script(VISIBLE, "hidden")
            browser.script("window.rested = false; setTimeout(() => window.rested = true, 2500)")
            before = browser.script(asked)
            browser.wait(lambda: browser.script("return window.rested"), "a rest")
            assert browser.script(asked) <= before + 1  # one may have been under way
            browser.script(VISIBLE, "visible")
            browser.wait(lambda: browser.script(asked) > before + 1, "another question")

            assert server.stop() == 0
            browser.wait(lambda: "No server answers here since" in text(browser, "#verdict .bad"), "the end")
            assert "no server" in browser.driver.title
            browser.picture("gone")
            with serving("--management-bind", where, env=env(), cwd=site):
                browser.wait(lambda: "generation 1" in text(browser, "#server"), "the new server")
                browser.wait(lambda: "Serving normally" in text(browser, "#verdict .ok"), "its verdict")
                browser.wait(lambda: "Generation 2" not in text(browser, "#events"), "its own events")


VISIBLE = """
Object.defineProperty(document, "visibilityState", {value: arguments[0], configurable: true});
document.dispatchEvent(new Event("visibilitychange"));
"""


def test_nothing_of_the_page_may_load_or_be_framed_from_elsewhere(env: Any) -> None:
    with serving(*MANAGEMENT, env=env()) as server:
        for path in ("/", "/page.js", "/page.css", "/icon.svg", "/uPlot.iife.min.js", "/uPlot.min.css"):
            answer = ask(server, path)
            assert answer.status == 200
            policy = {*answer.headers["content-security-policy"].split("; ")}
            assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} < policy
            assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} < policy
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert server.get(path).body != answer.body
