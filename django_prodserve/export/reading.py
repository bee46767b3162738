"""Read numbers and commands out of a file that people have edited. Pure.

Patterns find single settings. A setting that is not found counts as the default of its program.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress

from ..utils.units import parse_size

SIGNS: Mapping[str, str] = {
    "cloudrun": r"serving\.knative\.dev",
    "kubernetes": r"^kind: *(Deployment|StatefulSet)",
    "kamal": r"^(servers|drain_timeout|deploy_timeout|proxy):",
    "render": r"^ +- type: *(web|pserv)|^ *(maxShutdownDelaySeconds|dockerCommand):",
    "compose": r"^services:",
    "fly": r"^\[http_service\]|^kill_timeout|^\[\[vm\]\]",
    "supervisor": r"^\[program:",
    "systemd-socket": r"^\[Socket\]",
    "systemd": r"^\[Service\]",
    "dockerfile": r"^FROM ",
    "nginx": r"^\s*(proxy_pass|upstream) ",
    "haproxy": r"^(frontend|backend|listen|defaults)\b",
    "caddy": r"^\s*reverse_proxy ",
    "procfile": r"^(web|release):",
}
"""What shows the kind of a file. The first that is found counts."""

_COMMANDS = r"ExecStart=|command *[:=]|CMD |args:|web:|app *= *\"|dockerCommand:|cmd:"
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


def kind_of(text: str) -> str:
    """Return the kind of a file; empty if nothing shows it."""
    return next((kind for kind, sign in SIGNS.items() if re.search(sign, text, re.MULTILINE)), "")


def without_comments(text: str) -> str:
    """Return the lines of a file that count."""
    return re.sub(r"(?m)^[ \t]*[#;].*\n?|(?<=\s)#(?!\{).*$", "", text)


def seconds(text: str, unit: str = "s") -> float:
    """Return a time such as ``90``, ``1min 30s`` or ``500ms`` in seconds; infinite if it has no limit."""
    if text.strip("\"'") in ("infinity", "off", "none"):
        return float("inf")
    total = 0.0
    for number, given in re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.lower()):
        total += float(number) * _UNITS.get(given or unit, 1.0)
    return total


def size(text: str) -> int:
    """Return a size such as ``10m`` in bytes; 0 if it is not a size."""
    with suppress(ValueError):
        return parse_size(text)
    return 0


def values(text: str, pattern: str) -> list[str]:
    """Return what a pattern finds in the lines of a file."""
    return re.findall(pattern, text, re.MULTILINE)


def command(text: str) -> list[str]:
    """Return the words behind ``prodserve`` in the command of a file, or in the head of a proxy's file."""
    for line in re.findall(rf"(?m)^.*(?:{_COMMANDS}).*$", without_comments(text).replace("\\\n", " ")):
        if (words := _behind(line)) is not None:
            return words
    head = re.search(r"(?m)^#   (prodserve\b.*)$", text)
    return (_behind(head[1]) or []) if head and "export" not in head[1] else []


def _behind(line: str) -> list[str] | None:
    words: list[str] = []
    with suppress(ValueError):
        listed = re.search(r"\[.*\]", line)
        words = [str(word) for word in json.loads(listed[0])] if listed else shlex.split(line)
        if len(words) == 3 and words[1] == "=":  # TOML: the command is one text
            words = shlex.split(words[2])
    for number, word in enumerate(words):
        if re.search(r"(^|[/\"=])(prodserve|django_prodserve)$", word):
            return [item.strip('"') for item in words[number + 1 :]]
    return None


def variables(text: str) -> Mapping[str, str]:
    """Return the variables of prodserve that a file sets."""
    return dict(_variables(without_comments(text)))


def _variables(text: str) -> Iterator[tuple[str, str]]:
    pattern = r"\b(PRODSERVE_[A-Z_]+)\b[\"']?\s*(?:[=:,]|\n)\s*(?:value:\s*)?[\"']?([^\"'\s}]+)"
    yield from re.findall(pattern, text)


def limits(text: str) -> Mapping[str, str]:
    """Return the CPUs and the memory to which a file limits the server, as an operator types them."""
    code = without_comments(text)
    patterns = {
        "cpus": r"(?:limits:[^}]{0,80}?cpus?: *|^ *cpus(?::| =) *)\"?(\d+(?:\.\d+)?m?)\b",
        "memory": r"(?:limits:[^}]{0,80}?memory: *|^ *memory(?::| =) *|^MemoryMax=)\"?(\d+[KMGTkmgt]?i?b?)\b",
    }
    found = {name: values(code, pattern) for name, pattern in patterns.items()}
    return {name: texts[0] for name, texts in found.items() if texts}
