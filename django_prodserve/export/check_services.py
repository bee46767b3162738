"""Contradictions in files of service managers: systemd, supervisord. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ..errors import Problem
from .facts import Facts
from .finding import Must, Never, found, is_late, judged, number
from .reading import values

LOW_PORTS = r"^AmbientCapabilities=.*CAP_NET_BIND_SERVICE|^User=root"
LEAST_WATCHDOG = 5  # seconds; a beat is sent every quarter, and a loaded machine may delay one


def systemd(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if "[Service]" in code:
        yield from judged(code, *SERVICE)
        yield from _times(code, facts)
        yield from _places(code, facts)
        yield from _address(code, facts)
    if "[Socket]" in code and re.search(r"^ListenStream=/", code, re.MULTILINE):
        yield from judged(code, SOCKET)


SERVICE = (
    Must(
        r"^Type=notify$",
        "Type is not notify: an unknown type becomes simple, and a start does not wait.",
        "Type=notify",
    ),
    Must(r"^ExecReload=", "There is no ExecReload.", "ExecReload=... prodserve reload"),
    Never(
        r"^ExecReload=(?!.*\breload\b)",
        "ExecReload does not wait for the outcome of the reload.",
        "ExecReload=... prodserve reload",
    ),
    Never(r"^KillMode=process", "KillMode=process leaves workers behind.", "KillMode=mixed"),
    Must(
        r"^KillMode=(mixed|process)$",
        "KillMode is not mixed: workers get the stop signal too, and end before their supervisor.",
        "KillMode=mixed",
    ),
    Never(
        r"^KillSignal=(?!SIGTERM|15)",
        "KillSignal is not SIGTERM: requests are aborted.",
        "KillSignal=SIGTERM",
    ),
    Never(r"^SendSIGKILL=(no|false|0|off)", "SendSIGKILL=no keeps a server that hangs.", "Remove it"),
    Never(
        r"^ProcSubset=pid",
        "ProcSubset=pid hides the memory of the machine, for which the server plans.",
        "Remove it",
    ),
    Never(
        r"^RestrictAddressFamilies=(?!.*\bAF_NETLINK\b)(?!~)",
        "RestrictAddressFamilies lacks AF_NETLINK: the C library resolves names with it.",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ),
    Never(
        r"^RestrictAddressFamilies=(?!.*\bAF_UNIX\b)(?!~)",
        "RestrictAddressFamilies lacks AF_UNIX: the server notifies systemd with it.",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    ),
    Never(
        r"^TemporaryFileSystem=(?:.* )?/tmp\b",
        "/tmp is memory: request bodies count against MemoryMax.",
        "PrivateTmp=yes",
    ),
)
SOCKET = Must(
    r"^SocketMode=0?660$",
    "Every account may connect to the socket, and counts as a trusted proxy.",
    "SocketMode=0660",
)


def _times(code: str, facts: Facts) -> Iterator[Problem]:
    limit, shown = number(code, (r"^TimeoutStartSec=(.+)$", "TimeoutStartSec", 90))
    if is_late(limit, facts.start.value):
        yield found(f"{shown} is too short: {facts.start.why}.", f"Set it to {facts.start.value}")
    beat, shown = number(code, (r"^WatchdogSec=(.+)$", "WatchdogSec", 0))
    if 0 < beat < LEAST_WATCHDOG:
        yield found(f"{shown} is too short for a machine that is busy.", "WatchdogSec=30")


def _places(code: str, facts: Facts) -> Iterator[Problem]:
    if facts.site.hidden:
        yield from judged(
            code,
            Never(
                r"^ProtectHome=(yes|true|tmpfs|1|on)$",
                f"ProtectHome=yes hides {facts.site.hidden}, which the server reads.",
                "ProtectHome=read-only",
            ),
        )
    if not re.search(r"^ProtectSystem=strict", code, re.MULTILINE):
        return
    for path, what in facts.site.writable.items():
        if path not in code:
            yield found(
                f"ProtectSystem=strict: the project cannot write to {path} ({what}).",
                f"ReadWritePaths=-{path}",
            )


def _address(code: str, facts: Facts) -> Iterator[Problem]:
    has_socket = "[Socket]" in code or re.search(r"^Requires=.*\.socket", code, re.MULTILINE)
    if has_socket:
        if "bind" in facts.is_stated and "ExecStart" in code and re.search(r"--bind|-b ", code):
            yield found("--bind wins over the socket unit, whose socket then has no server.", "Remove --bind")
        return
    if 0 < facts.address.port < 1024 and not re.search(LOW_PORTS, code, re.MULTILINE):
        yield found(
            f"Port {facts.address.port} needs a capability.", "AmbientCapabilities=CAP_NET_BIND_SERVICE"
        )
    directory = os.path.dirname(facts.address.path)
    if re.match(r"(/var)?/run/.", directory) and not values(code, r"^RuntimeDirectory=(.+)$"):
        name = re.sub(r"^(/var)?/run/", "", directory)
        yield found(
            f"RuntimeDirectory is not set: nothing creates {directory} after a boot.",
            f"RuntimeDirectory={name}",
        )


def supervisor(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(
        code,
        Never(r"^stopsignal *=(?! *TERM)", "The stop signal is not TERM.", "stopsignal=TERM"),
        Never(
            r"^stopasgroup *= *(true|yes|1|on)",
            "stopasgroup sends the signal to workers too, which end before their supervisor.",
            "stopasgroup=false",
        ),
        Must(
            r"^killasgroup *= *(true|yes|1|on)",
            "killasgroup is not true: workers stay behind if the server must be killed.",
            "killasgroup=true",
        ),
        Never(
            r"^numprocs *= *([2-9]|\d\d)",
            "numprocs starts servers for one address: the second one fails.",
            "numprocs=1; the server has its own workers",
        ),
    )
