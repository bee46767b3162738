"""Which of Django's own middleware can block, and when: the rest needs no thread.

Runs on the event loop's thread of a worker. Django sends both methods of each middleware to a thread, 13
calls for startproject's seven, because it cannot know what a subclass does. Here the class is exactly
Django's, and its source is the one that was read. A rule then decides for each request whether a method may
block: read or write a session, render a page, compress much. What is changed are the handler's own objects,
never Django's classes: libraries that wrap these find what they expect.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from types import FunctionType
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.exception import response_for_exception
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from ..speedups.fingerprints import fingerprint

Before = Callable[[Any, Any], bool]
"""Whether ``process_request`` cannot block: of the middleware and the request."""
After = Callable[[Any, Any, Any], bool]
"""Whether ``process_response`` cannot block: of the middleware, the request and the response."""

SMALL = 4 * 1024
"""Bytes of a body that is compressed on the loop: 0.09 ms of CPU, and a call to a thread takes 0.17 ms."""
MEASURES = "sentry_sdk."
"""The package of wrappers around a middleware's methods that only measure."""
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Methods for which Django checks no token, so that it reads no body."""


class Rule:
    """When the two methods of a middleware cannot block, and the sources for which that was found."""

    def __init__(self, before: Before, after: After, *tested: str) -> None:
        self.before, self.after, self.tested = before, after, tested


def always(middleware: Any, request: Any, response: Any = None) -> bool:
    """Only look at headers, settings and the URLconf."""
    return True


def token_in_cookie(middleware: Any, request: Any, response: Any = None) -> bool:
    """The CSRF middleware reads the session only if the token is stored there."""
    return not settings.CSRF_USE_SESSIONS


def has_djangos_sessions(middleware: Any, request: Any) -> bool:
    """A session is read later, when the view asks for it; Django's own stores only note its key."""
    return _is_djangos(middleware.SessionStore, "django.contrib.sessions.", ("__init__", "is_empty"))


def session_stays(middleware: Any, request: Any, response: Any) -> bool:
    """A session that did not change is not saved."""
    session = getattr(request, "session", None)
    if session is None:
        return True
    kind: Any = type(session)
    own = _is_djangos(kind, "django.contrib.sessions.", ("__init__", "is_empty"))
    return own and not (session.modified or settings.SESSION_SAVE_EVERY_REQUEST)


def has_djangos_messages(middleware: Any, request: Any) -> bool:
    """Messages are read later, when a page shows them."""
    return _stores_as_django(settings.MESSAGE_STORAGE)


def messages_stay(middleware: Any, request: Any, response: Any) -> bool:
    """Messages are stored if some were added or shown."""
    messages = getattr(request, "_messages", None)
    if messages is None:
        return True
    kind: Any = type(messages)
    own = _is_djangos(kind, "django.contrib.messages.", ("update", "_prepare_messages"))
    return own and not (messages.used or messages.added_new or messages._queued_messages)


def is_found(middleware: Any, request: Any, response: Any) -> bool:
    """These look for another page, or write a mail, if there is none."""
    return bool(response.status_code != 404)


def is_small(middleware: Any, request: Any, response: Any) -> bool:
    """Compressing and hashing take CPU time by the size; a stream is compressed when it is sent."""
    return response.streaming or len(response.content) <= SMALL


@cache
def _is_djangos(kind: Any, package: str, methods: tuple[str, ...]) -> bool:
    """Return whether these methods of a class are defined in this package of Django."""
    found = [getattr(kind, name, None) for name in methods]
    return all(type(each) is FunctionType and each.__module__.startswith(package) for each in found)


@cache
def _stores_as_django(path: str) -> bool:
    return _is_djangos(import_string(path), "django.contrib.messages.", ("__init__",))


MIXIN_TESTED = "cb5de60e2dc3d1e6"
"""The fingerprint of MiddlewareMixin, which calls the methods: that of Django 5.2, 6.0 and 6.1."""

