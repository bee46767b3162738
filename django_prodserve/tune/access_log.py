"""Paths and their shares from an access log: text in the combined format, ours, or JSON. Pure.

One line in any of these formats names a request:

    10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /shop/ HTTP/1.1" 200 5120 "-" "Mozilla/5.0"
    {"method": "GET", "path": "/shop/", "query": "page=2", "status": 200, "route": "shop:list", ...}
    GET /shop/ 200 12.3 ms

Text before it is ignored, such as the prefix of a container's log.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from .choices import Choice

COMBINED = re.compile(
    r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[\d.]+" (?P<status>\d{3})\b'
    r'(?: \S+ "[^"]*" "[^"]*" \S+ (?P<route>\S+) [\d.]+ms [\d.]+ms)?'
)
SHORT = re.compile(r"\b(?P<method>[A-Z]+) (?P<target>/\S*) (?P<status>\d{3}) [\d.]+ ms$")
TARGETS = 8
"""Addresses of one route that are sent in turn."""
REDACTED = "[redacted]"


class Entry(NamedTuple):
    """One request of a log."""

    method: str
    target: str
    status: int
    route: str


@dataclass
class Read:
    """What a log has shown."""

    groups: dict[str, Counter[str]] = field(default_factory=dict)
    """Successful GET requests: by route, or by path if no route is known, the count of each address."""
    lines: int = 0
    requests: int = 0
    others: int = 0
    """Requests that are not measured: other methods, and other statuses than 2xx."""

    def add(self, entry: Entry) -> None:
        """Count one request."""
        self.requests += 1
        if entry.method != "GET" or not 200 <= entry.status < 300:
            self.others += 1
            return
        path, _, query = entry.target.partition("?")
        target = path if REDACTED in query else entry.target
        self.groups.setdefault(entry.route or path, Counter())[target] += 1

    def choices(self, most: int) -> list[Choice]:
        """Return the groups with most requests, and each one's share of these requests."""
        ordered = sorted(self.groups.items(), key=lambda item: -item[1].total())[:most]
        total = sum(counts.total() for _, counts in ordered)
        found = []
        for _, counts in ordered:
            targets = tuple(target for target, _ in counts.most_common(TARGETS))
            found.append(Choice(targets=targets, share=counts.total() / total))
        return found


def read(lines: Iterable[str]) -> Read:
    """Read a log; lines in other formats are only counted."""
    found = Read()
    for line in lines:
        found.lines += 1
        if entry := parse(line):
            found.add(entry)
    return found


def parse(line: str) -> Entry | None:
    """Return the request of a line; None if the line names none."""
    start = line.find("{")
    if start >= 0 and (entry := _from_json(line[start:])):
        return entry
    if match := COMBINED.search(line) or SHORT.search(line.rstrip()):
        route = match.groupdict().get("route") or ""
        return _entry(match["method"], match["target"], match["status"], "" if route == "-" else route)
    return None


def _from_json(text: str) -> Entry | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not found.get("method") or not found.get("path"):
        return None
    query = found.get("query")
    target = f"{found['path']}?{query}" if query else str(found["path"])
    return _entry(str(found["method"]), target, str(found.get("status", "")), str(found.get("route") or ""))


def _entry(method: str, target: str, status: str, route: str) -> Entry | None:
    if "://" in target.partition("?")[0]:  # a client that wrote the whole address
        target = "/" + target.partition("://")[2].partition("/")[2]
    if not target.startswith("/") or not status.isdecimal() or not target.isascii():
        return None
    return Entry(method, target, int(status), route)
