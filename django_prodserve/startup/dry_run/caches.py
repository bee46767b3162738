"""Cache entries stay in this process during the dry run; no cache server and no file sees them."""

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
"""Backends without lasting effects: in this process, or in a database that is rolled back."""
OPERATIONS = {
    name
    for kind in (BaseCache, LocMemCache)
    for name, value in vars(kind).items()
    if callable(value) and not name.startswith("_")
}
"""The operations of every backend."""


def hold_back() -> None:
    """Start: each cache keeps its class and its settings, and is empty."""
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
    """Make a cache store its entries in this process, with its class unchanged, and return it."""
    if isinstance(cache, OWN):
        return cache
    kept = LocMemCache(f"prodserve-dry-run-{alias}", {**caches.settings[alias], "OPTIONS": {}})
    held = {name: _tolerant(getattr(kept, name)) for name in OPERATIONS}
    held["set"] = _tolerant(kept.set, kept.add)
    vars(cache).update(held, close=lambda **kwargs: None)
    return cache


def _tolerant(operation: Callable[..., Any], if_new: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return an operation that ignores a backend's extra arguments, except ``nx`` of django-redis."""
    known = signature(operation).parameters

    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = if_new if if_new and kwargs.get("nx") else operation
        if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values()):
            kwargs = {name: value for name, value in kwargs.items() if name in known}
        return chosen(*args, **kwargs)

    return call
