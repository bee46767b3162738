"""The core device: a value that cannot exist without its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Decision(Generic[T]):
    """A value, why it is so, and who said it: an option's source, or ``computed``."""

    value: T
    why: str
    source: str = "computed"

    @property
    def is_computed(self) -> bool:
        """Whether nobody stated this value."""
        return self.source == "computed"
