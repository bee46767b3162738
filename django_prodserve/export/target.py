"""Where an exported file is used. It is not this machine: no size and no variable of it may be in a file.

The variables of a target are those that its platform sets, so that the plan follows the platform's rules.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..machine.detect import Machine
from ..utils.units import MIB

DEFAULT_CPUS = 1.0
DEFAULT_MEMORY = 512 * MIB
DAY = 86_400  # seconds


@dataclass(frozen=True, kw_only=True)
class Target:
    """One place that runs the server, or a proxy in front of it."""

    environ: Mapping[str, str]
    is_container: bool = False
    """Whether the server runs in an image, with the project in /app."""
    is_sized: bool = False
    """Whether the file limits CPUs and memory. If not, the server plans for the machine where it starts."""
    names_port: bool = False
    """Whether the platform names the port, in PORT."""
    router: str = ""
    """The platform's router, whose times no file can change."""
    router_idle: int = 0
    """Seconds for which it keeps an idle connection."""
    router_wait: int = 0
    """Seconds for which it waits for a response; 0 if a file sets that."""
    body: int = 100 * MIB
    """Maximum size of a body in a container for which none was set."""
    body_why: str = "a container has little disk for request bodies"

    def machine(self) -> Machine:
        """Return the machine to plan for: the default size of a container, and nothing of this machine."""
        why = "a small size, because none was set: --memory changes it"
        return Machine(
            cpus=DEFAULT_CPUS,
            cpus_why="a small size, because none was set: --cpus changes it",
            quota=DEFAULT_CPUS,
            memory_total=DEFAULT_MEMORY,
            memory_limit=DEFAULT_MEMORY,
            memory_limit_why=why,
            memory_effective=DEFAULT_MEMORY,
            memory_effective_why=why,
            pids_limit=None,
            container="the file is for a container" if self.is_container else None,
            cpu_weight=None,
            limits_visible=True,
            notes=(),
        )


_CLOUD_RUN_BODY = "Cloud Run passes 32 MiB over HTTP/1, and its /tmp is memory"

SYSTEMD = Target(environ={"INVOCATION_ID": "1"})
HOST = Target(environ={})
"""A process manager that sets no variable."""
PROXY = Target(environ={})
CONTAINER = Target(environ={"container": "oci"}, is_container=True)
SIZED_CONTAINER = Target(environ={"container": "oci"}, is_container=True, is_sized=True)
KUBERNETES = Target(environ={"KUBERNETES_SERVICE_HOST": "1"}, is_container=True, is_sized=True)
HEROKU = Target(
    environ={"DYNO": "web.1"},
    names_port=True,
    router="Heroku's router",
    router_idle=90,
    router_wait=30,
)
FLY = Target(environ={"FLY_APP_NAME": "app"}, is_container=True, is_sized=True)
RENDER = Target(environ={"RENDER": "true", "PORT": "10000"}, is_container=True, names_port=True)
CLOUD_RUN = Target(
    environ={"K_SERVICE": "app", "PORT": "8080"},
    is_container=True,
    is_sized=True,
    names_port=True,
    router="Google's router",
    router_idle=600,
    body=32 * MIB,
    body_why=_CLOUD_RUN_BODY,
)
KAMAL = Target(
    environ={"container": "oci"},
    is_container=True,
    is_sized=True,
    router="kamal-proxy",
    router_idle=DAY,
)
"""kamal-proxy closes no idle connection: its transport has no IdleConnTimeout (internal/server/target.go)."""
