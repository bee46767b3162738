"""What is put into a cache is found there for as long as the dry run lasts, and no server or file sees it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

OWN = (LocMemCache, DummyCache, DatabaseCache)
"""What leaves nothing anyway: it lies in this process, or in a database that is rolled back."""
OPERATIONS = {
    name
    for kind in (BaseCache, LocMemCache)
    for name, value in vars(kind).items()
    if callable(value) and not name.startswith("_")
}
"""What every backend can do."""


def hold_back() -> None:
    """Begin: each cache keeps its class and its settings, and is empty."""
    make = CacheHandler.create_connection

    def create_connection(self: CacheHandler, alias: str) -> Any:
        return _held(make(self, alias), alias)

    CacheHandler.create_connection = create_connection  # type: ignore[method-assign]
    for alias in caches.settings:
        if alias in _opened():
            _held(caches[alias], alias)


def _opened() -> set[str]:
    """Return the aliases that this thread has used."""
    return {alias for alias in caches.settings if hasattr(caches._connections, alias)}  # type: ignore[attr-defined]


def _held(cache: Any, alias: str) -> Any:
    """Turn a cache into one of the same class whose entries lie in this process."""
    if isinstance(cache, OWN):
        return cache
    kept = LocMemCache(f"prodserve-dry-run-{alias}", {**caches.settings[alias], "OPTIONS": {}})
    held = {name: _tolerant(getattr(kept, name)) for name in OPERATIONS}
    held["set"] = _tolerant(kept.set, kept.add)
    vars(cache).update(held, close=lambda **kwargs: None)
    return cache


def _tolerant(operation: Callable[..., Any], if_new: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return an operation that does without what a backend adds to it, but for django-redis' ``nx``."""
    known = signature(operation).parameters

    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = if_new if if_new and kwargs.get("nx") else operation
        if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
            kwargs = {name: value for name, value in kwargs.items() if name in known}
        return chosen(*args, **kwargs)

    return call
