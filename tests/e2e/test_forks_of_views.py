"""What a project's code forks is no second worker and no second arbiter, however it comes back to us."""

from __future__ import annotations

import os
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from django_prodserve.utils.fork import run_in_fork

from .serving import PATIENCE, Server, copy_site, serving, until

VIEWS = """

import asyncio
import multiprocessing
import sys
from asgiref.sync import sync_to_async


class Ending(dict):
    def __missing__(self, how):
        raise RuntimeError("the view broke, or rather its copy")


def leave(how):
    if how.isdigit():
        sys.exit(int(how))
    if how == "raise":
        raise RuntimeError("the view broke, or rather its copy")
    return HttpResponse("from the copy")


def fork(request, how):
    pid = os.fork()
    if not pid:
        return leave(how)
    return HttpResponse(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def fork_in_stream(request, how):
    def pieces():
        yield b"before "
        pid = os.fork()
        if not pid:
            if how == "write":
                yield b"from the copy"
            leave(how)
            return
        yield b"%d after" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return StreamingHttpResponse(pieces())


def forked(how):
    pid = os.fork()
    return leave(how) if not pid else os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def fork_async(request, how, where):
    if where == "loop":
        code = forked(how)
    elif where == "task":
        code = await asyncio.create_task(asyncio.to_thread(forked, how))
    else:
        code = await sync_to_async(forked, thread_sensitive=where == "same")(how)
    await asyncio.sleep(0.01)
    return HttpResponse(str(code))


def start_helper(request):
    helper = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
    helper.start()
    HELPERS.append(helper)
    return HttpResponse(str(helper.pid))


def end_helper(request):
    HELPERS[0].terminate()
    HELPERS[0].join()
    return HttpResponse(str(HELPERS[0].exitcode))


HELPERS = []
urlpatterns += [
    path("fork/<how>/", fork),
    path("fork-in-stream/<how>/", fork_in_stream),
    path("fork-async/<how>/<where>/", fork_async),
    path("start-helper/", start_helper),
    path("end-helper/", end_helper),
]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return copy_site(tmp_path, VIEWS)


def serves_alone(server: Server, workers: list[int]) -> None:
    """Prove that no copy is left which could take a connection."""
    until(lambda: sorted(server.workers()) == sorted(workers), lambda: f"{server.workers()}, not {workers}")
    for pid in workers:
        assert psutil.Process(pid).children() == []
    with ThreadPoolExecutor(4) as clients:
        pids = {answer.json()["pid"] for answer in clients.map(lambda _: server.get("/whoami/"), range(24))}
    assert pids <= {*workers}


ENDINGS = {"7": "7", "0": "0", "raise": "1", "return": "1"}


def test_a_copy_that_leaves_a_view_ends_and_answers_nobody(env: Any, site: Path) -> None:
    with serving("--workers", "1", "--access-log", "-", env=env(), cwd=site) as server:
        workers = server.workers(1)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as kept:
            for how, code in ENDINGS.items():
                assert server.get(f"/fork/{how}/").text == code
            for how, code in {**ENDINGS, "write": "1"}.items():
                assert server.get(f"/fork-in-stream/{how}/").text == f"before {code} after"
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while part := kept.recv(65536):
                data += part
        assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert data.endswith(b"hello")
        assert data.count(b"HTTP/1.1") == 1
        serves_alone(server, workers)
        counted = server.output.count
        assert server.stop() == 0
        said = server.output
    assert counted("came back, by sys.exit(7): it ends with exit code 7") == 2
    assert (
        "Request GET /fork/raise/ forked a process that came back, by a return, or after an exception" in said
    )
    assert "Request GET /fork-in-stream/raise/ forked a process that came back, by RuntimeError" in said
    assert said.count("RuntimeError: the view broke, or rather its copy") >= 2
    # One line for each request, none of a copy's.
    assert said.count('"GET /fork/raise/ HTTP/1.1" 200') == 1
    assert '"GET /fork/raise/ HTTP/1.1" 500' not in said


@pytest.mark.parametrize("asgi", ["off", "hybrid"])
def test_a_copy_of_an_async_views_process_ends_too(env: Any, site: Path, asgi: str) -> None:
    settings = env(WSGI_APPLICATION=None)
    with serving("--workers", "1", "--asgi", asgi, env=settings, cwd=site) as server:
        workers = server.workers(1)
        for where in ("loop", "task", "same", "another"):
            for how, code in ENDINGS.items():
                assert (where, how, server.get(f"/fork-async/{how}/{where}/").text) == (where, how, code)
        serves_alone(server, workers)
        assert "A task in a thread of the worker forked a process that came back" in server.output


def test_a_helper_of_a_view_holds_no_socket_and_hears_sigterm(env: Any, site: Path) -> None:
    with serving("--workers", "1", env=env(), cwd=site) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE):
            assert server.get("/").status == 200
            helper = psutil.Process(int(server.get("/start-helper/").text))

            def inherited() -> list[Any]:
                return [
                    net_connection
                    for net_connection in helper.net_connections()
                    if net_connection.family == socket.AF_INET
                ]

            until(lambda: not inherited(), lambda: str(inherited()))
        assert server.get("/end-helper/").text == str(-signal.SIGTERM)


@pytest.mark.parametrize("kind", ["gthread", "sync", pytest.param("asgi", marks=pytest.mark.slow)])
def test_nor_has_gunicorns_own_worker_a_second(env: Any, site: Path, kind: str) -> None:
    with serving("--workers", "1", "--worker-class", kind, env=env(), cwd=site) as server:
        workers = server.workers(1)
        for how, code in ENDINGS.items():
            assert server.get(f"/fork/{how}/").text == code
        serves_alone(server, workers)


HOOKS = {
    "when_ready": "server",
    "pre_fork": "server, worker",
    "post_fork": "server, worker",
    "post_worker_init": "worker",
    "pre_request": "worker, request",
    "post_request": "worker, request, environ, response",
}
WAYS = "raise RuntimeError('the view broke, or rather the copy of a hook')", "raise SystemExit(5)", "return"


RECEIVER = """
from django_prodserve.signals import worker_started


