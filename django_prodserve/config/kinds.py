"""The kinds of option values: how each is parsed, displayed and written. Standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..utils.units import MIB, format_cpus, format_duration, format_size
from . import parsers


@dataclass(frozen=True)
class Kind:
    """Parses and formats the values of an option."""

    parse: Callable[[Any], Any]
    metavar: str = ""
    show: Callable[[Any], str] = str
    """Formats a value for people."""
    typed: Callable[[Any], str] = str
    """Formats a value as an operator writes it; ``parse`` reads it back."""
    example: str = ""
    """A value that the parser accepts, for messages."""
    is_switch: bool = False
    is_repeated: bool = False


def choice(*words: str, metavar: str = "") -> Kind:
    """Return a kind that accepts one of these words."""
    return Kind(parsers.one_of(*words), metavar or "|".join(words), example=words[0])


def _on_or_off(value: Any) -> str:
    return "on" if value else "off"


def _number(value: float) -> str:
    return f"{value:g}"


def _percent(value: float) -> str:
    return f"{value * 100:g}%"


def _octal(value: int) -> str:
    return f"{value:04o}"


def _list(value: tuple[str, ...]) -> str:
    return ", ".join(value) or "none"


def _size(value: int) -> str:
    return str(value) if value % MIB else f"{value // MIB}m"


def _formula(value: Any) -> str:
    return value.text if isinstance(value, parsers.Count) else str(value)


def _unless_zero(show: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a formatter for amounts in which 0 means no limit."""
    return lambda value: show(value) if value else "off"


def _or(word: str) -> Callable[[tuple[str, ...]], str]:
    return lambda value: ",".join(value) or word


SWITCH = Kind(parsers.boolean, show=_on_or_off, typed=_on_or_off, example="on", is_switch=True)
DURATION = Kind(parsers.duration, "TIME", _unless_zero(format_duration), _number, "30s")
SIZE = Kind(parsers.size, "SIZE", format_size, _size, "512m")
CPUS = Kind(parsers.cpus, "1.5|1500m", format_cpus, _number, "1.5")
COUNT = Kind(parsers.count, "N", _unless_zero(str), example="100")
POSITIVE = Kind(parsers.positive, "N", example="4")
THREADS = Kind(parsers.thread_range, "N|N..M", example="16")
HOPS = Kind(parsers.hops, "N", example="2")
WORKERS = Kind(parsers.worker_count, "N", typed=_formula, example="2")
SHARE = Kind(parsers.share, "SHARE", _percent, _percent, "10%")
UMASK = Kind(parsers.umask, "OCTAL", _octal, _octal, "007")
PATH = Kind(parsers.path, "PATH")
WARMUP = Kind(parsers.warmup, "PATH", example="/about/")
WORKER_CLASS = Kind(parsers.worker_class, "prodserve|gthread|sync|asgi|uvicorn", example="prodserve")
MANAGEMENT = Kind(parsers.management, "ADDRESS", example="9000")
REDIRECT = Kind(parsers.redirect, "ADDRESS", example="80")
HEADER = Kind(parsers.client_address_header, "NAME", example="X-Real-IP")
ADDRESSES = Kind(parsers.addresses, "ADDRESS", _list, _or(""), "127.0.0.1:8000", is_repeated=True)
FILES = Kind(parsers.paths, "PATH", _list, _or(""), is_repeated=True)
WORDS = Kind(parsers.words, "LIST", _list, _or(""))
PROCESSES = Kind(parsers.process_names, "NAME", _list, _or("none"), "tasks", is_repeated=True)
PROXIES = Kind(parsers.proxies, "LIST", _list, _or("none"), "private")
PROBES = Kind(parsers.probes, "LIVE,READY", _list, _or("off"), "/livez,/readyz")
CHECKS = Kind(parsers.checks, "LIST", _list, _or(""), "database,shop.health.queue")
ROADS = Kind(parsers.roads, "LIST", _list, _or(""), "shop:report=threads")
STATIC = Kind(
    parsers.boolean, example="on", typed=lambda mode: _on_or_off(mode not in (False, "off")), is_switch=True
)
"""A switch whose decision is a way to serve files: ``off``, or one of several words."""
