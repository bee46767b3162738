"""How the arbiter makes workers load a renewed certificate: an order for each pair, and its files in memory.

Made in the arbiter, before the first fork: the workers share the orders and the files. The arbiter writes,
workers read. The files are in memory, because workers may not be allowed to read those of the operator: a
server that root starts gives up root's rights in its workers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple

from .contexts import KeyPairError, TLSContexts
from .key_pairs import KeyPair

CELL = 8
ATTEMPTS = 5
"""Attempts of a worker, one a second: the arbiter may write the file meanwhile."""


class Renewals:
    """The orders of one generation."""

    def __init__(self, pairs: Sequence[KeyPair]) -> None:
        self._pairs = tuple(pairs)
        self._orders = memoryview(mmap.mmap(-1, max(1, len(pairs)) * CELL)).cast("Q")
        self._loaded = [0] * len(pairs)
        """The order that this process has followed, for each pair: a new worker begins with the arbiter's."""
        self._failed = [0] * len(pairs)
        self._files = [_files_in_memory(pair) for pair in pairs]
        self._ordered: list[PairContent | None] = [None] * len(pairs)

    # In the arbiter.

    def put(self, number: int, content: PairContent) -> KeyPair:
        """Store the content of a pair's files; return the paths to load it from."""
        for descriptor, data in zip(self._files[number], content, strict=False):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, data or b"", 0)
        return self.source(number)

    def restore(self, number: int) -> None:
        """Store what was ordered last: a worker that was busy may load it only now."""
        if (content := self._ordered[number]) is not None:
            self.put(number, content)

    def order(self, number: int, content: PairContent) -> None:
        """Make each worker load a pair, as this process has."""
        self._ordered[number] = content
        self._loaded[number] += 1
        self._orders[number] = self._loaded[number]

    # In a worker.

    def follow(self, contexts: TLSContexts) -> KeyPairError | None:
        """Load what was ordered; return why a pair cannot be loaded, if several attempts have failed."""
        for number, loaded in enumerate(self._loaded):
            wanted = self._orders[number]
            if wanted == loaded or self._failed[number] >= ATTEMPTS:
                continue
            try:
                contexts.renew(number, self.source(number))
            except KeyPairError as error:
                self._failed[number] += 1
                if self._failed[number] == ATTEMPTS:
                    return error
            else:
                self._loaded[number], self._failed[number] = wanted, 0
        return None

    def source(self, number: int) -> KeyPair:
        """Return the paths of the stored content; without files in memory, the operator's."""
        files = self._files[number]
        return (
            KeyPair(*(f"/proc/self/fd/{descriptor}" for descriptor in files))
            if files
            else self._pairs[number]
        )


class PairContent(NamedTuple):
    """The content of the files of a pair, in the order of their paths."""

    certificate: bytes
    key: bytes | None


def content_of(pair: KeyPair) -> PairContent:
    """Read the files of a pair; raises OSError."""
    return PairContent(_read(pair.certfile), _read(pair.keyfile) if pair.keyfile else None)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _files_in_memory(pair: KeyPair) -> list[int]:
    """Create a file in memory for each file of a pair, if this system has such files."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return []
    return [os.memfd_create("prodserve-renewed") for _ in filter(None, pair)]
