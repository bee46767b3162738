"""As startproject makes it, with a default that must never matter, and a path whose answers are faulty."""

import os
from collections.abc import Iterator
from typing import Any

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.other_settings_that_do_not_exist")

django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/raw/":
        return faulty(environ["QUERY_STRING"].removeprefix("fault="), start_response)
    return django(environ, start_response)


def faulty(fault: str, start_response: Any) -> Any:
    """Do what a WSGI application must not."""
    if fault == "raise":
        raise RuntimeError("the view broke")
    if fault == "exit":
        raise SystemExit(3)
    if fault == "header":
        start_response("200 OK", [("A", "b\r\nC: d")])
    start_response("200 OK", [("Content-Length", "10")])
    return [b"short"] if fault == "short" else later()


def later() -> Iterator[bytes]:
    yield b"some"
    raise RuntimeError("the view broke")
