"""``shop.service``, and ``shop.socket`` on request. Pure.

The keys are those of systemd 249 and later (Ubuntu 22.04): ``Type=notify-reload`` and others of 253 are not
used, because an older systemd ignores an unknown type and starts the unit as ``simple``.
"""

from __future__ import annotations

import os
import re

from ..errors import UsageError
from ..utils.units import MIB
from .facts import Facts
from .layout import File, block, written
from .sides import Side

WATCHDOG = 30  # seconds; the supervisor sends a beat every quarter of it while its loop runs


def service(facts: Facts) -> list[File]:
    """Return the unit of the service."""
    return [_service(facts), *_sides(facts)]


def with_socket(facts: Facts) -> list[File]:
    """Return the unit of the service, and of the socket that systemd opens for it."""
    return [_service(facts, has_socket=True), _socket(facts), *_sides(facts)]


def _service(facts: Facts, *, has_socket: bool = False) -> File:
    site, name = facts.site, facts.site.name
    units = [f"{name}.socket"] if has_socket else [name]
    body = f"""
[Unit]
Description={_text(site.settings or name)} served by django-prodserve
Wants=network-online.target
After=network-online.target
{block(f"Requires={name}.socket", f"After={name}.socket") if has_socket else ""}

[Service]
# systemctl start waits until all workers answer.
Type=notify
User={site.user}
WorkingDirectory={_text(site.directory)}
{_environment(facts)}
# KEY=VALUE lines: SECRET_KEY, passwords, whatever the settings read. The file may be absent.
EnvironmentFile=-/etc/{name}.env
{_address_comment(facts, has_socket=has_socket)}
ExecStart={_words(facts.command(bind=not has_socket))}
# systemctl reload waits for the outcome: it fails if the new code is broken, and the old code keeps serving.
ExecReload={_words([*site.program, "reload"])}

# {facts.start.why}
TimeoutStartSec={facts.start.value}
# {facts.stop.why}
TimeoutStopSec={facts.stop.value}
# SIGTERM goes to the supervisor alone, which stops its workers in order.
KillMode=mixed
# The supervisor sends a beat while its loop runs. systemd restarts a server without one.
WatchdogSec={WATCHDOG}
Restart=on-failure
RestartSec=2
# An option or a setting is wrong: another start would fail in the same way.
RestartPreventExitStatus=2
# The server replaces a worker that the kernel killed for its memory.
OOMPolicy=continue
{_size(facts)}

# Hardening: {name} can write to the directories below, and to nothing else.
{_directories(facts, has_socket=has_socket)}
{_hardening(facts, _capabilities(facts, has_socket=has_socket))}

[Install]
WantedBy=multi-user.target
{f"Also={name}.socket" if has_socket else ""}
"""
    return written(
        f"{name}.service",
        body,
        made_by=facts.made_by,
        goes_to=f"/etc/systemd/system/{name}.service",
        apply=[
            "systemctl daemon-reload",
            f"systemctl enable --now {' '.join(units)}",
            f"systemctl reload {name}      # after each deploy",
            f"journalctl -u {name} -f",
        ],
        by_hand=list(_by_hand(facts, has_socket=has_socket)),
    )


def _hardening(facts: Facts, capabilities: str) -> str:
    """Return the lines that take rights from every process of the project."""
    return f"""ProtectSystem=strict
{_home(facts)}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Not ProcSubset=pid: the server reads the memory of the machine in /proc/meminfo.
ProtectProc=invisible
NoNewPrivileges=yes
{capabilities}
# AF_NETLINK: the C library asks it for this machine's addresses when it resolves a name.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
# Not MemoryDenyWriteExecute=yes: libraries that use libffi for callbacks would fail.
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM"""


def _sides(facts: Facts) -> list[File]:
    return [_side(facts, side) for side in facts.sides]


def _side(facts: Facts, side: Side) -> File:
    """Return the unit of a process that the server does not start."""
    site, name = facts.site, f"{facts.site.name}-{side.name}"
    body = f"""
[Unit]
Description={_text(f"{side.name} of {site.settings or site.name}")}
Wants=network-online.target
After=network-online.target {site.name}.service
# It stops and restarts with the site. A reload of the site leaves it: restart it after a deploy.
PartOf={site.name}.service

[Service]
Type=exec
User={site.user}
WorkingDirectory={_text(site.directory)}
{_environment(facts)}
Environment=PYTHONUNBUFFERED=1 PRODSERVE_PROCESS={side.name}
EnvironmentFile=-/etc/{site.name}.env
ExecStart={_words([*side.words])}
# As long as the server gives its requests. {facts.stop.why}
TimeoutStopSec={facts.stop.value}
# SIGTERM goes to this process alone; what is left at the end is killed.
KillMode=mixed
Restart=always
RestartSec=2
{block("" if side.is_guess else f"# {side.why}", "" if side.is_guess else f"MemoryMax={side.memory // MIB}M")}

{_directories(facts, has_socket=True)}
{_hardening(facts, "CapabilityBoundingSet=")}

[Install]
WantedBy=multi-user.target
"""
    by_hand = ["enable it on one host only"] if side.is_single else []
    return written(
        f"{name}.service",
        body,
        made_by=facts.made_by,
        goes_to=f"/etc/systemd/system/{name}.service",
        apply=[
            "systemctl daemon-reload",
            f"systemctl enable --now {name}",
            f"systemctl restart {name}      # after each deploy",
        ],
        by_hand=[*by_hand, f"what {site.name}.service names: account, paths, secrets"],
    )