def forks(**kwargs):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)


worker_started.connect(forks)
"""


def forking_hooks() -> str:
    """Return a module whose hooks fork, and whose copies leave them in turn by each way."""
    return "import os\n" + "".join(
        f"\n\ndef {name}({signature}):\n    pid = os.fork()\n    if not pid:\n"
        f"        {WAYS[number % len(WAYS)]}\n    os.waitpid(pid, 0)\n"
        for number, (name, signature) in enumerate(HOOKS.items())
    )


def says(server: Server, text: str) -> bool:
    return text in server.output


def test_a_copy_that_leaves_a_hook_or_an_import_ends(env: Any, site: Path) -> None:
    (site / "shop" / "forking.py").write_text(forking_hooks())
    with (site / "shop" / "urls.py").open("a") as urls:
        urls.write("\nif not os.fork():\n    raise RuntimeError('the view broke, or its import did')\n")
        urls.write(RECEIVER)
    hooks = {name: f"shop.forking.{name}" for name in HOOKS}
    with serving("--workers", "1", env=env(PRODSERVE={"GUNICORN": hooks}), cwd=site) as server:
        assert server.get("/").text == "hello"
        for name in HOOKS:
            said = f"The hook {name} (shop.forking.{name}) forked"
            until(partial(says, server, said), lambda: server.output)
        until(lambda: len(server.workers()) == 1, lambda: str(server.workers()))
        serves_alone(server, server.workers())
        assert server.stop() == 0
        assert "A receiver of worker_started forked a process that came back" in server.output
        assert re.search("^(The|Loading) .*project forked a process that came back", server.output, re.M)
        assert server.output.count("ready in") == 1


def test_what_a_trial_forks_has_no_say() -> None:
    def work() -> str:
        if os.fork():
            os.wait()
            return "the trial's"
        return "its copy's"

    assert run_in_fork(work) == "the trial's"
