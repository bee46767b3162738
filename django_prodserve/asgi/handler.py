"""Django's ASGI handler, with calls to a thread only where something can block.

Runs on the event loop's thread of a worker, in the task of one request. Django's own handler starts three
tasks for each request, and makes 16 calls to a thread that it starts for this request; most of them come to
nothing. This one answers a short async view without any: 2.0 ms of CPU become 0.24.

Libraries that trace requests replace methods of Django's handlers. So ``__call__`` is Django's, what is
replaced here stays if somebody else has replaced it, and receivers of signals see Django's class as sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any
from weakref import ReferenceType

import django
from asgiref.sync import SyncToAsync, sync_to_async
from django.conf import settings
from django.core.cache import close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler, reset_urlconf
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal
from django.urls import set_script_prefix, set_urlconf
from django.utils.log import log_response

from ..speedups.fingerprints import fingerprint
from . import leases as leases_module
from .django_middleware import answer, shorten, view_call
from .leases import Lease, Leases
from .sending import Body, Sender, send, send_stream, sender_of

TESTED = {"68fbb3ab2dc50f4d": "5.2", "0e74890aa5f3bef1": "6.0", "4898e321647b8780": "6.1"}
"""Fingerprints of what the code here replaces or relies on, and the versions of Django that have it."""
LOGS = BaseHandler.get_response_async
"""What logs a response with an error. A tracing library may have replaced it, or do so later."""
LOGS_AS_TESTED = fingerprint(LOGS) == "984a5d981b8d8c12"
DJANGOS: set[Any] = {reset_queries, close_old_connections, close_caches, reset_urlconf}
"""Receivers of Django's: in a thread that has opened no connection they have nothing to do."""


def why_not() -> str:
    """Return why Django's own handler is used here; empty if its source is as tested."""
    if fingerprint(ASGIHandler.handle, ASGIHandler.send_response, Signal.connect) in TESTED:
        return ""
    known = " or ".join(TESTED.values())
    return f"the source of Django {django.__version__}'s ASGI handler is not that of {known}"


def load(leases: Leases | None, *, speedups: bool) -> ASGIHandler:
    """Return the handler for Django's ASGI application: this one if Django is as tested, or else Django's."""
    return Handler(leases) if speedups and not why_not() else ASGIHandler()


class ShortChain(BaseHandler):
    """The middleware and the view, called in a thread only where they may block."""

    def adapt_method_mode(
        self, is_async: bool, method: Any, method_is_async: Any = None, debug: bool = False, name: Any = None
    ) -> Any:
        """Note each middleware as Django links it to the next one, and shorten what needs no thread."""
        shorten(getattr(method, "__wrapped__", None))
        if is_async and (short := view_call(method)) is not None:
            return short
        return super().adapt_method_mode(is_async, method, method_is_async, debug, name)

    async def get_response_async(self, request: Any) -> Any:
        """Return the response of the middleware; log an error only if that has not been done."""
        if BaseHandler.get_response_async is not LOGS or not LOGS_AS_TESTED:
            return await super().get_response_async(request)
        set_urlconf(settings.ROOT_URLCONF)
        chain: Any = self._middleware_chain  # type: ignore[attr-defined]  # no types have it
        response = await chain(request)
        response._resource_closers.append(request.close)
        if response.status_code >= 400 and not getattr(response, "_has_been_logged", False):
            reason, path = response.reason_phrase, request.path
            await sync_to_async(log_response)("%s: %s", reason, path, response=response, request=request)
        return response

    async def _get_response_async(self, request: Any) -> Any:
        try:
            return await super()._get_response_async(request)  # type: ignore[misc]  # no types have it
        except Exception as error:
            return await answer(request, error)


