"""Request lines and header lines that Gunicorn's parser has judged before.

Lives in a worker, in the thread that owns the connection. What the parser says of a line depends on its bytes
and on settings that never change, and clients send the same lines again and again: of a browser's head, which
takes Gunicorn 24 us, all but the request line is known with its second request.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_CACHED_LINES = 512
"""Entries of each half."""
MAX_LINE_BYTES = 1024
"""Bytes of a line that is worth remembering: with both halves full of such lines, 2 MiB a worker."""


class LineCache(Generic[Key, Value]):
    """What was used of late: two halves, of which the older is forgotten when the younger is full.

    Any thread may use it. Two that write at once lose an entry at most.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """Return what is known, or None."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: Key, value: Value) -> None:
        """Remember."""
        if len(self._young) >= MAX_CACHED_LINES:
            self._old, self._young = self._young, {}
        self._young[key] = value
