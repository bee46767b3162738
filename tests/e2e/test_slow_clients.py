"""A client in a hurry does not notice those that take their time, whatever they take it for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .serving import Server, environment, serving
from .slow import crowd, hurry, kinds

CLIENTS = 60
SECONDS = 1.5  # a server that lends threads to them stalls at once, and for good
KINDS = kinds()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("slow")
    with serving("--workers", "2", "--threads", "4", env=environment(folder)) as running:
        running.workers(2)
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_a_fast_client_beside_slow_ones(server: Server, kind: str) -> None:
    address = ("127.0.0.1", server.port)
    with crowd(address, KINDS[kind], CLIENTS) as clients:
        seen = hurry(address, SECONDS)
        assert clients.opened >= CLIENTS
    assert seen.failures == []
    assert len(seen.times) > 20
    assert seen.percentile(0.95) < 0.5, f"{sorted(seen.times)[-5:]}, {clients.ends}"
