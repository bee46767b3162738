"""A small project with real static files, and a client that speaks WSGI to it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from django.test import override_settings

from django_prodserve.staticfiles import StaticFiles, choose_static, prepare_static

DEFAULT_STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STYLE = "body { background: url('img/dot.svg') }\n" + "p { margin: 0 }\n" * 100
FILES = {
    "site.css": STYLE,
    "app.js": "console.log('hello');\n" * 60,
    "img/dot.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "photo.png": "x",
}


class Project:
    """One project below a directory: its sources, its settings, and what prodserve makes of them."""

    def __init__(self, place: Path, monkeypatch: Any, stack: contextlib.ExitStack) -> None:
        self.place, self.source, self.cache = place, place / "assets", place / "cache"
        self.stack = stack
        self.write(FILES)
        monkeypatch.setenv("XDG_CACHE_HOME", str(self.cache))
        self.settings(
            BASE_DIR=place,
            STATICFILES_DIRS=[self.source],
            STATIC_URL="static/",
            STATIC_ROOT=None,
            STORAGES=DEFAULT_STORAGES,
        )

    def write(self, files: dict[str, str | bytes], *, below: Path | None = None) -> None:
        for name, content in files.items():
            path = (below or self.source) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def settings(self, **changes: Any) -> None:
        self.stack.enter_context(override_settings(**changes))

    def prepare(self, **wishes: Any) -> StaticFiles:
        files = prepare_static(choose_static(**wishes))
        self.stack.callback(files.undo)
        return files

    def builds(self) -> set[Path]:
        return set(self.cache.glob("django-prodserve/*/*"))


class Answer:
    """What a request came back with."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = int(status.split()[0]), dict(headers), body
        self.line = status
        assert len(headers) == len(self.headers), f"a header twice: {headers}"


def ask(application: Any, path: str, method: str = "GET", **environ: str) -> Answer:
    """Send one request through wsgiref's validator, which knows the rules of WSGI."""
    said: list[Any] = []
    request: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "SERVER_NAME": "localhost"}
    request |= {"SCRIPT_NAME": "", "QUERY_STRING": "", "HTTP_HOST": "localhost", **environ}
    request["wsgi.input"] = io.BytesIO()
    setup_testing_defaults(request)

    def start_response(status: str, headers: list[tuple[str, str]], error: Any = None) -> Any:
        said[:] = [status, headers]
        return said.append

    body = validator(application)(request, start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()
    return Answer(said[0], said[1], content)


def django(environ: Any, start_response: Any) -> list[bytes]:
    """Stand where Django would: what reaches it is no static file."""
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"django"]


@contextlib.contextmanager
def a_project(place: Path, monkeypatch: Any) -> Any:
    """Yield a project whose settings are in force, and take every trace of it away."""
    with contextlib.ExitStack() as stack:
        yield Project(place, monkeypatch, stack)
