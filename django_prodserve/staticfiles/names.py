"""Check that every file named in a ``{% static %}`` tag exists, before the port listens.

Lives in the command's process, main thread; reads templates, changes nothing. It checks only literal names in
the templates that the project's engines would load first; each finding is a line, never an error. Builds the
template engines: DEBUG must have its final value before.
"""

from __future__ import annotations

import os
import re
import site
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.template import engines
from django.template.backends.django import DjangoTemplates
from django.template.base import Lexer, Token, TokenType
from django.utils.text import unescape_string_literal

from .asking import SilentError, ask, ask_storage, engines_are_known, silent_finders
from .choice import walk
from .collect import list_sources

LITERAL = re.compile(r""""[^"]*"|'[^']*'""")
JINJA_CALL = re.compile(r"""\bstatic\(\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)')\s*\)""")
ENDS_A_NAME = frozenset("\"' \t\r\n)>;,")  # what may follow a tag whose output is a complete URL


@dataclass(frozen=True)
class Use:
    """One literal name in a template."""

    template: str
    line: int
    name: str


@dataclass(frozen=True)
class KnownNames:
    """The existing names: served ones, and those that are only in the sources."""

    served: frozenset[str]
    sources: frozenset[str]

    def problem(self, name: str) -> str:
        """Return the problem of a name, or an empty text."""
        wanted = urlsplit(unquote(name)).path.strip().lstrip("/")
        if not wanted or wanted.endswith("/") or name.startswith(("http:", "https:", "//")):
            return ""
        if wanted in self.served or any(known.startswith(f"{wanted}/") for known in self.served):
            return ""
        if wanted in self.sources:
            return "is not in STATIC_ROOT; run manage.py collectstatic"
        near = get_close_matches(wanted, self.served, n=1)
        return "no such file" + (f"; did you mean {near[0]!r}?" if near else "")


def find_missing(*, third_party: bool) -> list[str]:
    """Return a line for each literal that names no file, in the order of the templates."""
    known = known_names()
    lines = [*filter(None, [ask_storage().problem]), *silent_finders().values()]

    def find() -> list[Use]:
        return [use for use in all_uses() if third_party or not is_third_party(use.template)]

    try:
        if engines_are_known():
            uses = find()
        else:
            uses = ask("The template engines (TEMPLATES)", find, "Names of static files are not checked")
    except SilentError as error:
        return [*lines, str(error)]
    except (ImportError, ImproperlyConfigured) as error:
        return [*lines, f"TEMPLATES cannot be loaded: {error}"]
    for use in uses:
        problem = known.problem(use.name)
        if problem:
            lines.append(f"{shorten(use.template)}:{use.line}: static {use.name!r}: {problem}")
    return lines


def known_names() -> KnownNames:
    """Return every name that a template may use."""
    sources = frozenset(list_sources()[0])
    served = set(sources)
    # Query only a local storage: a remote one needs the network, and may have other files.
    told = ask_storage()
    if told.location:
        root = Path(told.location)
        inside = {path.relative_to(root).as_posix() for path in walk(root)}
        if inside:
            served = inside | told.names
    return KnownNames(frozenset(served), sources)


def all_uses() -> Iterator[Use]:
    """Yield the literals of every template that an engine of the project can load."""
    for engine in engines.all():
        if isinstance(engine, DjangoTemplates):
            places, read = [*loader_directories(engine.engine.template_loaders)], django_uses
        else:
            places, read = [*map(str, engine.template_dirs)], jinja_uses
        for path, text in texts(dict.fromkeys(places)):
            yield from read(path, text)


def loader_directories(loaders: Iterable[Any]) -> Iterator[str]:
    """Yield the directories of Django's loaders; a cached loader returns those of the loaders in it."""
    for loader in loaders:
        yield from loader_directories(getattr(loader, "loaders", ()))
        if hasattr(loader, "get_dirs"):
            yield from map(str, loader.get_dirs())


def texts(directories: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield path and text of the templates that mention static; the first of a name hides the others."""
    seen: set[str] = set()
    for directory in directories:
        for path in walk(Path(directory)):
            name = path.relative_to(directory).as_posix()
            if name in seen:
                continue
            seen.add(name)
            try:
                content = path.read_bytes()
                if b"static" in content:
                    yield str(path), content.decode()
            except (OSError, UnicodeDecodeError):
                continue  # Django reports a template that it cannot read when a page needs it


def django_uses(path: str, text: str) -> Iterator[Use]:
    """Yield the literals in Django's template language, outside comments."""
    tokens = Lexer(text).tokenize()
    in_comment = False
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.token_type is not TokenType.BLOCK:
            continue
        command = token.contents.split(None, 1)[0] if token.contents else ""
        in_comment = command == "comment" or (in_comment and command != "endcomment")
        if command == "static" and not in_comment:
            name = whole_name(token, following)
            if name is not None:
                yield Use(path, token.lineno or 0, name)


def whole_name(token: Token, following: Token | None) -> str | None:
    """Return the tag's literal, or None if it is a variable or only the start of a name."""
    _, *bits = token.split_contents()
    if not bits or not LITERAL.fullmatch(bits[0]):
        return None
    name = unescape_string_literal(bits[0])
    # <img src="{% static 'flags/f-' %}{{ country }}.svg"> does not name a file yet.
    return name if len(bits) > 1 or following is None or _ends_a_name(following) else None


def _ends_a_name(token: Token) -> bool:
    if token.token_type is TokenType.BLOCK:
        return token.contents.startswith(("end", "el"))
    return token.token_type is TokenType.TEXT and token.contents[:1] in ENDS_A_NAME


def jinja_uses(path: str, text: str) -> Iterator[Use]:
    """Yield the literals of ``static()`` calls in other languages, such as Jinja2."""
    for match in JINJA_CALL.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Use(path, line, match["double"] or match["single"] or "")


def is_third_party(path: str) -> bool:
    """Return whether a template is part of an installed package."""
    return any(path.startswith(f"{place}{os.sep}") for place in site.getsitepackages())


def shorten(path: str) -> str:
    """Return a path relative to the project."""
    base = str(getattr(settings, "BASE_DIR", None) or Path.cwd())
    return path.removeprefix(f"{base}{os.sep}")
