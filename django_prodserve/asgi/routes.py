"""Which requests go to an async view, found from the path alone.

The routes are walked once, after the project is loaded; ``road`` runs in the reactor's thread of a worker.
Django resolves a path after the middleware, but the road is chosen before. A full resolve takes 10 us with 43
routes and 77 us with 2000, and runs the project's converters. One regular expression of all async routes
takes 0.15 us for a path that none of them has. Only a path that matches is resolved, once.

A wrong guess costs speed, never the answer: both roads run both kinds of view. So the expression may match
too much (whatever it cannot copy exactly, it leaves open), and never too little. It holds the routes that do
not take the usual road: async ones in a worker whose usual road leads to threads.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import LocalePrefixPattern, RegexPattern, RoutePattern
from django.utils import translation

from .chosen_roads import ChosenRoads, Road, names_in, names_of, namespaces_of, text_of

if sys.version_info >= (3, 11):
    from re import _constants as opcodes  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_constants as opcodes
    import sre_parse as parser

REMEMBERED = 1024
"""Paths whose road is remembered: those that match the expression."""
LONGEST_REMEMBERED = 512
"""Longer paths are resolved each time, so that what is remembered stays below 1 MiB."""
ANYTHING = ".*"
"""The expression of whatever is not copied. It ends there: any rest matches."""
ANY_LANGUAGE = "(?:[^/]+/)?"
END = r"\n?\Z"
"""The end of a path, where ``$`` allows a line feed."""
MOST_LANGUAGES = 10
"""Languages in which translated addresses are copied; each loads its translations."""


class Routes:
    """The routes of a URLconf, by the roads of their views."""

    def __init__(
        self, resolver: URLResolver | None = None, chosen: ChosenRoads | None = None, usual: Road = "sync"
    ) -> None:
        """``usual`` is the road of all paths that have no other: async if a kind of view decides nothing."""
        self._resolver = get_resolver() if resolver is None else resolver
        self._chosen, self._usual = chosen or ChosenRoads(), usual
        self._chosen.check(self._resolver)
        self.async_routes = self.sync_routes = 0
        self.alone: dict[int, Any] = {}
        """Async views that run in threads because the project has chosen that, by their ids."""
        self._has_languages = self._is_translated = False
        """Whether addresses in the expression begin with a language, and whether they are translated."""
        found = [self._resolver_expression(self._resolver, (), "")]
        found += [re.escape(path) + ANYTHING for path, road in self._chosen.paths if road != usual]
        pattern = "|".join(filter(None, found))
        self._may_match = re.compile(pattern, re.DOTALL).match if pattern else None
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._resolved)

    @property
    def has_async(self) -> bool:
        """Whether any path may lead to an async view."""
        return self._usual == "async" or self._may_match is not None

    def road(self, path: str) -> Road:
        """Return the road for a path, without the script name."""
        if self._may_match is None or self._may_match(path) is None:
            return self._usual
        return (self._remembered if len(path) <= LONGEST_REMEMBERED else self._resolved)(path)

    def _resolved(self, path: str) -> Road:
        """Return the road of the view that Django finds; the other one if that depends on the language."""
        if self._is_translated:
            return self._chosen.of_path(path) or ("async" if self._usual == "sync" else "sync")
        if not self._has_languages:
            return self._found(path)
        with translation.override(translation.get_language_from_path(path) or settings.LANGUAGE_CODE):
            return self._found(path)

    def _found(self, path: str) -> Road:
        try:
            match = self._resolver.resolve(path)
        except (
            Exception
        ):  # no route, or a converter of the project failed: Django meets it again, and reports it
            return self._usual
        return self._chosen.of(match.func, path, partial(names_in, match)) or self._by_kind(match.func)

    def _by_kind(self, view: Any) -> Road:
        """Return the road of a view for which none is chosen."""
        return "async" if self._usual == "async" or iscoroutinefunction(view) else "sync"

    # Building the expression. It is None without a route that it must find.

    def _expression(self, entry: Any, namespaces: tuple[str, ...], before: str) -> str | None:
        """Return the expression of what this entry of a URLconf adds to a path."""
        if hasattr(entry, "url_patterns"):
            return self._resolver_expression(entry, namespaces, before)
        view, address = getattr(entry, "callback", None), before + text_of(getattr(entry, "pattern", None))
        names = partial(names_of, entry, namespaces)
        chosen = self._chosen.of(view, address, names) if callable(view) else self._usual
        road = chosen or self._by_kind(view)
        self.async_routes += road == "async"
        self.sync_routes += road == "sync"
        if chosen == "sync" and iscoroutinefunction(view):
            self.alone[id(view)] = view
        if road == self._usual:
            return None
        return self._own(entry.pattern) if type(entry) is URLPattern else ANYTHING

    def _resolver_expression(self, resolver: Any, outer: tuple[str, ...], before: str) -> str | None:
        namespaces, address = namespaces_of(resolver, outer), before + text_of(resolver.pattern)
        below = [self._expression(each, namespaces, address) for each in resolver.url_patterns]
        found = [each for each in below if each is not None]
        if not found:
            return None
        own = self._own(resolver.pattern) if type(resolver) is URLResolver else ANYTHING
        if own.endswith((ANYTHING, END)) or ANYTHING in found:
            return own.removesuffix(ANYTHING).removesuffix(END) + ANYTHING
        return f"{own}(?:{'|'.join(dict.fromkeys(found))})"

    def _own(self, pattern: Any) -> str:
        """Return the expression of one part of an address."""
        kind = type(pattern)
        if kind is LocalePrefixPattern:
            self._has_languages = True
            return ANY_LANGUAGE
        if kind not in (RoutePattern, RegexPattern):
            return ANYTHING
        if isinstance(pattern._route if kind is RoutePattern else pattern._regex, str):
            return copied(pattern.regex)
        self._is_translated = True
        if len(settings.LANGUAGES) > MOST_LANGUAGES:
            return ANYTHING
        found = dict.fromkeys(map(copied, _in_each_language(pattern)))
        return ANYTHING if ANYTHING in found else f"(?:{'|'.join(found)})"


def _in_each_language(pattern: Any) -> Iterator[re.Pattern[str]]:
    for code, _ in settings.LANGUAGES:
        with translation.override(code):
            yield pattern.regex


PLAIN = {
    *(opcodes.LITERAL, opcodes.NOT_LITERAL, opcodes.ANY, opcodes.IN, opcodes.BRANCH),
    *(opcodes.SUBPATTERN, opcodes.MAX_REPEAT, opcodes.MIN_REPEAT),
}
"""What means the same in the middle of a longer expression: it neither looks around nor back."""
STARTS, ENDS = ("^", r"\A"), (r"\Z", r"\z", "$")
TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P<\w+>", re.DOTALL)
"""An escaped character, a set of characters, or what begins a named group."""


def copied(regex: re.Pattern[str]) -> str:
    """Return an expression for the middle of a longer one that matches at least what this one finds."""
    text = regex.pattern
    start = next(filter(text.startswith, STARTS), None)
    tree: Any = parser.parse(text)
    if start is None or tree[0][0] is not opcodes.AT or regex.flags & ~re.UNICODE:
        return ANYTHING  # Django finds it anywhere in a path, or it has flags
    text, end = _without_end(text.removeprefix(start))
    if not _is_plain(parser.parse(text)):
        return ANYTHING
    text = TOKENS.sub(lambda token: "(?:" if token[0].startswith("(?P<") else token[0], text)
    return (f"(?:{text})" if "|" in text else text) + end


def _without_end(text: str) -> tuple[str, str]:
    for end in ENDS:
        rest = text.removesuffix(end)
        if rest != text and (len(rest) - len(rest.rstrip("\\"))) % 2 == 0:
            return rest, END
    return text, ""


def _is_plain(tree: Any) -> bool:
    """Return whether all of a parsed expression is plain."""
    for opcode, value in tree:
        if opcode not in PLAIN:
            return False
        if opcode is opcodes.BRANCH and not all(map(_is_plain, value[1])):
            return False
        if opcode is opcodes.SUBPATTERN and (value[1] or value[2] or not _is_plain(value[3])):
            return False
        if opcode in (opcodes.MAX_REPEAT, opcodes.MIN_REPEAT) and not _is_plain(value[2]):
            return False
    return True
