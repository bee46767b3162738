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
    """Defends the default."""
    gunicorn: str = ""
    """The name of the setting in Gunicorn that this option decides."""
    short: str = ""
    none: str = "none"
    """What people read where the plan decides on no value."""
    computed: str = ""
    """What the plan works it out from, where nobody stated it."""
    exported: bool = False
    """Whether a file made by ``plan --gunicorn-conf`` carries the decision to the layers and workers."""
    worker: bool = False
    """Whether the workers take the decision."""

    @property
    def flag(self) -> str:
        """``keep_alive`` is typed as ``--keep-alive``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """``keep_alive`` is the variable ``PRODSERVE_KEEP_ALIVE``."""
        return "PRODSERVE_" + self.name.upper()

    @property
    def key(self) -> str:
        """``keep_alive`` is ``PRODSERVE["KEEP_ALIVE"]``."""
        return self.name.upper()

    @property
    def default_text(self) -> str:
        """The default as the reference shows it."""
        if self.default is None:
            return self.computed or "none"
        if isinstance(self.default, tuple):
            return ", ".join(self.default) or "none"
        return self.kind.typed(self.default)

    def show(self, value: Any) -> str:
        """Write a decided value for people."""
        return self.none if value is None else self.kind.show(value)

    def typed(self, value: Any) -> str:
        """Write a decided value as an operator types it; empty where there is none."""
        return "" if value is None else self.kind.typed(value)


def option(default: Any, kind: Kind, help: str, **more: Any) -> Any:
    """Declare one option; ``more`` are fields of Row."""
    return field(
        default=default, metadata={"row": {"kind": kind, "help": help, "metavar": kind.metavar} | more}
    )
