"""Where a project answers for static files: WhiteNoise's place in MIDDLEWARE, and the middleware above it.

Lives in the command's process; reads settings and imports the classes in MIDDLEWARE, as Django will.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

MOVE_IT = "Place WhiteNoise's directly below SecurityMiddleware: files then come from memory"


@dataclass(frozen=True, kw_only=True)
class Place:
    """WhiteNoise's place. ``index`` in MIDDLEWARE, None if the project has not set one."""

    index: int | None = None
    dotted: str = ""
    is_own: bool = False
    """Whether the middleware there is a custom version: a subclass, or another package's."""
    above: tuple[str, ...] = ()
    """The middleware above it, except Django's own SecurityMiddleware, whose effect on files we know."""
    secured: bool = False
    """Whether a SecurityMiddleware handles the files: one above that place, or any one if no place is set."""

    @classmethod
    def from_settings(cls) -> Place:
        """Read MIDDLEWARE; an entry that cannot be imported, which Django reports, counts as above."""
        from django.middleware.security import SecurityMiddleware

        above: list[str] = []
        secured = False
        for index, (dotted, found) in enumerate(_middleware()):
            if serves_files(found):
                own = not _is_plain(found)
                return cls(index=index, dotted=dotted, is_own=own, above=tuple(above), secured=secured)
            secured = secured or (isinstance(found, type) and issubclass(found, SecurityMiddleware))
            if found is not SecurityMiddleware:
                above.append(dotted)
        return cls(secured=secured)

    @property
    def names(self) -> str:
        """Name the middleware above: the first two, and how many more."""
        more = len(self.above) - 2
        return ", ".join(self.above[:2]) + (f" and {more} more" if more > 0 else "")

    def words(self) -> str:
        """Describe for the plan which way the files go, and the cost."""
        if self.index is None:
            return "answered before MIDDLEWARE, which lacks WhiteNoise" if settings.MIDDLEWARE else ""
        if not self.above:
            return ""
        return (
            f"through the middleware above WhiteNoise's ({self.names}): "
            f"each file takes a thread and their time. {MOVE_IT}"
        )


def _middleware() -> Iterator[tuple[str, Any]]:
    """Yield each entry of MIDDLEWARE and its class or function; None for an entry that is missing."""
    for dotted in settings.MIDDLEWARE:
        try:
            yield dotted, import_string(dotted)
        except Exception:  # Django reports the error when it loads the entry
            yield dotted, None


def serves_files(found: Any) -> bool:
    """Return whether a middleware is WhiteNoise's, a version of it, or that of its fork, ServeStatic."""
    from whitenoise.middleware import WhiteNoiseMiddleware

    if not isinstance(found, type):
        return False
    fork = any(cls.__module__.partition(".")[0] == "servestatic" for cls in found.__mro__)
    return fork or issubclass(found, WhiteNoiseMiddleware)


def _is_plain(found: type) -> bool:
    from whitenoise.middleware import WhiteNoiseMiddleware

    return found is WhiteNoiseMiddleware or found.__module__ == f"{__package__}.middleware"
