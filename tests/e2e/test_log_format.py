"""One format for all lines: JSON where programs read them, text where people do; and what stays out."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, SITE, Server, copy_site, run, serving, until
from .test_logs import PRELOAD, STAMP, logging_setting

VIEWS = """

import logging


def speak(request):
    logging.getLogger("shop.cart").info("nobody asked for this")
    logging.getLogger("shop.cart").warning("low on %s", "tea", extra={"left": 3, "request": request})
    return HttpResponse("spoken")


urlpatterns += [path("speak/", speak, name="speak")]
"""
AUTO = {"PRODSERVE_LOG_FORMAT": "auto"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return copy_site(tmp_path, VIEWS)


@contextlib.contextmanager
def serving_json(*flags: str, **how: Any) -> Iterator[Server]:
    """Serve with JSON lines; the address stands in one of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        bind = ("--bind", f"fd://{listener.fileno()}")
        with serving(*flags, bind=bind, pass_fds=[listener.fileno()], address=address, **how) as server:
            server.wait_for(" ready in ")
            yield server


def objects(text: str) -> list[dict[str, Any]]:
    """Return every line as the object that it is."""
    return [json.loads(line) for line in text.splitlines()]


def access(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in found if line["logger"] == "gunicorn.access"]


@PRELOAD
def test_a_pipe_gets_json_from_the_first_line_to_the_last(env: Any, site: Path, preload: str) -> None:
    flags = (preload, "--workers", "2", "--access-log", "-")
    with serving_json(*flags, env=env(AUTO), cwd=site) as server:
        assert server.get("/boom/", headers={"X-Request-ID": "broken-1"}).status == 500
        spoken = server.get("/speak/?q=1", headers={"X-Forwarded-For": "203.0.113.9", "Referer": "http://a/"})
        assert server.get("/", headers={"Host": "evil.example"}).status == 400
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(b"GARBAGE\r\n\r\n")
            refusal = client.recv(1000)
        until(
            lambda: '"status": 400, "bytes": 0' in server.output or server.output.count('"status": 400') == 2
        )
        os.kill(server.workers(2)[0], signal.SIGKILL)
        server.wait_for("SIGKILL")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Reloaded in ")
        assert server.stop() == 0
        found = objects(server.output)
    for line in found:
        assert list(line)[:3] == ["time", "level", "logger"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert isinstance(line["pid"], int)
    said = {line["message"]: line for line in found if "message" in line}
    assert any(message.startswith("django-prodserve ") for message in said)
    assert any(line["level"] == "warning" and line["logger"] == "prodserve" for line in said.values())
    broken = said["Internal Server Error: /boom/"]
    assert (broken["level"], broken["logger"]) == ("error", "django.request")
    assert broken["request_id"] == "broken-1"
    assert broken["exception"].endswith("RuntimeError: the view broke")
    assert not any("the view broke" in line["message"] for line in said.values())
    tea = said["low on tea"]
    assert (tea["level"], tea["logger"], tea["left"]) == ("warning", "shop.cart", 3)
    assert tea["request_id"] == spoken.headers["x-request-id"]
    assert "request" not in tea
    assert "nobody asked for this" not in said
    host = next(line for message, line in said.items() if "Invalid HTTP_HOST header: 'evil.ex" in message)
    assert "exception" not in host
    invalid = next(line for message, line in said.items() if "Invalid request from ip=127.0.0.1" in message)
    assert invalid["request_id"] in re.search(rb"X-Request-ID: (\w+)", refusal)[1].decode()  # type: ignore[index]
    assert any("was killed (SIGKILL)" in message for message in said)
    assert any(message.startswith("Reloaded in ") for message in said)
    logged = {line["path"] or line["request_id"]: line for line in access(found)}
    assert logged["/boom/"]["request_id"] == "broken-1"
    assert logged[invalid["request_id"]]["status"] == 400
    line = logged["/speak/"]
    assert line["request_id"] == spoken.headers["x-request-id"]
    expected = {"method": "GET", "query": "q=1", "route": "speak", "status": 200, "bytes": 6}
    expected |= {"client": "203.0.113.9", "referer": "http://a/", "user_agent": None}
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["duration_ms"] < 10_000
    assert line["pid"] not in {server.process.pid, os.getpid()}


CRASH = """
def crash(request):
    import faulthandler

    faulthandler._sigsegv()

def crash_of_a_child(request):
    child = os.fork()
    if not child:
        crash(request)
    os.waitpid(child, 0)
    return HttpResponse("it is gone")

urlpatterns += [path("crash/", crash), path("child/", crash_of_a_child)]
"""


def test_a_crash_is_one_line_with_its_stack_and_an_event(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, CRASH)
    with serving_json("--workers", "1", "--threads", "2", env=env(AUTO), cwd=site) as server:
        (worker,) = server.workers(1)
        with pytest.raises((OSError, http.client.HTTPException)):
            server.get("/crash/")
        server.wait_for("SIGSEGV")
        until(lambda: worker not in server.workers(1))
        status = json.loads(run("-m", "django_prodserve", "status", "--json", env=env(), cwd=site).stdout)
        assert server.stop() == 0
    said = [line.get("message", "") for line in objects(server.output)]
    (line,) = [line_of_log for line_of_log in said if "SIGSEGV" in line_of_log]
    assert line.startswith(
        f"Worker {worker} crashed (SIGSEGV). Stack:\nFatal Python error: Segmentation fault\n"
    )
    assert "in crash\n" in line
    (event,) = [seen for seen in status["events"] if seen["kind"] == "crashed"]
    assert event["text"] == f"Worker {worker} crashed (SIGSEGV)"
    assert event["stack"].startswith("ended while it ran GET /crash/ [")
    assert "in crash\n" in event["stack"]


def test_the_crash_of_a_child_is_not_lost(env: Any, tmp_path: Path) -> None:
    with serving("--workers", "1", env=env(), cwd=copy_site(tmp_path, CRASH)) as server:
        assert server.get("/child/").text == "it is gone"
        server.wait_for("Fatal Python error: Segmentation fault")
        server.wait_for("in crash_of_a_child")


def test_a_refused_generation_is_said_in_json(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    with serving_json(env=env(AUTO), cwd=site) as server:
        settings.write_text(settings.read_text() + "\nraise RuntimeError('the settings broke')\n")
        assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 1
        assert server.stop() == 0
        said = objects(server.output)
        server.lines = []
    messages = [line["message"] for line in said if line["level"] == "error"]
    assert any("Traceback" in message and "the settings broke" in message for message in messages)
    (failed,) = [
        message for message in messages if message.startswith("Reload failed; generation 1 keeps serving: ")
    ]
    assert "RuntimeError: the settings broke" in failed


def test_a_terminal_gets_text(env: Any) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "manage.py", "prodserve", "--bind", "127.0.0.1:0", "--access-log", "-"]
    process = subprocess.Popen(
        command, cwd=SITE, env=env(AUTO), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    try:
        while b" ready in " not in said:
            said += os.read(ours, 4096)
        address = re.search(rb"http://127.0.0.1:(\d+)", said)
        assert address is not None
        with socket.create_connection(("127.0.0.1", int(address[1])), PATIENCE) as client:
            client.sendall(b"GET /boom/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while client.recv(4096):
                pass
        while b'"GET /boom/ HTTP/1.1" 500' not in said:
            said += os.read(ours, 4096)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(ours)
    assert re.search(rb"^" + STAMP.encode() + rb".*Internal Server Error: /boom/", said, re.M), said
    assert b'{"time"' not in said


def test_each_stream_is_asked_for_itself(env: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving("--access-log", str(log), env=env({"PRODSERVE_LOG_FORMAT": "json"})) as server:
        pass
    assert objects(server.output)
    with serving_json("--access-log", str(log), env=env(AUTO)) as server:
        assert server.get("/").status == 200
        assert server.stop() == 0
    assert [line["path"] for line in objects(log.read_text())] == ["/"]


@pytest.mark.parametrize("kind", ["prodserve", "gthread", "sync"])
def test_nothing_that_a_client_sends_forges_a_line(env: Any, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "access.log"
    chance = random.Random(11)
    words = [
        b'"',
        b"\\",
        b'"}',
        b'{"time": "x"}',
        b"\xff\xfe",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xed\xa0\x80",
        b" ",
        b"a",
    ]
    count = 60
    flags = ("--workers", "1", "--worker-class", kind, "--access-log", str(log))
    with serving_json(*flags, env=env(AUTO)) as server:
        for number in range(count):
            agent, referer = (b"".join(chance.choices(words, k=8)).strip() or b"a" for _ in range(2))
            path = "".join(chance.choices(["%22", "%0a", "'", "%5c", "%ff", "{", "a"], k=6))
            head = b'GET /%d%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-ID: a"b\r\n'
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
                client.sendall(
                    head % (number, path.encode())
                    + b"User-Agent: %b\r\nReferer: %b\r\nAuthorization: Basic IgoiOiI=\r\n\r\n"
                    % (agent, referer)
                )
                assert b" 404 " in client.recv(4096)
        assert server.stop() == 0
    found = objects(log.read_bytes().decode("ascii"))
    assert len(found) == count
    numbers = [int(re.match(r"/(\d+)", line["path"])[1]) for line in found]  # type: ignore[index]
    assert sorted(numbers) == list(range(count))  # threads end in their own order
    assert {(line["status"], line["client"], line["route"]) for line in found} == {(404, "127.0.0.1", None)}
    assert all(re.fullmatch("[0-9a-f]{20}", line["request_id"]) for line in found)


@pytest.mark.slow
def test_what_the_server_answers_by_itself_is_logged_with_an_id(env: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    flags = ("--workers", "1", "--threads", "1", "--max-body", "1m", "--queue-timeout", "0.1")
    with (
        serving_json(*flags, "--access-log", str(log), env=env(AUTO)) as server,
        contextlib.ExitStack() as stack,
    ):
        told = {"X-Request-ID": "from-the-proxy", "X-Forwarded-For": "203.0.113.9"}
        large = server.get("/echo/", "POST", told, b"x" * 2**21)
        assert (large.status, large.headers["x-request-id"]) == (413, "from-the-proxy")
        static = server.get("/static/admin/css/base.css", headers=told)
        assert (static.status, static.headers["x-request-id"]) == (200, "from-the-proxy")
        refusal = refused_when_overloaded(server, stack)
        assert server.stop() == 0
    found = objects(log.read_text())
    named = {line["path"]: line for line in found if line["request_id"] == "from-the-proxy"}
    assert {path: (line["status"], line["client"]) for path, line in named.items()} == {
        "/echo/": (413, "203.0.113.9"),
        "/static/admin/css/base.css": (200, "203.0.113.9"),
    }
    refused = [line for line in found if line["status"] == 503]
    assert {line["path"] for line in refused} == {"/slow/"}
    assert refused[-1]["request_id"].encode() in refusal


def refused_when_overloaded(server: Server, stack: contextlib.ExitStack) -> bytes:
    """Let requests wait on connections that are kept; return the first refusal."""
    kept = [
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) for _ in range(20)
    ]
    ask = b"GET /slow/?seconds=%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for client in kept:
        client.sendall(ask % 0)
        assert b" 200 OK" in client.recv(4096)
    for client in kept[1:]:
        client.sendall(ask % 1)
        time.sleep(0.1)
    kept[0].sendall(ask % 0)
    refusal = kept[0].recv(4096)
    assert refusal.startswith(b"HTTP/1.1 503 ")
    return refusal


def test_a_custom_format_has_its_own_lines_of_refusals_once(env: Any) -> None:
    site = {"PRODSERVE": {"GUNICORN": {"access_log_format": "OWN %(s)s %(r)s %({x-request-id}o)s"}}}
    with serving("--max-body", "1m", "--access-log", "-", env=env(**site)) as server:
        assert server.get("/echo/", "POST", body=b"x" * 2**21).status == 413
        made = server.get("/").headers["x-request-id"]
        assert server.stop() == 0
        lines = [line for line in server.output.splitlines() if line.startswith("OWN ")]
    assert [line.partition(" /")[0] for line in lines] == ["OWN 413 POST", "OWN 200 GET"]
    assert lines[1] == f"OWN 200 GET / HTTP/1.1 {made}"


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_secrets_stay_out_of_every_line(env: Any, kind: str) -> None:
    flags = ("--worker-class", kind, "--access-log", "-", "--log-redact", "token,password")
    with serving(*flags, env=env()) as server:
        referer = {"Referer": "http://a/?password=s3cret&x=1"}
        assert server.get("/boom/?q=tea&TOKEN=s3cret", headers=referer).status == 500
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(b"GET /?token=s3cret&q=1 HTTP/9.x\r\n\r\n")
            while client.recv(1000):
                pass
        assert server.stop() == 0
        said = server.output
    assert '"GET /boom/?q=tea&TOKEN=[redacted] HTTP/1.1" 500' in said
    assert '"http://a/?password=[redacted]&x=1"' in said
    assert "Invalid request from ip" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_only_slow_requests_and_errors_are_logged_where_asked(env: Any, kind: str) -> None:
    flags = ("--workers", "1", "--worker-class", kind, "--access-log", "-", "--access-log-min-duration", "1s")
    with serving(*flags, env=env()) as server:
        assert server.get("/?quick").status == 200
        assert server.get("/slow/?seconds=1.2").status == 200
        assert server.get("/boom/").status == 500
        assert server.stop() == 0
        said = re.findall(r'"GET (\S+) HTTP', server.output)
    assert said == ["/slow/?seconds=1.2", "/boom/"]


def test_a_sample_is_one(env: Any) -> None:
    with serving("--access-log", "-", "--access-log-sample", "20%", env=env()) as server:
        for _ in range(200):
            assert server.get("/").status == 200
        assert server.get("/boom/").status == 500
        assert server.stop() == 0
    assert 10 < server.output.count('"GET / HTTP') < 80  # beyond six sigmas
    assert server.output.count('"GET /boom/ HTTP') == 1


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--access-log-sample", "0"), "--access-log-sample is '0', but must be a share such as 10% or 0.1"),
        (
            ("--access-log-sample", "150%"),
            "--access-log-sample is '150%', but must be a share such as 10% or 0.1",
        ),
        (
            ("--access-log-min-duration", "soon"),
            "--access-log-min-duration is 'soon', but must be a time such as",
        ),
        (("--log-format", "xml"), "--log-format is 'xml', but must be text, json or auto"),
        (("--log-redact", " "), "--log-redact is set but empty"),
    ],
)
def test_what_is_typed_wrongly_is_one_line(env: Any, flags: tuple[str, str], line: str) -> None:
    ended = run("manage.py", "prodserve", "plan", *flags, env=env())
    assert ended.returncode
    assert len(re.findall("^prodserve: error: --(?:access-)?log-.*$", ended.stderr, re.M)) == 1
    assert line in ended.stderr


def test_a_choice_without_a_log_is_warned_of(env: Any) -> None:
    ended = run("manage.py", "prodserve", "plan", "--access-log-min-duration", "1s", env=env())
    assert (
        "warning: --access-log-min-duration has no effect without an access log. Add --access-log -"
        in " ".join(ended.stdout.split())
    )


def test_a_logging_setting_keeps_its_say(env: Any, site: Path) -> None:
    own = logging_setting(loggers={"shop": {"handlers": ["own"], "level": "INFO"}})
    own["formatters"]["json"] = {"()": "django_prodserve.logs.JSONFormatter"}
    own["handlers"]["json"] = {"class": "logging.StreamHandler", "formatter": "json"}
    own["loggers"]["gunicorn.access"] = {"handlers": ["json"], "level": "INFO"}
    with serving_json("--access-log", "-", env=env(AUTO, LOGGING=own), cwd=site) as server:
        assert server.get("/speak/").status == 200
        assert server.stop() == 0
        said = server.output.splitlines()
    assert [line for line in said if "tea" in line or "asked" in line] == [
        "OWN nobody asked for this",
        "OWN low on tea",
    ]
    line = next(json.loads(line) for line in said if "/speak/" in line)
    assert line["logger"] == "gunicorn.access"
    assert '"GET /speak/ HTTP/1.1" 200' in line["message"]
