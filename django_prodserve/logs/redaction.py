"""Redact query strings, or parameters by name, from logs. Pure; standard library alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_plus

HIDDEN = "[redacted]"
WHOLE = "query"
"""The word that means the whole query string."""
QUERY = re.compile(r"\?[^\s'\"]*")


class Redaction:
    """Hides whole query strings, or the values of some parameters; case does not matter."""

    def __init__(self, words: Sequence[str]) -> None:
        names = {word.lower() for word in words}
        self.whole = WHOLE in names
        self.names = names - {WHOLE}
        self.is_on = bool(names)
        self._hint = re.compile("|".join([*map(re.escape, self.names), "%", r"\+"]), re.IGNORECASE)

    def query(self, text: str) -> str:
        """Return a query string without the redacted parts."""
        if not text or not self.is_on:
            return text
        if self.whole:
            return HIDDEN
        if not self._hint.search(text):  # the usual case
            return text
        return "".join(map(self._parameter, re.split("([&;])", text)))

    def _parameter(self, text: str) -> str:
        name, equals, _ = text.partition("=")
        plain = unquote_plus(name) if "%" in name or "+" in name else name
        return f"{name}={HIDDEN}" if equals and plain.strip().lower() in self.names else text

    def url(self, text: str) -> str:
        """Return a URL, or a request target, redacted in the same way; a fragment counts as a query."""
        if not self.is_on:
            return text
        path, mark, fragment = text.partition("#")
        path, question, query = path.partition("?")
        return f"{path}{question}{self.query(query)}{mark}{self.query(fragment)}"

    def prose(self, text: str) -> str:
        """Redact URLs in a sentence."""
        return QUERY.sub(lambda found: self.url(found[0]), text) if self.is_on else text
