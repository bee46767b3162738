"""The same requests to Django's own handler and to ours, once by messages and once as the worker calls it."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import django
from django.conf import settings
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.test import override_settings

from django_prodserve.asgi.handler import Handler
from django_prodserve.asgi.leases import Leases

from . import drive

TOKEN = "t" * 32
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"


def part(name: str, content: str, filename: str = "") -> str:
    file = f'; filename="{filename}"' if filename else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{content}\r\n'


@dataclass
class Case:
    """Requests of one client after each other; cookies are kept."""

    requests: list[dict[str, Any]]
    middleware: list[str] = field(default_factory=list)
    first: list[str] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)


def case(
    target: str, *targets: str, middleware: Any = (), first: Any = (), changes: Any = None, **more: Any
) -> Case:
    requests = [{"target": each, **more} for each in (target, *targets)]
    return Case(requests, list(middleware), list(first), changes or {})


def post(
    target: str,
    body: str,
    kind: str = FORM,
    *,
    method: str = "POST",
    token: str = TOKEN,
    cookie: str = TOKEN,
    changes: Any = None,
    **headers: str,
) -> Case:
    headers |= {"Content-Type": kind, "Content-Length": str(len(body.encode()))}
    headers |= {"X-CSRFToken": token} if token else {}
    headers |= {"Cookie": f"csrftoken={cookie}"} if cookie else {}
    return case(target, method=method, body=body, headers=headers, changes=changes)


def mine(*names: str) -> list[str]:
    return [f"tests.asgi.middleware.{name}" for name in names]


GZIP = ["django.middleware.gzip.GZipMiddleware"]
CONDITIONAL = ["django.middleware.http.ConditionalGetMiddleware"]
LOCALE = ["django.middleware.locale.LocaleMiddleware"]
ATOMIC = {"DATABASES": {"default": {"ATOMIC_REQUESTS": True}}}
ACCEPTS = {"Accept-Encoding": "gzip"}

CASES = {
    "async view": case("/ahello/?name=a%20b"),
    "sync view": case("/hello/?name=a%20b"),
    "class-based async view": case("/things/7/"),
    "class-based view, method not allowed": post("/things/7/", "", method="PUT"),
    "class-based view, OPTIONS": case("/things/7/", method="OPTIONS"),
    "delete without a token": case("/things/7/", method="DELETE"),
    "delete with a token": post("/things/7/", "", method="DELETE"),
    "session written by sync views": case("/count/", "/count/", "/acount/"),
    "session written by async views": case("/acount/", "/acount/", "/flush/", "/acount/"),
    "session saved at every request": case(
        "/acount/", "/ahello/", changes={"SESSION_SAVE_EVERY_REQUEST": True}
    ),
    "cookie of a session that is gone": case("/ahello/", "/count/", headers={"Cookie": "sessionid=x"}),
    "session in a signed cookie": case(
        "/acount/", "/count/", changes={"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"}
    ),
    "messages": case("/say/", "/ahello/", "/page/", "/page/"),
    "messages in the session": case(
        "/say/",
        "/page/",
        changes={"MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage"},
    ),
    "messages shown by a lazy page": case("/say/", "/lazy-page/", "/page/"),
    "page": case("/page/"),
    "lazy page changed by a middleware": case("/lazy-page/", middleware=mine("Mixed")),
    "form": case("/form/"),
    "form of an async view": case("/aform/", "/aform/"),
    "post with a token in the form": post("/form/", f"csrfmiddlewaretoken={TOKEN}&a=1&a=2", token=""),
    "post with a token in the header": post("/aform/", "a=1"),
    "post with a wrong token": post("/form/", "a=1", token="u" * 32),
    "post without a cookie": post("/aform/", "a=1", cookie=""),
    "post from another origin": post("/aform/", "a=1", Origin="https://evil.example"),
    "token in the session": post("/form/", "a=1", changes={"CSRF_USE_SESSIONS": True}),
    "page with a token in the session": case("/form/", "/form/", changes={"CSRF_USE_SESSIONS": True}),
    "post of JSON": post("/echo/", '{"a": "é"}', "application/json", token=""),
    "empty post": post("/echo/", ""),
    "too many fields": post("/form/", "&".join(f"a{n}=1" for n in range(30))),
    "too large a form": post("/aform/", "a=" + "1" * 20_000),
    "upload in memory": post(
        "/upload/", part("f", "short", "a.txt") + part("n", "1") + "--x--\r\n", MULTIPART
    ),
    "upload in a file": post("/upload/", part("f", "long" * 2000, "b.txt") + "--x--\r\n", MULTIPART),
    "broken upload": post("/upload/", "--x\r\nnonsense", MULTIPART),
    "failing async view": case("/afail/"),
    "failing sync view": case("/fail/"),
    "failing view with DEBUG": case("/ahello/", "/missing/", changes={"DEBUG": True}),
    "failure handled by a middleware": case("/afail/?handle", "/fail/?handle", middleware=mine("Mixed")),
    "no route": case("/nowhere/"),
    "raised 404": case("/missing/"),
    "raised 403": case("/denied/"),
    "suspicious": case("/suspicious/"),
    "error status of a view": case("/gone/"),
    "missing slash": case("/ahello?a=1"),
    "missing slash of a post": case("/aform", method="POST"),
    "www is prepended": case("/ahello", changes={"PREPEND_WWW": True}),
    "https is required": case("/ahello/", changes={"SECURE_SSL_REDIRECT": True}),
    "HSTS": case("/ahello/", scheme="https", changes={"SECURE_HSTS_SECONDS": 60}),
    "redirect": case("/redirect/"),
    "login required": case("/private/"),
    "user": case("/who/"),
    "file of an async view": case("/afile/"),
    "file of a sync view": case("/file/"),
    "file in memory": case("/memory-file/"),
    "204": case("/nothing/"),
    "view without a response": case("/none/"),
    "long body": case("/long/"),
    "HEAD": case("/ahello/", "/long/", method="HEAD"),
    "headers and cookies": case("/headers/"),
    "invalid header": case("/bad-header/"),
    "ETag": case("/ahello/", middleware=CONDITIONAL),
    "ETag of a long body": case("/long/", middleware=CONDITIONAL),
    "not modified": case("/conditional/", headers={"If-None-Match": '"a-tag"'}),
    "not modified by the middleware": case(
        "/gone/", "/ahello/", middleware=CONDITIONAL, headers={"If-None-Match": 'W/"x", *'}
    ),
    "gzip": case("/long/", "/medium/", "/ahello/", first=GZIP, headers=ACCEPTS),
    "gzip not accepted": case("/long/", first=GZIP),
    "gzip of streams": case("/astream/", "/async-view-sync-stream/", first=GZIP, headers=ACCEPTS),
    "wrong Host": case("/ahello/", headers={"Host": "evil.example"}),
    "no Host": case("/ahello/", headers={"Host": ""}),
    "query that is no text": case("/ahello/?name=\xff"),
    "async stream": case("/astream/"),
    "async stream of a sync view": case("/sync-view-async-stream/"),
    "sync stream": case("/stream/"),
    "sync stream of an async view": case("/async-view-sync-stream/"),
    "broken async stream": case("/broken-astream/"),
    "broken sync stream": case("/broken-stream/"),
    "answer of a middleware": case("/ahello/?early", "/hello/?early", middleware=mine("Mixed")),
    "answer instead of a view": case("/ahello/?instead", middleware=mine("Mixed")),
    "failing middleware": case("/ahello/?raise", "/ahello/?late", middleware=mine("Mixed")),
    "failing middleware, outermost": case("/ahello/?raise", "/ahello/?late", first=mine("Mixed")),
    "sync-only middleware": case("/ahello/", "/hello/", "/astream/", "/afail/", middleware=mine("sync_only")),
    "sync-only middleware, outermost": case("/ahello/", "/acount/", "/missing/", first=mine("sync_only")),
    "async-only middleware": case("/ahello/", "/hello/", "/fail/", middleware=mine("async_only")),
    "async under sync middleware": case(
        "/ahello/", "/acount/", first=mine("sync_only", "async_only", "Mixed")
    ),
    "functions for both": case(
        "/ahello/", "/nowhere/", first=mine("both"), middleware=mine("both", "sync_only")
    ),
    "subclass of Django's": case("/aform/", middleware=mine("OwnCsrf")),
    "URLconf of a middleware": case("/ahello/", middleware=mine("OtherUrls")),
    "language of the address": case("/de/spoken/", "/fr/spoken/", "/spoken/", middleware=LOCALE),
    "language of the browser": case(
        "/speak/", "/spoken/", "/nowhere/", middleware=LOCALE, headers={"Accept-Language": "de"}
    ),
    "script name": case("/app/scope-seen/", root_path="/app"),
    "commit": case("/atomic/?name=%d"),
    "rollback": case("/atomic/?name=%d&inner", "/atomic/?name=%d"),
    "ATOMIC_REQUESTS": case("/atomic/?name=%d&outer", "/atomic/?name=%d", "/ahello/", changes=ATOMIC),
    "post only": case("/post-only/"),
    "CSP": case("/ahello/", middleware=["django.middleware.csp.ContentSecurityPolicyMiddleware"]),
}
"""By what is asked."""

VARIES = [
    (r"(sessionid|csrftoken|messages)=[^;]*", r"\1=..."),
    (r"expires=[^;]*", "expires=..."),
    (r'value="\w{64}"', 'value="..."'),
]
"""Tokens, keys and times."""


def body_of(answer: drive.Answer) -> str:
    """Return a body without compression, which Django fills up with random bytes."""
    body = answer.body
    if ("Content-Encoding", "gzip") in answer.headers:
        answer.headers = [each for each in answer.headers if each[0] != "Content-Length"]
        body = gzip.decompress(body)
    return plain(body.decode("latin-1"))


def plain(text: str) -> str:
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text)
    return text


@contextmanager
def logged(records: list[str]) -> Iterator[None]:
    """Collect what Django logs."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raised = record.exc_info[1] if record.exc_info else None
            records.append(f"{record.name} {record.levelname} {record.getMessage()} {raised!r}")

    collector, logger = Collector(), logging.getLogger("django")
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)


