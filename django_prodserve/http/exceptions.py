"""What may happen to a request or a response on its way."""

from __future__ import annotations


class ClientGoneError(OSError):
    """The client has hung up, or was cut off."""


class FileShrankError(ClientGoneError):
    """A file has become shorter while it was sent: the rest of a response does not exist."""


class DiskShortError(OSError):
    """The disk has no room for what a client sends or does not fetch."""


class BodyTooLargeError(Exception):
    """The body is larger than ``--max-body``."""


class NeedMoreError(Exception):
    """The request is not complete yet."""
