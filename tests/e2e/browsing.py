"""A real browser, headless: Debian's or anybody's Chromium with the chromedriver of the same version."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .needs import need_package, need_program
from .serving import PATIENCE

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but this machine is reached
)
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}

ELSEWHERE = re.compile(r"https?://(?!127\.0\.0\.1)")

# Everything that the page asked for, as the browser saw it; the document itself included.
REQUESTS = """
const seen = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
return seen.map((e) => ({
  url: e.name, status: e.responseStatus, transferred: e.transferSize,
  encoded: e.encodedBodySize, decoded: e.decodedBodySize, by: e.initiatorType}));
"""
# Sheets without a rule did not arrive, or were not taken for stylesheets; so did images without a size.
BROKEN = """
const here = (url) => url.startsWith(`${arguments[0]}/`);
const sheets = [...document.querySelectorAll("link[rel=stylesheet]")];
const images = [...document.images].filter((e) => e.loading !== "lazy");
return [
  ...sheets.filter((e) => here(e.href) && !e.disabled && !e.sheet),
  ...images.filter((e) => here(e.src) && !(e.complete && e.naturalWidth))].map((e) => e.outerHTML);
"""


class Browser:
    """A window, and what the page in it says about itself."""

    def __init__(self, driver: Chrome, address: str, pictures: Path) -> None:
        self.driver, self.address, self.pictures = driver, address, pictures

    def forget(self) -> None:
        """Become a browser that was never here: no cookies, no storage, no cache."""
        self.driver.get("about:blank")
        for command in ("Network.clearBrowserCookies", "Network.clearBrowserCache"):
            self.driver.execute_cdp_cmd(command, {})
        everything = {"origin": self.address, "storageTypes": "all"}
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", everything)
        self.size(DESKTOP)

    def open(self, path: str) -> None:
        """Go to a page and wait until all that it asks for is there."""
        self.driver.get(self.address + path)
        self.settle()

    def settle(self) -> None:
        """Wait until the page has loaded and asks for nothing more."""
        self.wait(lambda: self.script("return document.readyState") == "complete", "the page to load")

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds, and return what it returned."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(
            lambda _: condition(), f"waited for {what}"
        )

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def leave_by(self, act: Callable[[], object]) -> None:
        """Do what leads to another page, and wait for that one."""
        self.script("window.isOld = true")
        act()
        # No document at all, for a moment, is one more way to be not there yet.
        self.wait(lambda: self.script("return !window.isOld && document.body !== null"), "another page")
        self.settle()

    def log_in(self, path: str, username: str, password: str) -> None:
        """Fill in the form of an admin."""
        self.open(path)
        self.find("[name=username]").send_keys(username)
        self.find("[name=password]").send_keys(password)
        self.leave_by(self.find("[name=password]").submit)

    def style(self, selector: str, name: str) -> str:
        """Return what the stylesheets made of an element."""
        return str(
            self.script("return getComputedStyle(arguments[0])[arguments[1]]", self.find(selector), name)
        )

    def size(self, metrics: dict[str, Any]) -> None:
        """Make the window a desktop's or a phone's."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def picture(self, name: str) -> Path:
        """Keep a picture of the window."""
        path = self.pictures / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path

    def requests(self) -> list[dict[str, Any]]:
        """Return every request of this page."""
        return list(self.script(REQUESTS))

    def problems(self) -> list[str]:
        """Return a line for each file of this site that failed, each error in the console, each gap.

        Other sites are out of reach here, and only some projects have the icon that every browser looks for.
        """
        here = [request for request in self.requests() if request["url"].startswith(f"{self.address}/")]
        lines = [f"{resource['url']}: {resource['status']}" for resource in here if resource["status"] != 200]
        complaints = [
            entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"
        ]
        lines += [text for text in complaints if not ELSEWHERE.search(text)]
        lines = [text for text in lines if not text.startswith(f"{self.address}/favicon.ico")]
        return lines + [f"broken: {url}" for url in self.script(BROKEN, self.address)]


@contextlib.contextmanager
def browsing(address: str, tmp_path: Path) -> Iterator[Browser]:
    """Open a window of a browser that has never been anywhere; in the end nothing of it is left."""
    need_package("selenium")
    chromium, driver_path = need_program("chromium"), need_program("chromedriver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'browser'}"):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    environ = os.environ | {"HOME": str(tmp_path), "SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
    driver = Chrome(options=options, service=Service(executable_path=driver_path, env=environ))
    family = psutil.Process(driver.service.process.pid).children(recursive=True)
    try:
        browser = Browser(driver, address, tmp_path)
        browser.size(DESKTOP)
        yield browser
    finally:
        driver.quit()
        _, alive = psutil.wait_procs(family, timeout=PATIENCE)
        for process in alive:
            process.kill()
