"""The actions that a dry run rejected, and the request error that resulted."""

from __future__ import annotations

import errno
import sys

from ..origins import caller


class Refused(OSError):
    """An action that a dry run rejects; an OSError, so that code which expects failures handles it."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(number, f"django-prodserve's warm-up does not {what}")
        self.what = what
        self.where = caller(sys._getframe(2))
        REFUSALS.append(self)


class RefusedConnection(Refused, ConnectionRefusedError):
    """A connection to a service that is not a database."""


REFUSALS: list[Refused] = []
"""The actions rejected in this process, oldest first."""


def connection(peer: str) -> Refused:
    """Return the refusal to connect to a service."""
    return RefusedConnection(errno.ECONNREFUSED, f"connect to {peer}")


def change(path: str) -> Refused:
    """Return the refusal to change a file or a directory."""
    return Refused(errno.EROFS, f"change {path}")


def cause(error: BaseException | None) -> Refused | None:
    """Return the refusal that caused an error, if one did."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Refused):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
