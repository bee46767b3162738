"""Bind the addresses first, so that a port in use is reported immediately; they listen last.

Runs in the command, before the application is loaded. Every failure is one sentence with its remedy.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import ProdserveError, UsageError
from ..utils import command_line

# sizeof(sun_path) in sys/un.h is 108 on Linux and 104 on macOS, with the final zero.
UNIX_PATH_BYTES = 107 if os.uname().sysname == "Linux" else 103


def bind(
    addresses: Sequence[str], umask: int, manage: str | None = None, redirect: str | None = None
) -> list[socket.socket]:
    """Return a bound socket for each address; raise ProdserveError if that is not possible.

    The socket for plain HTTP comes behind those of the site, that of the management address last.
    """
    asked = [(address, PUBLIC) for address in addresses] + ([(redirect, REDIRECT)] if redirect else [])
    asked += [(manage, MANAGE)] if manage else []
    targets = [_resolve(*parts) for parts in asked]
    refuse_overlapping([(address, target) for (address, _), target in zip(asked, targets, strict=True)])
    sockets: list[socket.socket] = []
    try:
        for (address, option), target in zip(asked, targets, strict=True):
            if target is not None:
                sockets.append(
                    _tcp(address, option, target, [candidate for candidate in targets if candidate])
                )
            elif address.startswith("fd://"):
                sockets.append(_inherited(address))
            else:
                sockets.append(_unix(address.removeprefix("unix:"), umask))
    except ProdserveError:
        for bound in sockets:
            close(bound)
        raise
    return sockets


def try_bind(
    addresses: Sequence[str], umask: int, manage: str | None = None, redirect: str | None = None
) -> None:
    """Bind the addresses and release them; a stale unix socket, which serving replaces, is kept."""
    tried = [address for address in addresses if not _is_replaceable(address)]
    others = [None if other and _is_replaceable(other) else other for other in (manage, redirect)]
    for bound in bind(tried, umask, *others):
        close(bound)


class Target(NamedTuple):
    """The kernel's view of a TCP address."""

    family: socket.AddressFamily
    host: str
    port: int
    sockaddr: Any


EVERYWHERE = {"0.0.0.0", "::"}


def refuse_overlapping(asked: Sequence[tuple[str, Target | None]]) -> None:
    """Raise ProdserveError if two addresses are the same: both can be bound, and only one can listen."""
    for number, (address, target) in enumerate(asked):
        for other, known in asked[:number]:
            if target is None or known is None or not target.port:
                continue
            hosts = {target.host, known.host}
            is_one = (target.family, target.port) == (known.family, known.port)
            if is_one and (len(hosts) == 1 or hosts & EVERYWHERE):
                less = other if known.host not in EVERYWHERE else address
                raise UsageError(
                    f"{other} and {address} cannot both be served: one includes the other.",
                    f"Remove {less}: it is answered all the same.",
                    code="conflict",
                    topic="bind",
                )


def _has_ipv4_beside(target: Target, all_of_them: Sequence[Target]) -> bool:
    """Return whether IPv4 is requested separately on this port: ``[::]`` would include it, too."""
    return target.host == "::" and any(
        other.family == socket.AF_INET and other.port == target.port != 0 for other in all_of_them
    )


def _is_replaceable(address: str) -> bool:
    path = address.removeprefix("unix:")
    if path == address:
        return False
    with suppress(OSError):
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        return is_socket and not _answers(path) and os.access(os.path.dirname(path) or ".", os.W_OK)
    return False


def close(bound: socket.socket) -> None:
    """Close a listener and remove its unix path, unless it belongs to another process's socket by now."""
    name = bound.getsockname() if bound.family == socket.AF_UNIX else ""
    bound.close()
    if isinstance(name, str):
        remove_path(name)


def remove_path(path: str) -> None:
    """Remove the path of a unix socket, unless a process listens on it."""
    with suppress(OSError):
        if path and not _answers(path):
            os.unlink(path)


