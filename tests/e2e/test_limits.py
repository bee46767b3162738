"""The real server in real control groups: it plans with their limits, and stays within them under load."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.machine.proc import EXPENDABLE
from django_prodserve.utils.units import MIB
from tests.bench.memory import EXAMPLE, bookshop, send

from .groups import HALF_A_CPU, inside, limited_to
from .serving import Server, copy_site, run, serving, until
from .stock import Made
from .test_memory import private
from .test_reload import RELOAD, Load

pytestmark = pytest.mark.slow

PRODSERVE = ("manage.py", "prodserve")
CLIENTS = 40


def facts(group: Path, name: str) -> dict[str, int]:
    """Return the numbers of a file with a name and a number on each line."""
    lines = (line.split() for line in (group / name).read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def burst(server: Server, paths: list[str], rounds: int) -> list[tuple[str, int]]:
    """Ask for each path many times, from many clients at once; return every answer that was no 200."""
    wanted = [path for _ in range(rounds) for path in paths]
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda path: (path, server.get(path).status), wanted))
    return [answer for answer in answers if answer[1] != 200]


def planned(server: Server) -> int:
    """Return how many workers the start lines speak of, in the end: measuring may have changed the plan."""
    return int(re.findall(r"^workers +(\d+) x \d+ threads: ", server.output, re.MULTILINE)[-1])


def first_start(tmp_path: Path) -> dict[str, str]:
    """Return the variable that makes this the first start on a machine: nothing is collected yet."""
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def assert_nobody_was_killed(server: Server, memory: Path, before: list[int]) -> None:
    assert facts(memory, "memory.oom_control")["oom_kill"] == 0
    assert server.workers(len(before)) == before
    assert "SIGKILL" not in server.output


def test_half_a_cpu_and_256_mib(env: Any, make_group: Callable[..., Path], tmp_path: Path) -> None:
    cpu, memory = make_group("cpu", HALF_A_CPU), make_group("memory", limited_to(256))
    with serving(env=env(first_start(tmp_path)), command=(*inside(cpu, memory), *PRODSERVE)) as server:
        workers = server.workers(2)
        assert re.search(
            r"workers +2 x 16 threads: at least 2.*; 0.5 CPUs, 256 MiB; profile io", server.output
        )
        assert "OOM killer" not in server.output
        assert burst(server, ["/", "/admin/login/", "/stream/", "/slow/?seconds=0.05"], rounds=60) == []
        assert_nobody_was_killed(server, memory, workers)
        assert (memory / "memory.failcnt").read_text().strip() == "0"
        assert facts(cpu, "cpu.stat")["nr_periods"] > 0  # the quota was real; it bites where CPUs are free


def test_128_mib_is_one_worker_and_says_what_two_would_need(
    env: Any, make_group: Callable[..., Path], tmp_path: Path
) -> None:
    memory = make_group("memory", limited_to(128))
    with serving(env=env(first_start(tmp_path)), command=(*inside(memory), *PRODSERVE)) as server:
        workers = server.workers(1)
        assert re.search(r"workers +1 x 16 threads: memory holds 1 ", server.output)
        assert re.search(r"warning: Only one worker fits into 128 MiB; two need \d+ MiB", server.output)
        assert burst(server, ["/", "/admin/login/", "/stream/"], rounds=80) == []
        assert_nobody_was_killed(server, memory, workers)
        assert (memory / "memory.failcnt").read_text().strip() == "0"


@pytest.mark.timeout(235)  # seconds; making the project is most of it
def test_a_large_project_stays_within_256_mib(
    stock: Callable[[str], Made], make_group: Callable[..., Path], tmp_path: Path
) -> None:
    made = stock("wagtail")
    memory = make_group("memory", limited_to(256))
    command, env = (*inside(memory), *PRODSERVE), made.env | first_start(tmp_path)
    with serving("--cpus", "2", env=env, cwd=made.directory, command=command) as server:
        workers = server.workers(planned(server))
        assert burst(server, ["/", "/admin/login/", "/django-admin/login/"], rounds=60) == []
        assert_nobody_was_killed(server, memory, workers)
        assert (memory / "memory.failcnt").read_text().strip() == "0"


def test_stopping_takes_no_memory_on_top(env: Any, make_group: Callable[..., Path]) -> None:
    memory = make_group("memory", {})
    with serving("--workers", "2", env=env(), command=(*inside(memory), *PRODSERVE)) as server:
        server.workers(2)
        assert burst(server, ["/", "/admin/login/"], rounds=60) == []
        in_use = int((memory / "memory.usage_in_bytes").read_text())
        peak = memory / "memory.max_usage_in_bytes"
        peak.write_text("0")
        assert server.stop() == 0
        assert int(peak.read_text()) < in_use + 10 * MIB


def test_a_view_that_leaks_is_served_within_the_limit(env: Any, make_group: Callable[..., Path]) -> None:
    """1.8 GiB leak through 1 GiB in two seconds: workers are replaced before the kernel kills one."""
    memory = make_group("memory", limited_to(1024))
    with serving("--workers", "2", env=env(), command=(*inside(memory), *PRODSERVE)) as server:
        server.workers(2)
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: server.get("/leak/").status, range(360)))
        assert answers == [200] * 360
        assert facts(memory, "memory.oom_control")["oom_kill"] == 0
        server.wait_for("of 1 GiB used); stopping it before the OOM killer does")


def test_a_kill_by_the_kernel_is_told_from_others(env: Any, make_group: Callable[..., Path]) -> None:
    memory = make_group("memory", limited_to(256))
    with serving("--workers", "2", env=env(), command=(*inside(memory), *PRODSERVE)) as server:
        assert server.get("/").status == 200
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.get("/leak/?mib=400")
        server.wait_for("was killed by the kernel: the memory limit is reached. Use fewer workers")
        until(server.answers)


def test_the_kernel_kills_a_worker_rather_than_the_arbiter(env: Any) -> None:
    """It may kill twice while the memory of the first is freed: the arbiter was the largest then."""

    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    with serving("--workers", "2", env=env()) as server:
        (arbiter,) = server.arbiters()
        until(lambda: {*map(score, server.workers(2))} == {min(1000, score(arbiter) + EXPENDABLE)})


def test_a_reload_that_memory_does_not_hold_is_refused_and_kills_nobody(
    env: Any, make_group: Callable[..., Path], tmp_path: Path
) -> None:
    site, memory = copy_site(tmp_path), make_group("memory", limited_to(512))
    urls = site / "shop" / "urls.py"
    urls.write_text(urls.read_text() + "BALLAST = [str(number) for number in range(2_000_000)]\n")
    with serving("--workers", "2", env=env(), cwd=site, command=(*inside(memory), *PRODSERVE)) as server:
        before = server.workers(2)
        in_use = int((memory / "memory.usage_in_bytes").read_text())
        (memory / "memory.limit_in_bytes").write_text(str(in_use + 70 * MIB))  # a container is resized
        with Load(server.port, clients=2) as load:
            ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "keeps serving. Not enough memory to reload: " in ended.stderr
        assert load.failures == []
        assert_nobody_was_killed(server, memory, before)


def test_a_reload_begins_with_the_workers_that_memory_holds(
    env: Any, make_group: Callable[..., Path], tmp_path: Path
) -> None:
    site, memory = copy_site(tmp_path), make_group("memory", limited_to(256))
    with serving("--workers", "10", env=env(), cwd=site, command=(*inside(memory), *PRODSERVE)) as server:
        before = {*server.workers(10)}
        with Load(server.port, clients=2) as load:
            ended = run(*RELOAD, env=env(), cwd=site)
            assert ended.returncode == 0, ended.stderr
            until(lambda: len(server.workers()) == 10 and not before & {*server.workers()})
        assert load.failures == []
        assert re.search(r"Memory has room for \d of 10 workers alongside the old ones", server.output)
        assert facts(memory, "memory.oom_control")["oom_kill"] == 0


def test_of_two_generations_the_kernel_kills_the_one_that_is_not_proven(
    env: Any, make_group: Callable[..., Path], tmp_path: Path
) -> None:
    """What a settings module takes comes before anything of ours can count."""
    site, memory = copy_site(tmp_path), make_group("memory", limited_to(512))
    with serving("--workers", "2", env=env(), cwd=site, command=(*inside(memory), *PRODSERVE)) as server:
        before = server.workers(2)
        settings = site / "shop" / "settings.py"
        settings.write_text(settings.read_text() + "BALLAST = bytearray(2**30)\n")
        with Load(server.port, clients=2) as load:
            ended = run(*RELOAD, env=env(), cwd=site)
        assert ended.returncode == 1
        assert "keeps serving. it was ended by SIGKILL before it was ready" in ended.stderr
        assert load.failures == []
        assert facts(memory, "memory.oom_control")["oom_kill"] == 1
        assert server.workers(2) == before


@pytest.mark.parametrize("mebibytes", [128, 256])
def test_a_real_limit_kills_nobody_under_load(
    make_group: Any, env: Any, tmp_path: Path, mebibytes: int
) -> None:
    """From the first start on, which compresses the static files; the limit is on page cache as well."""
    group = make_group("memory", limited_to(mebibytes))
    environ = bookshop(tmp_path)
    environ = private(env, tmp_path, BOOKSHOP_DATA=environ["BOOKSHOP_DATA"])
    command = (*inside(group), "manage.py", "prodserve")
    with serving(env=environ, cwd=EXAMPLE, command=command) as server:
        planned = re.findall(r"^workers +(\d+) x 16 threads: ", server.output, re.MULTILINE)
        workers = server.workers(int(planned[-1]))
        assert f"{mebibytes} MiB" in server.output
        statuses = send(server.port, ("/", "/template", "/db", "/admin/login/"), 2000)
        assert set(statuses) == {200}
        assert sorted(server.workers()) == sorted(workers)
        control = (group / "memory.oom_control").read_text()
        assert "oom_kill 0" in control.splitlines()
        assert int((group / "memory.failcnt").read_text()) == 0
