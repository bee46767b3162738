"""Turn an operator's text into a value, or explain which values are valid.

Each parser's docstring completes the sentence "X is 'y', but must be ...". A parser accepts text (flags,
variables) or the value itself (settings). It raises ValueError, or ParseError with a sentence of its own.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from ..utils import units
from .parse_errors import ParseError, ParseErrors
from .trust import MAX_CHAIN, parse_trust, parse_witness

LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")
"""Prefixes of addresses that only this machine can reach."""


@dataclass(frozen=True)
class Count:
    """The number of workers: ``slope * n + offset`` for n whole CPUs; a plain number has slope 0."""

    slope: float
    offset: int
    text: str

    def workers(self, cpus: float) -> int:
        """Return the count for this many CPUs, at least 1. Fractions of a CPU are rounded up."""
        return max(1, math.floor(self.slope * math.ceil(cpus)) + self.offset)


def worker_count(raw: Any) -> Count | None:
    """a whole number from 1, auto, or a formula in n (CPUs) such as 2n+1."""
    text = str(raw).strip().lower().replace(" ", "").replace("*", "")
    if text == "auto":
        return None
    formula = re.fullmatch(r"(\d+(?:\.\d+)?)?n([+-]\d{1,4})?", text, re.ASCII)
    if formula:
        return Count(float(formula[1] or 1), int(formula[2] or 0), text)
    return Count(0, positive(raw), text)


@dataclass(frozen=True)
class ThreadRange:
    """Threads of a worker: how many there are at the start, and how many there may be."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}..{self.most}"


def thread_range(raw: Any) -> ThreadRange:
    """a whole number from 1, or a range such as 16..64."""
    least, dots, most = str(raw).partition("..") if not isinstance(raw, bool) else (raw, "", "")
    found = ThreadRange(positive(least), positive(most if dots else least))
    if found.least > found.most:
        raise ParseError(f"{raw} begins with its larger number.", f"Write {found.most}..{found.least}")
    return found


def positive(raw: Any) -> int:
    """a whole number from 1."""
    value = count(raw)
    if value < 1:
        raise ValueError(raw)
    return value


def count(raw: Any) -> int:
    """a whole number from 0."""
    if isinstance(raw, bool) or not re.fullmatch(r"\d{1,9}", str(raw).strip(), re.ASCII):
        raise ValueError(raw)
    return int(str(raw))


def hops(raw: Any) -> int:
    """a whole number from 1 to 16."""
    value = positive(raw)
    if value > MAX_CHAIN:
        raise ValueError(raw)
    return value


def boolean(raw: Any) -> bool:
    """on or off (also yes, no, true, false, 1, 0)."""
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in {"on", "yes", "true", "1"}:
        return True
    if word in {"off", "no", "false", "0"}:
        return False
    raise ValueError(raw)


def duration(raw: Any) -> float:
    """a time such as 30, 30s, 10m or 2h (seconds without a unit)."""
    return units.parse_duration(_text(raw))


def size(raw: Any) -> int:
    """an amount of memory such as 512m, 1.5g or 256MiB, at least 1 MiB."""
    value = units.parse_size(_text(raw))
    if value < units.MIB:
        raise ValueError(raw)
    return value


def share(raw: Any) -> float:
    """a share such as 10% or 0.1, above 0 and up to 100%."""
    text = _text(raw).strip()
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value <= 1:
        raise ValueError(raw)
    return value


def cpus(raw: Any) -> float:
    """a number of CPUs above 0, such as 2, 1.5 or 1500m."""
    return units.parse_cpus(_text(raw))


def umask(raw: Any) -> int:
    """an octal mask such as 007 or 0o077."""
    value = raw if isinstance(raw, int) else int(str(raw), 8)
    if isinstance(raw, bool) or not 0 <= value <= 0o777:
        raise ValueError(raw)
    return value


def path(raw: Any) -> str:
    """a path."""
    text = os.fspath(raw)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(raw)
    return text


def paths(raw: Any) -> tuple[str, ...]:
    """a path, or a list of paths; as text, they are separated by commas."""
    parts = raw.split(",") if isinstance(raw, str) else [raw] if isinstance(raw, os.PathLike) else list(raw)
    if not parts:
        raise ValueError(raw)
    return tuple(path(part.strip() if isinstance(part, str) else part) for part in parts)


def warmup(raw: Any) -> str:
    """a path that begins with / such as /about/, or off."""
    text = str(raw)
    if raw is False or text.lower() == "off":
        return "off"
    if not text.startswith("/"):
        raise ValueError(raw)
    return text