def url(bound: socket.socket, *, tls: bool) -> str:
    """Return the address as a browser on this machine would open it; a wildcard address is explained."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name}"
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name[0])
    host = f"[{everywhere or name[0]}]" if bound.family == socket.AF_INET6 else everywhere or name[0]
    remark = f" (on every interface, {name[0]})" if everywhere else ""
    return f"{'https' if tls else 'http'}://{host}:{name[1]}{remark}"


class _Option(NamedTuple):
    """The option that an address comes from, and the other values that it accepts."""

    name: str
    elsewhere: str


PUBLIC = _Option("--bind", "For all of its addresses: --bind 0.0.0.0:8000")
REDIRECT = _Option("--redirect-http", "For all of its addresses: --redirect-http 0.0.0.0:80")
MANAGE = _Option("--management-bind", "For this machine alone: --management-bind 9000")


def _inherited(address: str) -> socket.socket:
    number = int(address.removeprefix("fd://"))
    try:
        bound = socket.socket(fileno=number)
        bound.getsockname()
    except OSError as error:
        raise UsageError(
            f"{address}: descriptor {number} is not an open socket ({error.strerror}).",
            "The program that starts this command must pass it on: systemd socket activation, or pass_fds.",
            code="bad-address",
            topic="bind",
        ) from error
    return bound


def _unix(path: str, umask: int) -> socket.socket:
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise UsageError(
            f"unix:{path} is {len(os.fsencode(path))} bytes long; the kernel allows {UNIX_PATH_BYTES}.",
            "Choose a shorter path, such as unix:/run/app.sock.",
            code="bad-address",
            topic="bind",
        )
    _remove_stale_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(umask)
    try:
        bound.bind(path)
    except OSError as error:
        bound.close()
        directory = os.path.dirname(os.path.abspath(path))
        raise UsageError(
            f"unix:{path} cannot be made: {error.strerror}.",
            f"The directory {directory} must exist and be writable for this user.",
            code="bad-address",
            topic="bind",
        ) from error
    finally:
        os.umask(before)
    return bound


def _remove_stale_socket(path: str) -> None:
    """Remove a socket that no process listens on; never a live one, never another kind of file."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return
    if not is_socket:
        raise UsageError(
            f"unix:{path}: the file exists and is not a socket.",
            "Remove it, or choose another path.",
            code="bad-address",
            topic="bind",
        )
    if _answers(path):
        raise ProdserveError(
            f"unix:{path} is served by another process.",
            "Stop it first, or choose another path.",
            code="port-in-use",
        )
    with suppress(OSError):
        os.unlink(path)


