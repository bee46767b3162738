"""Cache request lines and header lines that Gunicorn's parser has already validated.

Lives in a worker, in the thread that owns the connection. The parser's result for a line depends only on its
bytes and on settings that never change, and clients repeat the same lines. Gunicorn takes 24 us for the
headers of a browser. From its second request on, every line but the request line is cached.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

MAX_CACHED_LINES = 512
"""Entries of each half."""
MAX_LINE_BYTES = 1024
"""Maximum length of a cached line in bytes: with both halves full of such lines, 2 MiB a worker."""


class LineCache(Generic[Key, Value]):
    """Recently used entries in two halves; when the younger half is full, it replaces the older.

    Any thread may use the cache. Two concurrent writers lose at most one entry.
    """

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def get(self, key: Key) -> Value | None:
        """Return the cached value, or None."""
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: Key, value: Value) -> None:
        """Store a value."""
        if len(self._young) >= MAX_CACHED_LINES:
            self._old, self._young = self._young, {}
        self._young[key] = value
