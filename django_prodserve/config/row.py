"""The declaration of one option: options.py has a row for each. Standard library alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .kinds import Kind


@dataclass(frozen=True, kw_only=True)
class Row:
    """The declaration of one option."""

    name: str
    default: Any
    kind: Kind
    help: str
    metavar: str = ""
    why: str = "off by default"
    """The reason for the default."""
    gunicorn: str = ""
    """The name of the Gunicorn setting that this option decides."""
    short: str = ""
    word: str = ""
    """The word of the flag, the variable and the key, if it is not the name."""
    none: str = "none"
    """The text shown if the plan decides on no value."""
    computed: str = ""
    """The facts from which the plan computes the value if the operator sets none."""
    exported: bool = False
    """Whether a file of ``plan --gunicorn-conf`` passes the decision to our middleware and the workers."""
    worker: bool = False
    """Whether the workers use the decision."""

    @property
    def flag(self) -> str:
        """Return the flag: ``--keep-alive`` for ``keep_alive``."""
        return f"--{self.topic}"

    @property
    def topic(self) -> str:
        """Return the word for ``prodserve help``: ``keep-alive`` for ``keep_alive``."""
        return (self.word or self.name).replace("_", "-")

    @property
    def variable(self) -> str:
        """Return the variable: ``PRODSERVE_KEEP_ALIVE`` for ``keep_alive``."""
        return "PRODSERVE_" + (self.word or self.name).upper()

    @property
    def key(self) -> str:
        """Return the key in settings: ``PRODSERVE["KEEP_ALIVE"]`` for ``keep_alive``."""
        return (self.word or self.name).upper()

    @property
    def default_text(self) -> str:
        """Return the default as the reference shows it."""
        if self.default is None:
            return self.computed or "none"
        if isinstance(self.default, tuple):
            return ", ".join(self.default) or "none"
        return self.kind.typed(self.default)

    def show(self, value: Any) -> str:
        """Return a decided value for people."""
        return self.none if value is None else self.kind.show(value)

    def typed(self, value: Any) -> str:
        """Return a decided value as an operator writes it; empty if there is none."""
        return "" if value is None else self.kind.typed(value)


def option(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """Declare one option; ``more`` are fields of Row."""
    return field(
        default=default, metadata={"row": {"kind": kind, "help": help, "metavar": kind.metavar} | more}
    )