def _answers(path: str) -> bool:
    """Whether a process listens on this path. A full backlog (EAGAIN) means yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) in {0, errno.EAGAIN}


def _resolve(address: str, option: _Option) -> Target | None:
    """Return the target of a TCP address; None for other kinds."""
    if address.startswith(("fd://", "unix:")):
        return None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"{option.name} {address}: the host {host!r} cannot be resolved ({error.strerror}).",
            f"Name an address of this machine, such as {option.name} 0.0.0.0:{port}. "
            "The site's domain belongs in ALLOWED_HOSTS.",
            code="address-unknown",
            topic=option.name.removeprefix("--"),
        ) from error
    return Target(family, str(sockaddr[0]), int(port), sockaddr)


def _tcp(address: str, option: _Option, target: Target, beside: Sequence[Target]) -> socket.socket:
    bound = None
    try:
        bound = socket.socket(target.family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _has_ipv4_beside(target, beside):
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(target.sockaddr)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise _tcp_problem(address, target, error, option) from error
    return bound


def _tcp_problem(address: str, target: Target, error: OSError, option: _Option) -> ProdserveError:
    """Return the error of an address, and its fix."""
    topic = option.name.removeprefix("--")
    is_six, port = target.family == socket.AF_INET6, target.port
    if error.errno == errno.EADDRINUSE:
        return _in_use(address, port, _another(address, option, port, is_six=is_six))
    if error.errno == errno.EADDRNOTAVAIL:
        every = f"For all of its addresses: --bind '[::]:{port}'"
        if not is_six:
            every = f"For all of its addresses: --bind 0.0.0.0:{port}"
        fix = every if option is PUBLIC else option.elsewhere
        return UsageError(
            f"{address} is not an address of this machine.", fix, code="bad-address", topic=topic
        )
    if error.errno == errno.EAFNOSUPPORT:
        message = f"{address}: this machine has no {'IPv6' if is_six else 'IPv4'}."
        return UsageError(message, option.elsewhere, code="bad-address", topic=topic)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ProdserveError(
            f"{address}: this user may not use port {port}.",
            "Ports below 1024 need root or CAP_NET_BIND_SERVICE; a proxy in front needs neither.",
            code="no-permission",
        )
    return ProdserveError(f"{address} cannot be bound: {error.strerror}.", code="failed", topic=topic)


def _another(address: str, option: _Option, port: int, *, is_six: bool) -> str:
    """Return the option with the next port, and the host that the operator gave."""
    host = address.rpartition(":")[0]
    next_one = f"{host}:{port % 65535 + 1}"
    return f"{option.name} '{next_one}'" if is_six else f"{option.name} {next_one}"  # shells expand brackets


def _in_use(address: str, port: int, another: str) -> ProdserveError:
    owner = _port_owner(port)
    if owner is not None and owner.serves_this_project:
        return ProdserveError(
            f"{address} is already in use by this project's server (pid {owner.pid}).",
            "prodserve reload serves new code, prodserve stop ends it. To check the project while it serves: "
            "prodserve check --bind 127.0.0.1:0",
            code="port-in-use",
        )
    fix = f"Stop that process, or choose another port: {another}"
    return ProdserveError(f"{address} is already in use{owner or ''}.", fix, code="port-in-use")


def taken_meanwhile(sockets: Sequence[socket.socket]) -> ProdserveError:
    """Return the error if another process listened first: two may bind an address, one may listen."""
    held = [(bound.getsockname(), _port_owner(bound.getsockname()[1])) for bound in sockets if _is_tcp(bound)]
    name, by = next(
        (holder for holder in held if holder[1]), (held[0] if held else (("the address", ""), None))
    )
    host = f"[{name[0]}]" if ":" in str(name[0]) else name[0]
    return ProdserveError(
        f"{host}:{name[1]} came into use{by or ''} while this server was loading.",
        "Two servers were started for one address: stop one of them, or choose another port.",
        code="port-in-use",
    )


def _is_tcp(bound: socket.socket) -> bool:
    return bound.family in {socket.AF_INET, socket.AF_INET6}


class _Owner(NamedTuple):
    """The server that listens on a port."""

    name: str
    pid: int
    serves_this_project: bool

    def __str__(self) -> str:
        return f' by "{self.name}" (pid {self.pid})'


def _port_owner(port: int) -> _Owner | None:
    """Return the server that listens on the port, if this user may see it."""
    import psutil  # 1.4 MiB that most servers do not need

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.pid and _listens(connection, port):
                process = psutil.Process(connection.pid)
                words = process.cmdline()
                name = " ".join(words[:3]) or process.name()
                while (parent := process.parent()) and _has_port(parent, port):
                    process = parent  # the process to stop: a worker would be replaced
                return _Owner(name, process.pid, command_line.is_ours(words) and _is_here(process))
    return None


def _is_here(process: Any) -> bool:
    """Return whether a server was started in this directory."""
    import psutil

    with suppress(psutil.Error):
        return bool(process.cwd() == os.getcwd())
    return False


def _has_port(process: Any, port: int) -> bool:
    """Return whether a process listens on the port, as far as this user may see."""
    import psutil

    look = getattr(process, "net_connections", None) or process.connections  # before psutil 6
    with suppress(psutil.Error):
        return any(_listens(connection, port) for connection in look("tcp"))
    return False


def _listens(connection: Any, port: int) -> bool:
    return connection.status == "LISTEN" and bool(connection.laddr) and connection.laddr.port == port