def _by_hand(facts: Facts, *, has_socket: bool) -> list[str]:
    site = facts.site
    found = [
        f"User={site.user}: the account that runs the server. To create it: useradd --system {site.user}",
        f"/etc/{site.name}.env: the secrets; for root alone (chmod 600)",
        f"{site.directory} and {site.program[0]}: if the server has the project in another directory",
    ]
    if facts.address.is_unix and not has_socket:
        found.append(f"the proxy's account must be in the group of {site.user}, to reach the socket")
    if has_socket and facts.address.is_unix:
        found.append(f"SocketGroup= in {site.name}.socket: the group of the proxy")
    return found


def _environment(facts: Facts) -> str:
    variables = {**facts.variables, "HOME": f"/var/lib/{facts.site.name}"}
    variables["XDG_CACHE_HOME"] = f"/var/cache/{facts.site.name}"
    return "\n".join(f"Environment={name}={_word(text)}" for name, text in variables.items() if text)


def _address_comment(facts: Facts, *, has_socket: bool) -> str:
    if has_socket:
        return f"# No address: it would win over the socket of {facts.site.name}.socket."
    if facts.has_own_address:
        return ""
    return "# For this machine alone, where a proxy is: prodserve export nginx"


def _size(facts: Facts) -> str:
    """Return limits if a size was set. The server reads them from its control group and plans for them."""
    lines = []
    if "cpus" in facts.is_stated:
        lines.append(f"CPUQuota={facts.cpus.value * 100:g}%")
    if "memory" in facts.is_stated:
        lines.append(f"MemoryMax={facts.memory.value // MIB}M")
    return block(
        "# The server plans for these limits: it reads them when it starts." if lines else "", *lines
    )


def _directories(facts: Facts, *, has_socket: bool) -> str:
    site, lines = facts.site, []
    lines += [
        f"# /var/cache/{site.name} is for static files, /var/lib/{site.name} is the home directory.",
        f"CacheDirectory={site.name}",
        f"StateDirectory={site.name}",
    ]
    if facts.address.is_unix and not has_socket and (inside := _below_run(facts)):
        lines += [
            "# The directory of the unix socket, for the account and its group.",
            f"RuntimeDirectory={inside}",
            "RuntimeDirectoryMode=0750",
        ]
    for path, what in site.writable.items():
        lines += [f"# {what}", f"ReadWritePaths={_word(f'-{path}')}"]
    if site.static_root and "collectstatic" in facts.is_stated:
        lines += [
            "# --collectstatic writes to STATIC_ROOT.",
            f"ReadWritePaths={_word(f'-{site.static_root}')}",
        ]
    return block(*lines)


def _below_run(facts: Facts) -> str:
    """Return the directory of the socket below /run; raise UsageError if only root can write there."""
    directory = os.path.dirname(facts.address.path)
    if directory in ("/run", "/var/run"):
        name = os.path.basename(facts.address.path)
        raise UsageError(
            f"unix:{facts.address.path}: only root may create a socket in {directory}.",
            f"--bind unix:/run/{facts.site.name}/{name}",
            topic="export",
        )
    match = re.match(r"(?:/var)?/run/(.+)", directory)
    return match[1] if match else ""


def _home(facts: Facts) -> str:
    if facts.site.hidden:
        return block(
            f"# Not yes: the server reads {facts.site.hidden}. In /srv or /opt it could be yes.",
            "ProtectHome=read-only",
        )
    return "ProtectHome=yes"


def _capabilities(facts: Facts, *, has_socket: bool) -> str:
    ports = [] if has_socket else [facts.address.port]
    if facts.redirect and not facts.redirect.startswith(("unix:", "fd:")):
        ports.append(int(facts.redirect.rpartition(":")[2]))
    if low := [port for port in ports if 0 < port < 1024]:
        return block(
            f"# Port {low[0]} needs this one.",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        )
    return "CapabilityBoundingSet="


def _socket(facts: Facts) -> File:
    name, address = facts.site.name, facts.address
    listen = address.path or f"{address.host}:{address.port}"
    access = """
# Every account that may connect is a trusted proxy, so only the proxy's group may.
SocketMode=0660
SocketGroup=www-data
"""
    body = f"""
[Unit]
Description=Socket of {name}.service

[Socket]
# systemd holds the connections that arrive while the server restarts.
ListenStream={_text(listen)}
# As the server's own --backlog; the kernel lowers it to net.core.somaxconn.
Backlog=2048
{access if address.is_unix else ""}

[Install]
WantedBy=sockets.target
"""
    return written(
        f"{name}.socket",
        body,
        made_by=facts.made_by,
        goes_to=f"/etc/systemd/system/{name}.socket",
        by_hand=[f"SocketGroup=: the group of the proxy in front of {name}"] if address.is_unix else [],
    )


def _text(text: str) -> str:
    """Return text in which systemd sees no specifier."""
    return text.replace("%", "%%")


def _word(word: str) -> str:
    """Return a word in quotation marks if systemd would split or unescape it (systemd.syntax(7))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w./:=@,+%-]+", escaped) else f'"{escaped}"'


def _words(words: list[str]) -> str:
    """Return a command line: systemd replaces $NAME in arguments, unless the sign is doubled."""
    return " ".join(_word(word).replace("$", "$$") for word in words)
