"""The one error that an operator can meet."""

from __future__ import annotations


class ProdserveError(Exception):
    """Something the operator can fix; ``hint`` says how. The command prints both and exits with 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message