async def ask(handler: Any, each: Case, call: Any, number: int) -> list[Any]:
    """Send a case's requests; return all that can be seen of the answers."""
    cookies: dict[str, str] = {}
    seen: list[Any] = []
    for request in each.requests:
        options = {**request}
        target, body = options.pop("target").replace("%d", f"n{number}"), options.pop("body", "").encode()
        headers = dict(options.pop("headers", {}))
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        records: list[str] = []
        with logged(records):
            answer = await call(handler, drive.scope(target, headers=headers, **options), body)
        for name, value in answer.headers:
            if name == "Set-Cookie":
                key, _, rest = value.partition("=")
                cookies[key] = rest.partition(";")[0]
        seen.append(
            {
                "body": body_of(answer),
                "status": answer.status,
                "headers": [[name, plain(value)] for name, value in answer.headers],
                "is_complete": answer.is_complete,
                "error": answer.error,
                "log": records,
            }
        )
    return seen


async def run() -> dict[str, Any]:
    """Return what each of the three ways answers to each case, and what is left of the threads."""
    pool = Leases(8, 10.0)
    found: dict[str, dict[str, Any]] = {}
    for number, (name, each) in enumerate(CASES.items()):
        changes = dict(each.changes)
        changes["MIDDLEWARE"] = [*each.first, *settings.MIDDLEWARE, *each.middleware]
        databases = changes.pop("DATABASES", None)
        with override_settings(**changes), atomic_requests(databases is not None):
            if name == "CSP" and django.VERSION < (6, 0):
                continue
            stock, ours = ASGIHandler(), Handler(pool)
            found[name] = {
                "stock": await ask(stock, each, drive.by_messages, number * 10 + 1),
                "messages": await ask(ours, each, drive.by_messages, number * 10 + 2),
                "direct": await ask(ours, each, drive.directly, number * 10 + 3),
            }
    await User.objects.all().adelete()
    threads = {"busy": pool.busy, "waiting": pool.waiting, "ended": pool.close(5.0)}
    return {"parity": found, "threads": threads}


@contextmanager
def atomic_requests(wanted: bool) -> Iterator[None]:
    connections.settings["default"]["ATOMIC_REQUESTS"] = wanted
    try:
        yield
    finally:
        connections.settings["default"]["ATOMIC_REQUESTS"] = False
