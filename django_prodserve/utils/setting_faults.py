"""Name the setting behind an error that no line of the project raised, and the line that sets it.

Used only after a failure: a value of an odd type that works is not an error.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.utils.functional import Promise

MISSING = object()
Test = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return value is None or isinstance(value, (str, Promise))


def _path(value: Any) -> bool:
    return _text(value) or isinstance(value, os.PathLike)


def _number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _mapping(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _mappings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _sequence(value: Any) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


def _texts(value: Any) -> bool:
    return _sequence(value) and all(isinstance(item, (str, Promise)) for item in value)


def _pair(value: Any) -> bool:
    return value is None or (_texts(value) and len(value) == 2)


KINDS: dict[str, tuple[Test, str]] = {
    **dict.fromkeys(
        (
            "FORCE_SCRIPT_NAME",
            "SECURE_CROSS_ORIGIN_OPENER_POLICY",
            "MEDIA_URL",
            "ROOT_URLCONF",
            "SESSION_ENGINE",
            "STATIC_URL",
            "TIME_ZONE",
            "WSGI_APPLICATION",
            "WHITENOISE_STATIC_PREFIX",
        ),
        (_text, "text"),
    ),
    **dict.fromkeys(("MEDIA_ROOT", "STATIC_ROOT", "WHITENOISE_ROOT"), (_path, "a path")),
    **dict.fromkeys(("SECURE_HSTS_SECONDS", "WHITENOISE_MAX_AGE"), (_number, "a number")),
    **dict.fromkeys(("LOGGING", "PRODSERVE", "WHITENOISE_MIMETYPES"), (_mapping, "a dictionary")),
    **dict.fromkeys(
        ("CACHES", "CHANNEL_LAYERS", "DATABASES", "STORAGES"), (_mappings, "a dictionary of dictionaries")
    ),
    **dict.fromkeys(("DATABASE_ROUTERS", "STATICFILES_DIRS", "TEMPLATES"), (_sequence, "a list")),
    **dict.fromkeys(
        (
            "ALLOWED_HOSTS",
            "INSTALLED_APPS",
            "MIDDLEWARE",
            "SECURE_REDIRECT_EXEMPT",
            "SILENCED_SYSTEM_CHECKS",
            "STATICFILES_FINDERS",
        ),
        (_texts, "a list of texts"),
    ),
    "SECURE_REFERRER_POLICY": (lambda value: _text(value) or _texts(value), "text, or a list of texts"),
    "SECURE_PROXY_SSL_HEADER": (_pair, "a pair of texts: a header and its value"),
}


def blamed(error: BaseException, short: Callable[[str], str]) -> str:
    """Return the fault of a setting, or which setting the failing code read; empty if neither is found."""
    for name, (fits, wanted) in KINDS.items():
        value = value_of(name)
        if value is not MISSING and not fits(value):
            return f"{_misfit(name, value)}, but must be {wanted}{_placed(name, short)}"
    for name in _read_by(error):
        if value_of(name) is not MISSING and (where := _placed(name, short)):
            return f"It uses the setting {name}{where}"
    return ""


def _misfit(name: str, value: Any) -> str:
    """Return a setting with its value, or with the odd part of it."""
    if _sequence(value) and KINDS[name][0] is _texts:
        odd = next(item for item in value if not isinstance(item, (str, Promise)))
        return f"{name} holds {_shown(odd)}"
    if isinstance(value, dict):
        key = next(key for key, item in value.items() if not isinstance(item, dict))
        return f"{name}[{key!r}] is {_shown(value[key])}"
    return f"{name} is {_shown(value)}"


def _read_by(error: BaseException) -> Iterator[str]:
    """Yield settings that name a failed import, then those in the lines that led to the error."""
    if missing := _missing_module(error):
        source = settings._wrapped if settings.configured else _module()
        yield from (name for name in dir(source) if name.isupper() and missing in repr(value_of(name)))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        yield from reversed(re.findall(r"\b(?:settings|self)\.([A-Z][A-Z_]{3,})\b", frame.line or ""))


def _missing_module(error: BaseException | None) -> str:
    """Return the module whose import failed, here or in a cause; empty if none did."""
    while error is not None:
        if isinstance(error, ImportError) and error.name:
            return error.name
        error = error.__cause__
    return ""


def value_of(name: str) -> Any:
    """Return a setting's value, even if Django has rejected the settings; MISSING if there is none."""
    source = settings._wrapped if settings.configured else _module()
    return getattr(source, name, MISSING)


def _module() -> Any:
    return sys.modules.get(os.environ.get("DJANGO_SETTINGS_MODULE", ""))


def _shown(value: Any) -> str:
    text = repr(value)
    if SECRET.search(text):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _placed(name: str, short: Callable[[str], str]) -> str:
    """Return `` (file, line N: code)`` of the line that sets it last; empty if no file shows one.

    A line that may hold a secret is named by its number alone: the message goes to a log.
    """
    for file, number, line in _assignments(_module(), name, set()):
        code = "" if SECRET.search(line) else f": {line}"
        return f" ({short(file)}, line {number}{code})"
    return ""


SECRET = re.compile(r"API|AUTH|TOKEN|KEY|SECRET|PASS|SIGNATURE|COOKIE|://\S*@", re.IGNORECASE)
"""Names that Django's debug page hides, and addresses with a user in them."""


def _assignments(module: Any, name: str, seen: set[str]) -> Iterator[tuple[str, int, str]]:
    """Yield the last assignment in a settings module, or in a module that it imports with ``*``."""
    file = getattr(module, "__file__", None)
    if not file or file in seen:
        return
    seen.add(file)
    try:
        with open(file, encoding="utf-8") as source:
            text = source.read()
        tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError):
        return
    numbers = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt) and name in _names(node)]
    if numbers:
        yield file, max(numbers), text.splitlines()[max(numbers) - 1].strip()[:80]
    for node in reversed(tree.body):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            package = str(getattr(module, "__package__", "") or "").rsplit(".", max(0, node.level - 1))[0]
            found = f"{package}.{node.module}" if node.level and node.module else node.module
            yield from _assignments(sys.modules.get(found or package), name, seen)


def _names(node: ast.AST) -> set[str]:
    """Return the names that a statement sets, directly or in a part."""
    if isinstance(node, ast.Assign):
        targets: list[Any] = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    elif isinstance(node, (ast.ImportFrom, ast.Import)):
        return {alias.asname or alias.name for alias in node.names}
    else:
        return set()
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
