"""The worker classes of other projects, and the promises of prodserve that each of them cannot keep. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import Problem
from ..utils.decision import Decision

if TYPE_CHECKING:
    from ..config.options import SourcedValue

IMPORTED: Mapping[str, str] = {
    "prodserve": "django_prodserve.worker.ProdserveWorker",
    "asgi": "django_prodserve.worker.gunicorn_asgi.ASGIWorker",
    "uvicorn": "django_prodserve.worker.uvicorn.UvicornWorker",
}
"""Where Gunicorn finds the classes that are not its own."""

_BOTH = (
    "a client may take any time to send the head of a request",
    "connections are not shared evenly: one worker may get all of them",
    "no limit adapts to the load: only more than --worker-connections requests are refused with 503",
    "a view that blocks the loop stops its whole worker, and after 20 s the arbiter kills it",
    "--timeout ends async views only, and only before the response begins",
    "--slow-request has no effect: nothing logs where a slow request waits",
    "websockets have no line in the access log, and status does not count them",
    "with --max-requests, a worker ends before its replacement serves",
    "a short sync view costs about three times the CPU that it costs in the default worker",
)
LOST: Mapping[str, tuple[str, ...]] = {
    "asgi": (
        *_BOTH,
        "a client that stops in the middle of a body gets 500 after 20 s, not 408",
        "websockets get no pings, so a dead peer is not found",
        "one websocket message of 16 MiB blocks the loop for more than a second",
    ),
    "uvicorn": (
        *_BOTH,
        "a client may take any time to send a body",
        "--limit-request-line, -fields and -field-size have no effect",
        "Gunicorn's hooks pre_request and post_request are not called",
        "at a stop, a request that arrives on a keep-alive connection may be lost",
    ),
}
"""What workers with the ASGI server of another project do not do."""


def choose(stated: Decision[str], passed: Mapping[str, SourcedValue]) -> Decision[str]:
    """Return the class that is set, or the default one; Gunicorn's threads for the uwsgi protocol."""
    if "protocol" in passed and passed["protocol"].value != "http" and stated.value == "prodserve":
        return Decision("gthread", "the uwsgi protocol is served by Gunicorn's own threads")
    return stated


def warnings(worker_class: Decision[str]) -> Iterator[Problem]:
    """Warn that such a class keeps fewer promises than the default one."""
    name = worker_class.value
    if name in LOST:
        yield Problem(
            f"{worker_class.source} {name}: these workers wait for slow clients, share connections unevenly "
            "and answer nothing while a view blocks the loop.",
            "Remove the option: the default worker runs async views and websockets itself. "
            "prodserve plan lists what is lost.",
            topic="worker-class",
        )
