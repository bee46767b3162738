"""The metrics are what Prometheus' own parser reads, and what the board has counted."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from django_prodserve.machine.tcp_info import accept_queue
from django_prodserve.monitoring import metrics
from django_prodserve.scoreboard.board import REASONS, Scoreboard
from django_prodserve.scoreboard.slot import BOUNDS, SERVING
from django_prodserve.tls.expiry import Expiry


@pytest.fixture
def board() -> Scoreboard:
    board = Scoreboard.create(None, slots=3, rows=3, now=1.0)
    slot = board.claim()
    slot.start(1, 2, 2, now=5.0)
    slot.state = SERVING
    slot.request_finished(0, 10.02, 200, 10.0, 0.0, "GET")
    slot.request_finished(0, 80.0, 404, 10.0, 3.0, "POST")
    slot.request_finished(1, 10.02, 500, 10.0, 0.0, "BREW")
    slot.request_finished(1, 10.02, 302, 10.0, 0.0, "GET")
    slot.count_static()
    slot.count_refused()
    return board


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listener:
        yield listener


def read(board: Scoreboard, listeners: Any = (), *, ready: bool = True) -> dict[str, Any]:
    """Return every sample by name and labels."""
    text = metrics.Metrics(board, listeners, 2).text(ready=ready).decode()
    samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        for sample in family.samples:
            key = sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def test_the_end_of_each_certificate_is_a_metric(board: Scoreboard) -> None:
    expiries = [Expiry(("shop.example",), f"/{kind}.pem", 2e9).as_dict() for kind in ("rsa", "ec")]
    board.write_summary({"certificates": expiries})
    found = {name: value for name, value in read(board).items() if "certificate_expires" in name}
    assert found == {
        f"prodserve_tls_certificate_expires_seconds certificate=shop.example file=/{kind}.pem": 2e9
        for kind in ("rsa", "ec")
    }


def test_requests_by_method_and_class(board: Scoreboard) -> None:
    found = read(board)
    counted = {
        key: value for key, value in found.items() if key.startswith("prodserve_requests_total") and value
    }
    assert counted == {
        "prodserve_requests_total code=2xx method=GET": 1,
        "prodserve_requests_total code=3xx method=GET": 1,
        "prodserve_requests_total code=4xx method=POST": 1,
        "prodserve_requests_total code=5xx method=other": 1,
    }
    assert found["prodserve_static_files_total"] == found["prodserve_requests_refused_total"] == 1


def test_histograms_are_cumulative_and_have_the_boards_bounds(board: Scoreboard) -> None:
    found = read(board)
    name = "prodserve_request_duration_seconds"
    counts = [found[f"{name}_bucket le={bound:g}"] for bound in BOUNDS]
    assert counts == sorted(counts)
    assert found[f"{name}_bucket le=0.025"] == 3
    assert found[f"{name}_bucket le=60"] == 3
    assert found[f"{name}_bucket le=+Inf"] == found[f"{name}_count"] == 4
    assert found[f"{name}_sum"] == pytest.approx(70.06)
    assert found["prodserve_request_queue_seconds_bucket le=2.5"] == 3
    assert found["prodserve_request_queue_seconds_sum"] == 3


def test_what_runs_and_waits(board: Scoreboard) -> None:
    slot = board.active_slots()[0]
    slot.request_started(0, 20.0, "GET", "/", "")
    slot.queue, slot.connections, slot.memory = 3, 5, 2**20
    slot.leases, slot.leases_busy, slot.leases_waiting = 16, 7, 2
    found = read(board, ready=False)
    assert found["prodserve_requests_in_flight"] == 4
    assert found["prodserve_requests_queued"] == 3
    assert found["prodserve_connections"] == 5
    assert found["prodserve_threads worker=0"] == 2
    assert found["prodserve_threads_busy worker=0"] == 1
    assert found["prodserve_concurrency_limit worker=0"] == 2
    assert [found[f"prodserve_leases{name} worker=0"] for name in ("", "_busy", "_waiting")] == [16, 7, 2]
    slot.concurrency_limit = 1
    assert read(board)["prodserve_concurrency_limit worker=0"] == 1
    assert found["prodserve_worker_memory_bytes worker=0"] == 2**20
    assert found["prodserve_workers state=serving"] == 1
    assert found["prodserve_ready"] == 0
    assert found["prodserve_generation"] == 2


def test_nothing_counted_is_lost_with_its_worker(board: Scoreboard) -> None:
    before = read(board)
    board.count_restart("memory")
    board.release(board.active_slots()[0])
    after = read(board)
    for name in before:
        if name.endswith(("_total", "_count", "_sum")) or "_total " in name or "_bucket" in name:
            assert "worker=" in name or after[name] >= before[name]
    assert after["prodserve_requests_refused_total"] == after["prodserve_static_files_total"] == 1
    assert after["prodserve_workers_ended_total reason=memory"] == 1
    assert sum("workers_ended" in name for name in after) == len(REASONS)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO of a listener is Linux's")
def test_the_accept_queue_and_its_limit(board: Scoreboard, listener: socket.socket) -> None:
    name = f"address=127.0.0.1:{listener.getsockname()[1]}"
    waiting = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    found = read(board, [listener])
    assert found[f"prodserve_accept_queue_connections {name}"] == 3
    assert found[f"prodserve_accept_queue_limit_connections {name}"] == 7
    for future in waiting:
        future.close()
    with socket.socket(socket.AF_UNIX) as other:
        assert accept_queue(other) is None


def test_labels_cannot_break_a_line() -> None:
    (_, line) = metrics.gauge("x", "About.", [metrics.Sample(1, {"a": 'b"\n\\'})])
    assert line == 'prodserve_x{a="b\\"\\n\\\\"} 1.0\n'
