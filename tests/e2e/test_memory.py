"""What a project takes is measured, decides the plan, and stays within real limits."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.memory import bookshop, compare

from .serving import SITE, copy_site, run, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PSS and control groups are Linux")


def private(env: Any, tmp_path: Path, **more: Any) -> dict[str, str]:
    """Return an environment whose cache nobody has filled: the first start on a machine."""
    cache = {name: str(tmp_path / "own") for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR")}
    (tmp_path / "own").mkdir(exist_ok=True)
    made: dict[str, str] = env({**cache, **more})
    return made


def decisions(environ: dict[str, str], *flags: str, cwd: Path = SITE) -> dict[str, Any]:
    """Return the decisions of ``plan --json``."""
    ended = run("manage.py", "prodserve", "plan", "--json", *flags, env=environ, cwd=cwd)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)["decisions"]
    return found


def sizes(decided: dict[str, Any]) -> list[int]:
    return [decided[name]["value"] >> 20 for name in ("master_memory", "worker_memory")]


@pytest.mark.slow
def test_the_plan_shows_the_last_measurement_for_as_long_as_the_code_is_the_same(
    env: Any, tmp_path: Path
) -> None:
    environ, site = private(env, tmp_path), copy_site(tmp_path)
    guessed = decisions(environ, cwd=site)
    assert sizes(guessed) == [46, 56]
    assert "prodserve plan --measure" in guessed["master_memory"]["why"]
    measured = decisions(environ, "--measure", cwd=site)
    master, worker = sizes(measured)
    assert 24 <= master <= 64
    assert 40 <= worker <= 64
    assert master % 8 == worker % 8 == 0
    assert re.search(r"measured \d{4}-\d\d-\d\d \d\d:\d\d UTC \(PSS\)", measured["master_memory"]["why"])
    assert decisions(environ, cwd=site)["master_memory"] == measured["master_memory"]
    fewer_threads = sizes(decisions(environ, "--threads", "4", cwd=site))[1]
    assert worker - fewer_threads == 24
    assert sizes(decisions(environ, "--warmup", "/about/", cwd=site)) == [46, 56]
    urls = site / "shop" / "urls.py"
    urls.write_text(urls.read_text() + "# changed\n")
    assert sizes(decisions(environ, cwd=site)) == [46, 56]


def test_measure_goes_with_plan_only(env: Any) -> None:
    ended = run("manage.py", "prodserve", "check", "--measure", env=env())
    assert ended.returncode == 2
    assert "--measure works with plan, not with check." in ended.stderr


def test_without_a_request_there_is_no_measurement(env: Any) -> None:
    ended = run("manage.py", "prodserve", "plan", "--measure", "--warmup", "off", env=env())
    assert ended.returncode == 1
    assert "Nothing was measured" in ended.stderr


@pytest.mark.parametrize("preload", ["--preload", pytest.param("--no-preload", marks=pytest.mark.slow)])
def test_a_first_start_corrects_the_guess_before_it_forks(env: Any, tmp_path: Path, preload: str) -> None:
    """Eight workers of 56 MiB do not fit into what is stated; those of a big application fit even less.

    Both of the sizes that its workers are measured with, 56 and 64 MiB, make the same number.
    """
    environ, site = private(env, tmp_path), copy_site(tmp_path)
    urls = site / "shop" / "urls.py"
    urls.write_text(urls.read_text() + "BALLAST = [str(number) for number in range(2_000_000)]\n")
    flags = ("--cpus", "8", "--memory", "464m", preload)
    with serving(*flags, env=environ, cwd=site) as server:
        lines = [line for line in server.output.splitlines() if line.startswith("workers ")]
        assert lines[0].startswith("workers   6 x 16 threads: memory holds 6 (master 46 MiB, 56 MiB each")
        match = re.match(r"workers   (\d+) x 16 threads: memory holds \1 \(measured ", lines[1])
        assert match, lines
        count = int(match[1])
        assert count < 6
        assert len(lines) == 2
        assert len(server.workers(count)) == count
        assert server.get("/").status == 200
    with serving(*flags, env=environ, cwd=site) as server:
        lines = [line for line in server.output.splitlines() if line.startswith("workers ")]
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"workers   {count} x 16 threads: memory holds {count} (measured ")


def test_a_stated_number_is_kept_and_warned_about(env: Any, tmp_path: Path) -> None:
    flags = ("--workers", "4", "--cpus", "4", "--memory", "200m")
    with serving(*flags, env=private(env, tmp_path)) as server:
        assert len(server.workers(4)) == 4
        assert "4 workers (--workers) need about" in server.output
        assert sum(line.startswith("workers ") for line in server.output.splitlines()) == 1


@pytest.mark.slow
def test_preload_and_freeze_halve_the_memory_after_light_requests_and_save_a_third_after_mixed(
    tmp_path: Path,
) -> None:
    """The more of a project its requests run, the less of it stays shared (see tests/bench).

    Measured on a machine with nothing else to do, light and mixed: 0.50 and 0.58 with Python 3.12, 0.53 and
    0.60 with 3.13, 0.63 and 0.74 with 3.11, which writes counts into all that it uses: there it is a quarter.
    3 MiB are what the warm-up request would have filled in the arbiter: it is sent in a fork instead.
    Libraries that other processes share count less on both sides.
    """
    most = (0.56, 0.63) if sys.version_info >= (3, 12) else (0.66, 0.77)
    found = compare(bookshop(tmp_path), 1200)
    assert found["light"][0] / found["light"][1] <= most[0], found
    assert found["mixed"][0] / found["mixed"][1] <= most[1], found