RULES = {
    "django.middleware.security.SecurityMiddleware": Rule(always, always, "61fe907fc2615884"),
    "django.middleware.common.CommonMiddleware": Rule(always, always, "9579fdaee45495e7", "c5bb26283765fa68"),
    "django.middleware.csrf.CsrfViewMiddleware": Rule(
        token_in_cookie, token_in_cookie, "86e2162c6b91ca42", "ce2d27b3aa51b293"
    ),
    "django.middleware.clickjacking.XFrameOptionsMiddleware": Rule(always, always, "079f962e8ec6d91c"),
    "django.middleware.csp.ContentSecurityPolicyMiddleware": Rule(always, always, "ec73fc22d686199a"),
    "django.middleware.locale.LocaleMiddleware": Rule(always, always, "9f37cdb96bebbde2"),
    "django.middleware.gzip.GZipMiddleware": Rule(always, is_small, "1459d4d80cf1d70a", "abb10aaf99d14d85"),
    "django.middleware.http.ConditionalGetMiddleware": Rule(
        always, is_small, "ee6ef8ba0fdb1b73", "dd687aaf56e7c63f"
    ),
    "django.middleware.common.BrokenLinkEmailsMiddleware": Rule(
        always, is_found, "cd3a123dadc3cc5f", "12ddd9e20aabdab3"
    ),
    "django.contrib.sessions.middleware.SessionMiddleware": Rule(
        has_djangos_sessions, session_stays, "3ed21e19ba45b24d"
    ),
    "django.contrib.auth.middleware.AuthenticationMiddleware": Rule(always, always, "41ebd786a24c3574"),
    "django.contrib.messages.middleware.MessageMiddleware": Rule(
        has_djangos_messages, messages_stay, "f8d50ee02a1caa01"
    ),
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware": Rule(
        always, is_found, "d3c7242c42c7cc38"
    ),
    "django.contrib.redirects.middleware.RedirectFallbackMiddleware": Rule(
        always, is_found, "93989cddaf29a9d3"
    ),
}
"""By the full name of the exact class. What is not here is called in a thread, as Django does it."""


@cache
def rule_of(kind: Any) -> Rule | None:
    """Return the rule for a class of middleware; None if Django must call it as ever."""
    rule = RULES.get(f"{kind.__module__}.{kind.__qualname__}")
    if rule is None or fingerprint(kind) not in rule.tested:
        return None
    return rule if fingerprint(MiddlewareMixin) == MIXIN_TESTED else None


def shorten(middleware: Any) -> None:
    """Let a middleware of Django's do without threads where its rule allows; also one that another wraps."""
    for found in (middleware, *vars(middleware).values()) if hasattr(middleware, "__dict__") else ():
        kind: Any = type(found)  # a lazy object may claim another
        if issubclass(kind, MiddlewareMixin) and found.async_mode and (rule := rule_of(kind)):
            found.__acall__ = _call_of(found, rule)


def _call_of(middleware: Any, rule: Rule) -> Callable[[Any], Awaitable[Any]]:
    """Return what MiddlewareMixin does for one middleware, with calls to a thread only where it may block."""
    before = getattr(middleware, "process_request", None)
    after = getattr(middleware, "process_response", None)
    before_is_free, after_is_free = rule.before, rule.after

    async def call(request: Any) -> Any:
        response = None
        try:
            if before is not None:
                if before_is_free(middleware, request):
                    response = before(request)
                else:
                    response = await sync_to_async(before)(request)
            response = response or await middleware.get_response(request)
            if after is not None:
                if after_is_free(middleware, request, response):
                    response = after(request, response)
                else:
                    response = await sync_to_async(after)(request, response)
        except Exception as error:
            return await answer(request, error)
        return response

    return call


async def answer(request: Any, error: Exception) -> Any:
    """Return the response to an exception; in the request's own thread, where its connections are.

    Django uses any thread of the loop, in which a connection that an error page opens is never closed.
    """
    return await sync_to_async(response_for_exception)(request, error)


def view_call(method: Any) -> Callable[..., Awaitable[Any]] | None:
    """Return a shorter way to call ``process_view`` of Django's CSRF middleware; None for others."""
    own = method
    if getattr(method, "__globals__", {}).get("__name__", "").startswith(MEASURES):
        own = getattr(method, "__wrapped__", method)
    kind: Any = type(getattr(own, "__self__", None))
    if kind.__qualname__ != "CsrfViewMiddleware" or rule_of(kind) is None:
        return None
    if getattr(own, "__func__", None) is not kind.process_view:
        return None
    in_thread = sync_to_async(method, thread_sensitive=True)

    async def process_view(request: Any, callback: Any, args: Any, kwargs: Any) -> Any:
        """Check the token in a thread: it may be in a body that is not yet read, or in the session."""
        if request.method in SAFE or getattr(callback, "csrf_exempt", False):
            return method(request, callback, args, kwargs)
        return await in_thread(request, callback, args, kwargs)

    return process_view
