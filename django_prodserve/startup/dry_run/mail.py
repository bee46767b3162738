"""Mail is built, which exposes its errors, but never sent: by no backend, whether loaded now or later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core.mail.backends import filebased
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.message import EmailMessage


def hold_back() -> None:
    """Start. A backend is created as the settings specify, opens no connection, and sends nothing."""
    for backend in _backends(BaseEmailBackend):
        _silence(backend)
    BaseEmailBackend.__init_subclass__ = classmethod(_silence)  # type: ignore[assignment]
    filebased.EmailBackend.__init__ = _without_directory  # type: ignore[method-assign,assignment]


def _backends(kind: Any) -> Iterator[Any]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _backends(subclass)


def _silence(backend: Any, /, **kwargs: Any) -> None:
    backend.open = backend.close = lambda self: None
    backend.send_messages = lambda self, email_messages: _make(email_messages)


def _make(messages: Iterable[EmailMessage]) -> int:
    """Return the number of messages with a recipient; raise Django's error for an invalid one."""
    made = [message.message() for message in messages if message.recipients()]
    return len(made)


def _without_directory(backend: BaseEmailBackend, *args: Any, file_path: Any = None, **kwargs: Any) -> None:
    BaseEmailBackend.__init__(backend, *args, **kwargs)
