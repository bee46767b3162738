"""Exceptions of requests and responses in transit."""

from __future__ import annotations


class ClientGoneError(OSError):
    """The client has closed the connection, or the server has terminated it."""


class FileShrankError(ClientGoneError):
    """A file became shorter while it was sent, so the rest of the response does not exist."""


class DiskShortError(OSError):
    """The disk has no room for bytes that a client sends, or has not fetched yet."""


class BodyTooLargeError(Exception):
    """The body is larger than ``--max-body``."""


class NeedMoreError(Exception):
    """The request is not complete yet."""
