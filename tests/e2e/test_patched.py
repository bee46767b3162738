"""gevent or eventlet under a server of threads: it refuses to start, wherever they were let in."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from .serving import copy_site, run, serving

BY_HAND = "import shop.patching; shop.patching.monkey_patch()"  # what eventlet does, by itself
CALLS = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
PATCHING = "def monkey_patch():\n    import select\n    del select.poll\n"
MANAGE = ("manage.py", "prodserve", "--bind", "127.0.0.1:0", "--workers", "1")


def call(library: str) -> str:
    """Return the line that patches; by hand where the library is not installed."""
    return CALLS[library] if importlib.util.find_spec(library) else BY_HAND


def patched_site(tmp_path: Path, file: str, line: str) -> Path:
    """Return a project one of whose files begins with this line."""
    site = copy_site(tmp_path)
    (site / "shop" / "patching.py").write_text(PATCHING)
    path = site / file
    path.write_text(f"{line}\n{path.read_text()}")
    return site


@pytest.mark.parametrize(
    ("file", "library", "flags"),
    [
        ("manage.py", "gevent", ["--supervisor"]),
        ("shop/settings.py", "eventlet", ["--no-supervisor"]),
        ("shop/wsgi.py", "gevent", ["--supervisor"]),
        ("shop/wsgi.py", "eventlet", ["--no-preload", "--no-supervisor"]),
        ("shop/urls.py", "by hand", ["check"]),
    ],
)
def test_it_is_refused_with_the_line_to_remove(
    env: Any, tmp_path: Path, file: str, library: str, flags: list[str]
) -> None:
    line = call(library) if library in CALLS else BY_HAND
    ended = run(*MANAGE, *flags, env=env(), cwd=patched_site(tmp_path, file, line))
    assert ended.returncode == 1, ended.stdout
    assert "has patched " in ended.stderr
    assert "select" in ended.stderr
    assert f"Remove `{line}` ({file}, line 1)." in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-2].startswith(
        "prodserve: error: "
    )  # eventlet has words of its own before
    assert " ready in " not in ended.stdout


def test_a_worker_that_is_patched_by_a_hook_never_serves(env: Any, tmp_path: Path) -> None:
    site = patched_site(tmp_path, "shop/wsgi.py", "")
    (site / "shop" / "hooks.py").write_text(f"def post_fork(server, worker):\n    {call('gevent')}\n")
    environ = env(PRODSERVE={"GUNICORN": {"post_fork": "shop.hooks.post_fork"}})
    ended = run(*MANAGE, env=environ, cwd=site)
    assert ended.returncode
    assert f"Remove `{call('gevent')}` (shop/hooks.py, line 2)." in ended.stderr


def test_a_worker_that_a_view_patches_is_replaced_and_the_server_stops(env: Any, tmp_path: Path) -> None:
    """Unless the view is asked again, the next worker is sound."""
    views = f"\ndef late(request):\n    {CALLS['gevent']}\n    return HttpResponse('patched')\n"
    if importlib.util.find_spec("gevent") is None:
        views = f"\ndef late(request):\n    {BY_HAND}\n    return HttpResponse('patched')\n"
    site = copy_site(tmp_path, f"{views}\nurlpatterns.append(path('late/', late))\n")
    (site / "shop" / "patching.py").write_text(PATCHING)
    with serving("--workers", "1", "--no-supervisor", env=env(), cwd=site) as server:
        (before,) = server.workers(1)
        assert server.get("/late/").text == "patched"
        server.wait_for("in a worker: it is replaced.")
        server.wait_for(f"Worker {before} is replaced")
        assert server.get("/livez").status == 200
        assert server.get("/").text == "hello"
        assert server.stop() == 0
        server.lines = [line for line in server.output.splitlines() if "Traceback" not in line]
