"""Whether library code is the code that was read and tested: a hash of its source.

The source is the same text on every Python; bytecode is not. A method that a library has replaced in memory
has another source, or none. Standard library alone.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any

PYTHONS = "__annotate__", "__annotate_func__"
"""What Python 3.14 adds to a class: functions that are not in the source."""


def fingerprint(*things: Callable[..., Any]) -> str:
    """Return a hash of these functions and of all in these classes; empty if a part has no source."""
    try:
        text = "\n".join(line for thing in things for line in _described(thing))
    except (OSError, TypeError, SyntaxError):  # no source file, or its text is not the loaded code
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(thing: Callable[..., Any]) -> Iterator[str]:
    """Yield the class's line, its slots and every function in it, without comments and empty lines."""
    if not isinstance(thing, type):
        yield from _function(thing.__qualname__, thing)
        return
    yield f"{thing.__qualname__}({', '.join(base.__qualname__ for base in thing.__bases__)})"
    yield f"slots {vars(thing).get('__slots__')}"
    for name, value in sorted(vars(thing).items()):
        inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if callable(inner) and not isinstance(inner, type) and name not in PYTHONS:
            yield from _function(f"{type(value).__name__} {name}", inner)


def _function(name: str, function: Any) -> Iterator[str]:
    """Yield a function's name, its defaults and its source."""
    if type(function) is not FunctionType or hasattr(function, "__wrapped__"):
        raise TypeError(f"{name} is not a plain function")
    yield f"{name} {function.__defaults__} {function.__kwdefaults__}"
    yield from _lines(function.__code__)


@cache
def _lines(code: CodeType) -> tuple[str, ...]:
    """Return the source of this code object; for functions, inspect looks through wrappers. 1 ms each."""
    lines = dedent(inspect.getsource(code)).splitlines()
    return tuple(line.rstrip() for line in lines if line.strip() and not line.strip().startswith("#"))
