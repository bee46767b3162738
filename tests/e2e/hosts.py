"""Several hosts on one machine: a network namespace each, cables to a switch, and this machine at the switch.

That needs root. The names hold this process's pid, and everything is removed by its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from .namespaces import EXEC
from .needs import lacking, need_program


def ip(*words: str) -> str:
    """Run ``ip``; fail with what it says."""
    ended = subprocess.run([need_program("ip"), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"ip {' '.join(words)}: {ended.stderr}"
    return ended.stdout


@dataclass(frozen=True)
class Host:
    """One host."""

    name: str
    address: str
    cable: str
    """Its link at the switch."""

    @property
    def inside(self) -> tuple[str, ...]:
        """What stands before the arguments of Python, so that it runs on this host."""
        return ("-c", EXEC, "nsenter", f"--net=/run/netns/{self.name}", sys.executable)

    def pids(self) -> list[int]:
        """Return all processes of the host."""
        return [*map(int, ip("netns", "pids", self.name).split())]

    def signal(self, number: signal.Signals) -> int:
        """Send a signal to all processes of the host; return how many there are."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(pids)

    @contextlib.contextmanager
    def without_cable(self) -> Iterator[None]:
        """Pull the cable for the block."""
        ip("link", "set", self.cable, "down")
        try:
            yield
        finally:
            ip("link", "set", self.cable, "up")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all processes for the block; the kernel still answers for them."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


@dataclass(frozen=True)
class Network:
    """The hosts, and the address of this machine in their network."""

    here: str
    hosts: tuple[Host, ...]


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Make a network of so many hosts, and remove it."""
    need_program("nsenter")
    need_program("ip")
    if os.geteuid():
        lacking("netns", "network namespaces need root")
    switch, net = f"ps{os.getpid()}", f"198.18.{os.getpid() % 250}"  # addresses that RFC 2544 keeps for tests
    hosts = tuple(Host(f"{switch}h{n}", f"{net}.{10 + n}", f"{switch}c{n}") for n in range(1, count + 1))
    tried = subprocess.run(["ip", "netns", "add", hosts[0].name], capture_output=True, text=True, check=False)
    if tried.returncode:
        lacking("netns", f"no network namespace can be made: {tried.stderr.strip()}")
    ip("netns", "del", hosts[0].name)
    try:
        ip("link", "add", switch, "type", "bridge")
        ip("address", "add", f"{net}.1/24", "dev", switch)
        ip("link", "set", switch, "up")
        for host in hosts:
            ip("netns", "add", host.name)
            ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", host.cable, "master", switch, "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        yield Network(f"{net}.1", hosts)
    finally:
        for host in hosts:
            with contextlib.suppress(AssertionError):
                host.signal(signal.SIGKILL)
            for words in (["link", "del", host.cable], ["netns", "del", host.name]):
                subprocess.run(["ip", *words], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", switch], capture_output=True, check=False)
