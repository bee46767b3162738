"""Read and write amounts as operators do: ``30s``, ``512m``, ``1500m`` CPUs. Standard library alone."""

from __future__ import annotations

import math
import re
import time

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SIZE_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Return bytes for ``512m``, ``1.5g``, ``256MiB``, ``256Mi`` or a number; units are powers of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:(?<=[kmgt])i)?b?", text.strip().lower(), re.ASCII)
    if not match:
        raise ValueError(text)
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def parse_duration(text: str) -> float:
    """Return seconds for ``30``, ``30s``, ``1.5m``, ``2h``, ``1d`` or ``500ms``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|[smhd]?)", text.strip().lower(), re.ASCII)
    if not match:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def parse_cpus(text: str) -> float:
    """Return CPUs for ``1.5`` or Kubernetes' ``1500m``; always more than 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text.strip().lower(), re.ASCII)
    cpus = float(match[1]) / (1000 if match[2] else 1) if match else 0.0
    if not 0 < cpus < math.inf:
        raise ValueError(text)
    return cpus


def format_size(size: float) -> str:
    """Write bytes for people: ``512 MiB``, ``1.5 GiB``."""
    for unit, name in ((1024 * GIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{_short(size / unit)} {name}"
    return f"{int(size)} B"


def format_duration(seconds: float) -> str:
    """Write seconds for people: ``0.8 s``, ``30 s``, ``10 min``, ``2 h``."""
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{int(seconds // unit)} {name}"
    return f"{_short(seconds)} s"


def format_latency(seconds: float) -> str:
    """Write how long a request takes for people: ``0.4 ms``, ``12 ms``, ``2.1 s``."""
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.{0 if seconds >= 0.00995 else 1}f} ms"


def format_age(seconds: float) -> str:
    """Write how long ago something was: ``4 s``, ``12 min``, ``3 h``, ``5 days``."""
    for unit, name in ((2 * 86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / (86400 if name == 'days' else unit):.0f} {name}"
    return f"{seconds:.0f} s"


def counted(number: int, noun: str) -> str:
    """Write a number of things: ``1 request``, ``27,800 requests``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_count(value: float) -> str:
    """Write a number, or a rate, for people: ``27,800``, ``57``, ``3.4``, ``0.02``."""
    if value >= 9.95 or not value:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value >= 0.095 else f"{max(value, 0.01):.1g}"


def format_share(share: float) -> str:
    """Write a share from 0 to 1 for people: ``5 %``, ``0.3 %``."""
    return f"{format_count(100 * share)} %"


def format_clock(seconds: float) -> str:
    """Write a time of day, from seconds since 1970: ``14:03:22 UTC``."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(seconds))


def format_cpus(cpus: float) -> str:
    """Write a number of CPUs for people: ``1 CPU``, ``0.5 CPUs``."""
    return f"{cpus:.3g} CPU{'' if cpus == 1 else 's'}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
