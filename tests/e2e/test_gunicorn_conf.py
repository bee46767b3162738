"""``plan --gunicorn-conf`` prints a file with which plain Gunicorn serves the project the same way."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import socket
import tokenize
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.config.gunicorn import new_config

from .serving import Server, copy_site, run, serving, until
from .test_hooks import COUNTS, a_site, as_functions, as_lambdas, drive, in_a_file


def exported(*flags: str, env: Mapping[str, str], cwd: Path) -> str:
    """Return the file that the plan with these flags prints."""
    ended = run("manage.py", "prodserve", "plan", "--gunicorn-conf", *flags, env=env, cwd=cwd)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@contextmanager
def plain_gunicorn(*flags: str, env: Mapping[str, str], cwd: Path, elsewhere: Path) -> Iterator[Server]:
    """Export a plan, and serve it with nothing but Gunicorn, from another directory."""
    elsewhere.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        text = exported(*flags, "--bind", f"fd://{number}", env=env, cwd=cwd)
        conf = elsewhere / "gunicorn.conf.py"
        conf.write_text(text)
        with serving(
            env=env,
            cwd=elsewhere,
            command=("-m", "gunicorn"),
            bind=("--config", str(conf)),
            pass_fds=[number],
            address=f"http://127.0.0.1:{listener.getsockname()[1]}",
        ) as server:
            yield server


@pytest.mark.parametrize(
    ("preload", "way"),
    [
        ("--preload", in_a_file),
        pytest.param("--no-preload", as_functions, marks=pytest.mark.slow),
        ("--preload", as_lambdas),
    ],
)
def test_plain_gunicorn_runs_every_hook(
    env: Any, tmp_path: Path, preload: str, way: Callable[[Path], list[str]]
) -> None:
    site, flags, marks = a_site(tmp_path, way)
    environ = env({"HOOKS_FILE": str(marks.path)})
    with plain_gunicorn(*flags, preload, env=environ, cwd=site, elsewhere=tmp_path / "elsewhere") as server:
        marks.wait("post_worker_init", 2)
        drive(server, marks, plain=True)
    one_more = ("pre_fork", "post_fork", "post_worker_init", "child_exit", "worker_exit")
    assert marks.count() == COUNTS | {name: COUNTS[name] + 1 for name in one_more} | {"pre_request": 4}


@pytest.mark.parametrize("preload", ["--preload", pytest.param("--no-preload", marks=pytest.mark.slow)])
def test_plain_gunicorn_serves_the_same_way(env: Any, tmp_path: Path, preload: str) -> None:
    flags = [preload, "--workers", "2", "--threads", "3", "--trusted-proxies", "none", "--access-log", "-"]
    logging = {"version": 1, "disable_existing_loggers": True}
    place = {"cwd": copy_site(tmp_path), "elsewhere": tmp_path / "elsewhere"}
    with plain_gunicorn(*flags, env=env({"XDG_RUNTIME_DIR": "/proc"}, LOGGING=logging), **place) as server:
        page = server.get("/admin/login/")
        assert page.status == 200
        links = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
        assert len(links) >= 4
        for link in links:
            file = server.get(link, headers={"Accept-Encoding": "gzip, br"})
            assert re.search(r"\.[0-9a-f]{12}\.\w+$", link)
            assert "immutable" in file.headers["cache-control"]
            assert file.headers["content-encoding"] == "br"
        forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "Script-Name": "/evil"}
        seen = server.get("/whoami/", headers=forged).json()
        assert not seen["secure"]
        assert seen["meta"]["REMOTE_ADDR"] == "127.0.0.1"
        assert not [name for name in seen["meta"] if "FORWARDED" in name]
        assert seen["pid"] in server.workers(2)
        assert server.get("/boom/").status == 500
        assert server.get("/", headers={"Host": "evil.example"}).status == 400
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GARBAGE\r\n\r\n")
            while client.recv(1000):
                pass
        assert len(server.workers(2)) == 2
        until(lambda: '"GET /boom/ ' in server.output)  # an access line comes after its response
        os.kill(server.workers(2)[0], signal.SIGKILL)
        server.wait_for("SIGKILL")
        old = set(server.workers(2))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(server.workers(2)) == 2 and not old & set(server.workers()))
        assert server.get("/").text == "hello"
        assert server.stop() == 0
        said = server.output
    assert said.count("RuntimeError: the view broke") == 1
    for words in ("Invalid HTTP_HOST", "Invalid request from", "was sent SIGKILL"):
        assert len(re.findall(rf"^\d{{4}}-\d\d-\d\dT[\d:]+Z \[\d+\] \[\w+\] .*{words}", said, re.M)) == 1, (
            said
        )
        assert said.count(words) == 1, said
    assert said.count('"GET /boom/ HTTP/1.1" 500') == 1
    assert "Control server" not in said


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--workers", "7", "--threads", "5", "--no-preload", "--timeout", "2m", "--keep-alive", "1.5"],
        ["--worker-class", "sync", "--bind", "unix:a.sock", "--umask", "0", "--access-log", "a b#c"],
        [
            "--trusted-proxies",
            "10.0.0.0/8,unix",
            "--max-requests",
            "1000",
            "--bind",
            "[::1]:0",
            "--bind",
            "80",
        ],
    ],
    ids=" ".join,
)
def test_gunicorn_reports_what_the_plan_said(env: Any, tmp_path: Path, flags: list[str]) -> None:
    site = copy_site(tmp_path)
    environ = env(PRODSERVE={"GUNICORN": {"statsd_host": "localhost:8125", "raw_env": ["A=1 # 2"]}})
    (tmp_path / "own.py").write_text(exported(*flags, env=environ, cwd=site))
    planned = json.loads(
        run("manage.py", "prodserve", "plan", "--json", *flags, env=environ, cwd=site).stdout
    )
    printed = run(*("-m", "gunicorn", "--print-config", "-c", "own.py"), env=environ, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    config = new_config()
    for name, value in planned["gunicorn"].items():
        config.set(name, value)
    expected = {line for line in str(config).splitlines() if line.split()[0] in planned["gunicorn"]}
    assert len(expected) >= 20
    assert expected <= set(printed.stdout.splitlines())


def comments(text: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def assert_every_line_has_its_reason(text: str) -> None:
    reasons = comments(text)
    for node in ast.parse(text).body[3:]:  # after the docstring, import os, import sys
        assert node.lineno == node.end_lineno
        assert len(reasons[node.lineno]) > 10, text.splitlines()[node.lineno - 1]
    assert len(reasons) == len(ast.parse(text).body) - 3


def test_every_line_has_its_reason(env: Any, tmp_path: Path) -> None:
    site, flags, _ = a_site(tmp_path, in_a_file)
    assert_every_line_has_its_reason(exported(env=env(), cwd=site))
    assert_every_line_has_its_reason(exported(*flags, env=env(), cwd=site))


NASTY = "a \"b\" 'c' \\ # d\n\te\r\x0c\u2028é \"\"\" '''"


def test_nasty_values_and_sources_break_no_line(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    name = "own # 'conf' \"\n evil = 1\n#.py"
    (site / name).write_text(
        "import ssl\nclass Label:\n    pass\n"
        f"access_log_format = {NASTY!r}\n"
        "cert_reqs = ssl.CERT_OPTIONAL\n"
        "logconfig_dict = {'version': 1, 'own': Label}\n"
        "post_fork = lambda server, worker: None\n"
    )
    settings = {"PRODSERVE": {"GUNICORN": {"proc_name": NASTY, "raw_env": ["A=#\n'"]}}}
    text = exported("--config", name, env=env(**settings), cwd=site)
    assert_every_line_has_its_reason(text)
    found: dict[str, Any] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                found[node.targets[0].id] = ast.unparse(node.value)
    assert "evil" not in found
    assert found["access_log_format"] == found["proc_name"] == NASTY
    assert found["raw_env"] == ["A=#\n'"]
    assert found["cert_reqs"] == 1
    assert found["logconfig_dict"] == "configured['logconfig_dict']"
    assert found["post_fork"] == "hooks.hook('post_fork', configured['post_fork'])"
    called = ast.parse(found["configured"], mode="eval").body
    assert isinstance(called, ast.Call)
    assert ast.unparse(called.func) == "runpy.run_path"
    # By one of the links that lead to the directory: pytest makes some.
    assert os.path.samefile(ast.literal_eval(called.args[0]), site / name)
