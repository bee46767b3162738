"""The memory that all processes of a server share."""

from __future__ import annotations


class SharedMemory:
    """Shared bytes, readable as whole numbers, as seconds and as text."""

    def __init__(self, shared: memoryview) -> None:
        self.bytes: memoryview[int] = shared
        self.whole: memoryview[int] = shared.cast("Q")
        self.seconds: memoryview[float] = shared.cast("d")
