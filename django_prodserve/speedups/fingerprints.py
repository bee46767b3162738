"""Whether library code is the code that was read and tested: a hash of its source.

The source is the same text on every Python; bytecode is not. A method that a library has replaced in memory
has another source, or none. Standard library alone.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import cache
from textwrap import dedent
from types import CodeType, FunctionType


def fingerprint(*kinds: type) -> str:
    """Return a hash of everything that these classes define; empty if a part has no source."""
    try:
        text = "\n".join(line for kind in kinds for line in _described(kind))
    except (OSError, TypeError, SyntaxError):  # no source file, or its text is not the loaded code
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(kind: type) -> Iterator[str]:
    """Yield the class's line, its slots and every function in it, without comments and empty lines."""
    yield f"{kind.__qualname__}({', '.join(base.__qualname__ for base in kind.__bases__)})"
    yield f"slots {vars(kind).get('__slots__')}"
    for name, value in sorted(vars(kind).items()):
        inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if not callable(inner) or isinstance(inner, type):
            continue
        if type(inner) is not FunctionType or hasattr(inner, "__wrapped__"):
            raise TypeError(f"{name} is not a plain function")
        yield f"{type(value).__name__} {name} {inner.__defaults__} {inner.__kwdefaults__}"
        yield from _lines(inner.__code__)


@cache
def _lines(code: CodeType) -> tuple[str, ...]:
    """Return the source of this code object; for functions, inspect looks through wrappers. 1 ms each."""
    lines = dedent(inspect.getsource(code)).splitlines()
    return tuple(line.rstrip() for line in lines if line.strip() and not line.strip().startswith("#"))
