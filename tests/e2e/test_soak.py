"""Many requests through one server: nothing grows."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from django_prodserve.machine.proc_memory import read_memory

from .serving import Server, serving
from .test_worker import raw

pytestmark = pytest.mark.slow

Env = Callable[..., dict[str, str]]

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "200000"))
CLIENTS = 4
BATCH = 50
PATHS = (*["/static/admin/img/icon-yes.svg"] * 7, "/", "/?page={}", "/nothing/{}/")
"""Files from memory, views, and paths that are all different, in each batch."""
HEAD = re.compile(rb"HTTP/1\.1 (\d\d\d) .*?\r\nContent-Length: (\d+)\r\n.*?\r\n\r\n", re.DOTALL)


def ask(server: Server, number: int, requests: int) -> int:
    """Ask for so much on kept connections, a batch at a time; return how many answers were right."""
    right, client = 0, raw(server)
    for batch in range(requests // BATCH):
        paths = [PATHS[n % len(PATHS)].format(f"{number}-{batch}-{n}") for n in range(BATCH)]
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths))
        statuses, is_kept = answers(client, BATCH)
        right += sum(map(is_right, paths, statuses))
        if not is_kept or batch % 20 == 19:
            client.close()
            client = raw(server)
    client.close()
    return right


def answers(client: socket.socket, count: int) -> tuple[list[int], bool]:
    """Return the status of so many answers, and whether the connection is kept."""
    data, statuses, is_kept = b"", [], True
    while len(statuses) < count:
        match = HEAD.match(data)
        if match and len(data) >= match.end() + int(match[2]):
            statuses.append(int(match[1]))
            is_kept = b"\r\nConnection: close\r\n" not in match[0]
            data = data[match.end() + int(match[2]) :]
        else:
            more = client.recv(2**18)
            assert more, "the server has closed"
            data += more
    return statuses, is_kept


def is_right(path: str, status: int) -> bool:
    return status == (404 if path.startswith("/nothing/") else 200)


def state(pid: int) -> tuple[int, int, int]:
    """Return a worker's private memory, threads and descriptors."""
    process = psutil.Process(pid)
    return read_memory(Path(f"/proc/{pid}")).size, process.num_threads(), process.num_fds()


def test_nothing_grows_with_the_number_of_requests(env: Env) -> None:
    with serving("--workers", "2", "--threads", "4", env=env()) as server:
        workers = server.workers(2)

        def all_ask(requests: int) -> None:
            with ThreadPoolExecutor(CLIENTS) as clients:
                right = clients.map(ask, [server] * CLIENTS, range(CLIENTS), [requests // CLIENTS] * CLIENTS)
                assert sum(right) == requests // CLIENTS // BATCH * BATCH * CLIENTS

        all_ask(REQUESTS // 5)
        before = {pid: state(pid) for pid in workers}
        all_ask(REQUESTS * 4 // 5)
        after = {pid: state(pid) for pid in workers}
        assert server.workers(2) == workers
    for pid in workers:
        (memory, threads, descriptors), then = before[pid], after[pid]
        assert then[0] < memory + 3 * 2**20, (before, after)
        assert then[1] <= max(threads, 6), (before, after)
        assert then[2] <= descriptors + 6, (before, after)  # sqlite and schedstat of threads that came later
