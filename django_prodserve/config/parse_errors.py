"""The errors of a parser: which part of a value is wrong, and the text to write instead. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class ParseError(ValueError):
    """An error that needs its own sentence; ``fix`` is the text to write instead."""

    def __init__(self, message: str, fix: str = "", *, code: str = "bad-value") -> None:
        super().__init__(message)
        self.fix = fix
        self.code = code


class ParseErrors(ValueError):
    """Several parts of a value are wrong."""

    def __init__(self, errors: Sequence[ParseError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = tuple(errors)
