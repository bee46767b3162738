"""Run the load client, and read what it has measured. Lives in the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ProdserveError
from . import client
from .server import LOOPBACK

SPARE_SECONDS = 10.0
"""Seconds that the client gets to start, and to end."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a GET request for the project looks like: headers that its settings ask for."""

    host: str
    headers: tuple[tuple[str, str], ...] = ()

    def bytes_for(self, target: str) -> str:
        """Return the request, each character a byte."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {self.host}", "User-Agent: prodserve-tune", "Accept: */*"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the client has measured; times in seconds."""

    seconds: float
    requests: float
    """Answered with 2xx; a request at the edge counts by its part."""
    rate: float
    statuses: Mapping[int, int]
    errors: Mapping[str, int]
    mean: float
    p50: float
    p95: float
    p99: float
    server_cpu: float
    client_cpu: float
    machine_cpu: float
    """CPU time of everything on the CPUs that this process may use."""

    @property
    def sent(self) -> int:
        """Return all requests, whatever their status."""
        return sum(self.statuses.values())

    @property
    def failed(self) -> float:
        """Return the share of requests without a 2xx."""
        good = sum(number for status, number in self.statuses.items() if 200 <= status < 300)
        return 1 - good / self.sent if self.sent else 1.0

    def others_cpu(self) -> float:
        """Return the CPU time of everything but the server and the client."""
        return max(0.0, self.machine_cpu - self.server_cpu - self.client_cpu)


def run(
    request: Request,
    targets: Sequence[str],
    *,
    port: int,
    pids: Sequence[int],
    order: Sequence[int] = (0,),
    clients: int = 1,
    warm: float = 0.0,
    seconds: float,
    timeout: float,
    most: int = 0,
    drain: float = 3.0,
) -> Measured:
    """Keep the server busy, and return the results.

    ``most`` ends it after so many requests; requests of the last moment get ``drain`` seconds to end."""
    spec: dict[str, Any] = {
        "host": LOOPBACK,
        "port": port,
        "drain": drain,
        "requests": [request.bytes_for(target) for target in targets],
        "order": list(order),
        "connections": clients,
        "warm": warm,
        "seconds": seconds,
        "timeout": timeout,
        "most": most,
        "pids": list(pids),
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", os.path.abspath(client.__file__)],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        timeout=warm + seconds + drain + timeout + SPARE_SECONDS,
        check=False,
    )
    found = json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}
    if "rate" not in found:
        why = "a worker of the server has ended" if found.get("gone") else done.stderr.strip()[-300:]
        raise ProdserveError(f"The load client failed: {why or 'it was ended'}.", topic="tune")
    return Measured(
        **{name: found[name] for name in ("seconds", "requests", "rate", "mean", "p50", "p95", "p99")},
        statuses={int(status): number for status, number in found["statuses"].items()},
        errors=found["errors"],
        server_cpu=found["cpu"]["server"],
        client_cpu=found["cpu"]["client"],
        machine_cpu=found["cpu"]["machine"],
    )