def words(raw: Any) -> tuple[str, ...]:
    """a list of words, separated by commas."""
    parts = raw.replace(",", " ").split() if isinstance(raw, str) else list(raw)
    if not parts or not all(isinstance(part, str) for part in parts):
        raise ValueError(raw)
    return tuple(parts)


def process_names(raw: Any) -> tuple[str, ...]:
    """a list of names in PRODSERVE["PROCESSES"], separated by commas, or all."""
    if raw is False or (isinstance(raw, str) and raw.strip().lower() in ("none", "off")):
        return ()
    return tuple(
        dict.fromkeys(name for part in words([raw] if isinstance(raw, str) else raw) for name in words(part))
    )


def proxies(raw: Any) -> tuple[str, ...]:
    """a list of loopback, private, unix, none, *, addresses and networks, separated by commas."""
    names = words(raw)
    wrong = []
    for name in names:
        try:
            parse_trust([name])
        except ParseError as error:
            wrong.append(error)
    if wrong:
        raise ParseErrors(wrong)
    return names


def client_address_header(raw: Any) -> str:
    """the name of a header, such as X-Real-IP."""
    name = str(raw).strip()
    parse_witness(name)
    return name


def probes(raw: Any) -> tuple[str, ...]:
    """two paths that begin with /, for liveness and readiness, such as /livez,/readyz; or off."""
    if raw is False or (isinstance(raw, str) and raw.strip().lower() == "off"):
        return ()
    paths = words(raw)
    if len({*paths}) != 2 or not all(re.fullmatch(r"(/[\w.~-]+)+/?", path, re.ASCII) for path in paths):
        raise ValueError(raw)
    return paths


def checks(raw: Any) -> tuple[str, ...]:
    """a list of database and dotted paths of functions such as shop.health.queue, separated by commas."""
    names = words(raw) if raw else ()
    if not all(name == "database" or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) for name in names):
        raise ValueError(raw)
    return names


def roads(raw: Any) -> tuple[str, ...]:
    """routes or how paths begin, each with =threads or =loop, separated by commas."""
    entries = [f"{name}={road}" for name, road in raw.items()] if isinstance(raw, Mapping) else words(raw)
    wrong = []
    for entry in entries:
        name, _, road = entry.rpartition("=")
        if not name:
            wrong.append(ParseError(f"{entry!r} has no road.", f"For example: {entry}=threads"))
        elif road not in ("threads", "loop"):
            guess = difflib.get_close_matches(road, ("threads", "loop"), n=1)
            fix = f"Did you mean {guess[0]!r}?" if guess else "Write threads or loop."
            wrong.append(ParseError(f"the road of {name!r} is {road!r}.", fix))
    if wrong:
        raise ParseErrors(wrong)
    return tuple(entries)


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a parser that accepts these words."""

    def parse(raw: Any) -> str:
        if str(raw).lower() not in choices:
            raise ValueError(raw)
        return str(raw).lower()

    parse.__doc__ = f"{', '.join(choices[:-1])} or {choices[-1]}."
    return parse


WORKER_CLASSES = {
    "prodserve": "prodserve",
    "django_prodserve.worker.prodserveworker": "prodserve",
    "gthread": "gthread",
    "gunicorn.workers.gthread.threadworker": "gthread",
    "sync": "sync",
    "gunicorn.workers.sync.syncworker": "sync",
    "asgi": "asgi",
    "gunicorn.workers.gasgi.asgiworker": "asgi",
    "django_prodserve.worker.gunicorn_asgi.asgiworker": "asgi",
    "uvicorn": "uvicorn",
    "uvicorn.workers.uvicornworker": "uvicorn",
    "uvicorn.workers.uvicornh11worker": "uvicorn",
    "uvicorn_worker.uvicornworker": "uvicorn",
    "uvicorn_worker.uvicornh11worker": "uvicorn",
    "gunicorn.workers.uvicornworker": "uvicorn",
    "django_prodserve.worker.uvicorn.uvicornworker": "uvicorn",
}
"""Each class, and the names under which tutorials have it."""


def worker_class(raw: Any) -> str:
    """prodserve, gthread, sync, asgi or uvicorn."""
    name = str(raw).strip()
    known = WORKER_CLASSES.get(name.lower())
    if known:
        return known
    if re.search("uvicorn|asgi|hypercorn|daphne", name, re.IGNORECASE):
        raise ParseError(
            f"{name!r} is not supported.",
            "Remove the option: the default worker runs async views and websockets itself. "
            "Or write uvicorn or asgi.",
        )
    instead = "Remove the option. For requests that wait: --threads 64, or async views on the default worker."
    if re.search("gevent|eventlet", name, re.IGNORECASE):
        raise ParseError(
            f"{name!r} is not supported: it must patch Python before Django is imported, a request costs "
            "twice the CPU, and async views fail.",
            instead,
        )
    if re.search("tornado", name, re.IGNORECASE):
        raise ParseError(f"{name!r} is not supported: Gunicorn has removed its workers for it.", instead)
    raise ValueError(raw)


def addresses(raw: Any) -> tuple[str, ...]:
    """HOST:PORT, PORT, unix:PATH or fd://N."""
    parts = [raw] if isinstance(raw, int) and not isinstance(raw, bool) else raw
    if isinstance(raw, str):
        parts = [part.strip() for part in raw.split(",")]
    if not isinstance(parts, Sequence) or not parts:
        raise ValueError(raw)
    return tuple(address(part) for item in parts for part in str(item).split(","))


