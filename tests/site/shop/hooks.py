"""Gunicorn hooks that make workers fail where a test asks for it, by a file."""

import os
import signal
import time
from pathlib import Path
from typing import Any


def told(what: str) -> bool:
    return (Path(os.environ["TROUBLE"]) / what).exists()


def post_fork(server: Any, worker: Any) -> None:
    if told("crash at boot"):
        os.kill(os.getpid(), signal.SIGKILL)
    if told("fail at boot"):
        os._exit(3)
    while told("hang at boot"):
        time.sleep(0.1)


def impatient(server: Any) -> None:
    """As ``on_starting``: workers have two seconds to boot, or to finish a request while others wait."""
    server.monitor.boot = server.monitor.starved = 2.0


def pre_request(worker: Any, request: Any) -> None:
    worker.log.info("saw %s", request.path)
