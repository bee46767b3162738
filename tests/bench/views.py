"""What is asked of every server: one row for each view."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """One kind of request."""

    name: str
    path: str
    body: int = 0  # bytes; a body is POSTed
    close: bool = False  # a new connection for each request
    crowd: int = 1  # times the connections: requests that wait come in greater numbers
    exactly: int = 0  # connections, whatever is asked for
    static: str = ""  # the file whose address the server is asked for

    def connections(self, wanted: int) -> int:
        """Return how many clients ask for it at a time."""
        return self.exactly or wanted * self.crowd

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"


VIEWS = {
    view.name: view
    for view in [
        View("hello", "/hello/"),
        View("hello-close", "/hello/", close=True),
        View("json", "/json/"),
        View("db", "/db/"),
        View("template", "/template/"),
        View("io", "/io/", crowd=2),
        View("cpu", "/cpu/"),
        View("mixed", "/mixed/", crowd=2),
        View("upload", "/upload/", body=64 * 1024),
        View("static-1k", "/where/small.css", static="small.css"),
        View("static-5m", "/where/film.mp4", static="film.mp4"),
        View("nodjango", "/nodjango/"),
        View("async-hello", "/async/hello/"),
        View("async-json", "/async/json/"),
        View("async-db", "/async/db/"),
        View("async-sleep", "/async/sleep/", exactly=200),
        View("group-send", "/group-send/"),
    ]
}
ASYNC = [name for name in VIEWS if name.startswith("async-")]
"""Of servers that have the site with async views."""
USUAL = [name for name in VIEWS if name not in {"nodjango", "group-send", *ASYNC}]