def address(raw: str) -> str:
    """Return one address in its full form: ``127.0.0.1:8000``, ``[::1]:80``, ``unix:/run/x``, ``:80``."""
    text = str(raw).strip()
    if re.match(r"https?://", text):
        text = text.split("//", 1)[1].rstrip("/")
    if text.startswith(("unix:", "/")):
        name = re.sub("^unix:(//)?", "", text)
        if not name:
            raise _no_address(f"{raw!r} lacks the path of the unix socket.", "unix:/run/app.sock")
        return f"unix:{name}"
    if re.fullmatch(r"fd://\d+", text, re.ASCII):
        return text
    return _host_and_port(text, raw)


def management(raw: Any) -> str | None:
    """HOST:PORT, PORT (of 127.0.0.1), unix:PATH or off."""
    text = str(raw).strip()
    if raw is False or text.lower() == "off":
        return None
    if re.fullmatch(r":?\d+", text, re.ASCII):
        text = f"127.0.0.1:{text.lstrip(':')}"
    if text.startswith("fd://"):
        raise _no_address(f"{raw!r} cannot be the management address.", "HOST:PORT, PORT or unix:PATH")
    return address(text)


def redirect(raw: Any) -> str | None:
    """HOST:PORT, PORT, unix:PATH, fd://N or off."""
    if raw is False or str(raw).strip().lower() == "off":
        return None
    return address(raw)


def _host_and_port(text: str, raw: str) -> str:
    """Return ``host:port``; a port without a host stays open (``:8000``) for the plan to decide."""
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", text):
        raise _no_address(f"{raw!r} lacks a port.", f"{text}:8000")
    if re.fullmatch(r"\[?[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*\]?", text, re.I):
        raise _about_ipv6(text.strip("[]"), raw)
    match = re.fullmatch(r"(?:(?P<host>\[[0-9a-fA-F:.%\w]+\]|[\w.*-]*):)?(?P<port>\d+)", text)
    if not match:
        raise _unreadable(text, raw)
    if not 0 <= int(match["port"]) <= 65535:
        fix = f"{match['host'] or ''}:8000".removeprefix(":")
        raise _no_address(f"Port {match['port']} of {raw!r} is out of range (0-65535).", fix)
    host = match["host"]
    if host is None:
        return f":{int(match['port'])}"
    return f"{'0.0.0.0' if host in ('', '*') else host}:{int(match['port'])}"


def _no_address(message: str, write: str = "") -> ParseError:
    return ParseError(message, f"Write {write}" if write else "", code="bad-address")


def _unreadable(text: str, raw: str) -> ParseError:
    """Return the error for a text that is not an address."""
    if re.fullmatch(r"[a-zA-Z][\w.-]*", text, re.ASCII):
        return _no_address(f"{raw!r} lacks a port.", f"{text}:8000")
    host, _, port = text.rpartition(":")
    if host and re.fullmatch(r"[\w.*-]*", host) and not port.isdecimal():
        return _no_address(f"Port {port!r} of {raw!r} is not a number.", f"{host}:8000")
    return _no_address(f"{raw!r} is not an address.", "HOST:PORT, PORT, unix:PATH or fd://N")


def _about_ipv6(text: str, raw: str) -> ParseError:
    """Return the fix for an IPv6 address without its port, or without its brackets."""
    host, _, port = text.rpartition(":")
    if not raw.lstrip().startswith("[") and re.fullmatch(r"\d{4,5}", port) and _is_ipv6(host):
        return _no_address(f"{raw!r} needs brackets around the address.", f"'[{host}]:{port}'")
    if not _is_ipv6(text):
        return _no_address(f"{raw!r} is not an address.", "HOST:PORT, such as '[::1]:8000' for IPv6")
    return _no_address(f"{raw!r} lacks a port.", f"'[{text}]:8000'")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _text(raw: Any) -> str:
    """Return the text of a value. Numbers are accepted as text; booleans are not numbers here."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(raw)
    return str(raw)
