"""The central type: a value that cannot exist without its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

SET_EXPLICITLY = "set explicitly"
"""The reason of a value that somebody has set: its source is the flag, variable or key."""

LEARNED = "learned"
"""The source of a value that earlier traffic or ``prodserve tune`` has shown to fit."""


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A value, its reason, and its source: that of an option, or ``computed``."""

    value: T
    why: str
    source: str = "computed"

    @property
    def is_computed(self) -> bool:
        """Whether no source sets this value."""
        return self.source == "computed"