class Handler(ShortChain, ASGIHandler):
    """Handles requests as Django does."""

    leases: Leases | None = None
    """The threads for what may block; None if asgiref starts one for each request."""

    def __init__(self, leases: Leases | None = None) -> None:
        if leases is not None and not leases_module.why_not():
            self.leases = leases
        super().__init__()

    @property
    def _sender(self) -> Any:
        """The sender of signals, as receivers of a project know it."""
        kind = type(self)
        return ASGIHandler if kind is Handler else kind

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request, from its body to the end of its response."""
        try:
            is_read = issubclass(type(receive), Body)
            body = receive.file if is_read else await self.read_body(receive)
        except RequestAborted:
            return
        exchange = Exchange(self._lend())
        with closing(body), exchange.entered():
            set_script_prefix(get_script_prefix(scope))
            work = self._serve(scope, body, send, exchange)
            try:
                await (work if is_read else until_gone(self.listen_for_disconnect(receive), work))
            finally:
                await self._finish(exchange)

    async def stream(self, response: Any, sender: Sender) -> None:
        """Send an async stream that a sync view has returned, and close it; its headers have been sent."""
        exchange = Exchange(self._lend(), response)
        with exchange.entered():
            try:
                await send_stream(response, sender)
            finally:
                await self._finish(exchange)

    async def _serve(self, scope: Any, body: Any, send: Any, exchange: Exchange) -> None:
        """Find the response and send it."""
        if not is_quiet(request_started):
            await request_started.asend(sender=self._sender, scope=scope)
        request, refusal = self.create_request(scope, body)
        response = refusal if request is None else await self.run_get_response(request)
        exchange.response = response
        if exchange.lease is not None and is_async_stream(response):
            exchange.lease.release()  # a stream may last for hours, and its thread would do nothing
        await self.send_response(response, send)

    async def _finish(self, exchange: Exchange) -> None:
        """Close the response: in the request's thread, if it has one or if a receiver may block."""
        response, lease = exchange.response, exchange.lease
        close = partial(request_finished.send, sender=self._sender) if response is None else response.close
        if lease is None:
            await sync_to_async(close)()
            return
        await lease.withdraw()
        was_taken = lease.is_taken
        try:
            if not was_taken and is_quiet(request_finished) and not is_sync_stream(response):
                close()
            else:
                # A request that got no thread in time does not wait for one again.
                await sync_to_async(close, thread_sensitive=not lease.was_refused)()
        finally:
            lease.release(settled=was_taken and not lease.was_refused)

    def _lend(self) -> Lease | None:
        """Return a lease for this request; None where it has an executor, or asgiref is not as tested."""
        if self.leases is None:
            return None
        context: Any = SyncToAsync.thread_sensitive_context.get(None)
        if context is not None and context in SyncToAsync.context_to_thread_executor:
            return None
        return self.leases.lend(self._begin_in_thread, self._settle_thread)

    def _begin_in_thread(self) -> None:
        """Do in a thread what Django does in it when a request starts."""
        for receiver in filter(None, filter(is_djangos, receivers(request_started))):
            receiver(signal=request_started, sender=self._sender)

    def _settle_thread(self) -> None:
        """Do in a thread what Django does when a request ends: close what is too old, or broken."""
        if close_old_connections in receivers(request_finished):
            close_old_connections()

    async def run_get_response(self, request: Any) -> Any:
        """Return the response, which names Django's class for the receivers of its signal."""
        response: Any = await super().run_get_response(request)
        response._handler_class = self._sender
        return response

    async def send_response(self, response: Any, send_message: Any) -> None:
        """Send the response in the way that the server offers."""
        await send(response, sender_of(send_message))


@dataclass
class Exchange:
    """One request: its lease, and its response once there is one."""

    lease: Lease | None
    response: Any = None

    def entered(self) -> AbstractContextManager[None]:
        """Make ``sync_to_async`` use the lease."""
        return nullcontext() if self.lease is None else self.lease.entered()


def receivers(signal: Signal) -> list[Any]:
    """Return the receivers of a signal, from any sender. Sentry replaces what Django answers."""
    entries = [entry[1] for entry in signal.receivers]
    return [entry() if isinstance(entry, ReferenceType) else entry for entry in entries]


def is_djangos(receiver: Any) -> bool:
    """Return whether this receiver is one of Django's four; None is one that has gone."""
    return receiver is None or (type(receiver) is FunctionType and receiver in DJANGOS)


def is_quiet(signal: Signal) -> bool:
    """Return whether only Django's own receivers would get this signal."""
    return all(map(is_djangos, receivers(signal)))


def is_async_stream(response: Any) -> bool:
    return response is not None and response.streaming and getattr(response, "is_async", False)


def is_sync_stream(response: Any) -> bool:
    return response is not None and response.streaming and not getattr(response, "is_async", False)


async def until_gone(listening: Coroutine[Any, Any, None], work: Coroutine[Any, Any, None]) -> None:
    """Do the work; end it if the server reports meanwhile that the client has gone."""
    task = asyncio.current_task()
    assert task is not None
    is_working = True

    def stop(listener: object) -> None:
        if is_working:
            task.cancel()

    listener = asyncio.ensure_future(listening)
    listener.add_done_callback(stop)
    try:
        await work
    except asyncio.CancelledError:
        if not listener.done() or listener.cancelled():
            raise
        if hasattr(task, "uncancel") and task.uncancel():  # Python 3.11: somebody else has cancelled it, too
            raise
    finally:
        is_working = False
        listener.cancel()
        await asyncio.wait([listener])
        if (
            not listener.cancelled()
            and not isinstance(error := listener.exception(), RequestAborted)
            and error
        ):
            raise error
