"""What an operator reads: every line once, in UTC, whatever the project's LOGGING says."""

from __future__ import annotations

import os
import re
import signal
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Server, copy_site, run, serving, until

STAMP = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)"
REFUSED = "Invalid HTTP_HOST header: 'evil.example'"
PRELOAD = pytest.mark.parametrize("preload", ["--preload", "--no-preload"])


def logging_setting(**changes: Any) -> dict[str, Any]:
    """Return a LOGGING dictionary with a console handler and one that marks its lines."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": {"format": "OWN %(message)s"}},
        "handlers": {
            "console": {"class": "logging.StreamHandler"},
            "own": {"class": "logging.StreamHandler", "formatter": "own"},
            "mail": {"class": "django.utils.log.AdminEmailHandler", "level": "ERROR"},
        },
        **changes,
    }


CONSOLE = {"handlers": ["console"], "level": "INFO"}
OWN = {"handlers": ["own"], "level": "INFO"}
MAIL = {"handlers": ["mail"], "level": "ERROR", "propagate": False}

# Django settings, and what begins the lines of Gunicorn's: ours, or the project's own format.
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "no LOGGING": ({}, STAMP),
    "disables": ({"LOGGING": logging_setting(disable_existing_loggers=True)}, STAMP),
    "disables, root console": (
        {"LOGGING": logging_setting(disable_existing_loggers=True, root=CONSOLE)},
        STAMP,
    ),
    "root console": ({"LOGGING": logging_setting(root=CONSOLE)}, STAMP),
    "gunicorn.error has a handler": (
        {"LOGGING": logging_setting(loggers={"gunicorn.error": OWN}, root=CONSOLE)},
        "^OWN",
    ),
    "gunicorn.error is named only": (
        {"LOGGING": logging_setting(loggers={"gunicorn.error": {"level": "INFO"}}, root=OWN)},
        "^OWN",
    ),
    "gunicorn.error leads nowhere": (
        {"LOGGING": logging_setting(loggers={"gunicorn.error": {"level": "INFO"}})},
        STAMP,
    ),
    "gunicorn has a handler": ({"LOGGING": logging_setting(loggers={"gunicorn": OWN})}, "^OWN"),
    "django has a console": (
        {"LOGGING": logging_setting(loggers={"django": {"handlers": ["console"], "level": "ERROR"}})},
        STAMP,
    ),
    "django.request is mailed": ({"LOGGING": logging_setting(loggers={"django.request": MAIL})}, STAMP),
    "django is mailed": ({"LOGGING": logging_setting(loggers={"django": MAIL})}, STAMP),
    "LOGGING_CONFIG is None": ({"LOGGING_CONFIG": None}, STAMP),
}
# Where the project's own handler shows a refused host, it is written as the project likes it.
SHOWN_BY_PROJECT = {
    "disables, root console",
    "root console",
    "gunicorn.error has a handler",
    "gunicorn.error is named only",
    "django has a console",
}


def everything_happens(server: Server) -> None:
    """Let each kind of line be written once: traceback, refusal, access, of a worker, of the arbiter."""
    assert server.get("/boom/").status == 500
    assert server.get("/", headers={"Host": "evil.example"}).status == 400
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(b"GARBAGE\r\n\r\n")
        while client.recv(1000):
            pass
    # An access line is written after its response was sent.
    until(lambda: all(words in server.output for words in ('"GET /boom/ ', '"GET / ')), lambda: server.output)
    os.kill(server.workers(2)[0], signal.SIGKILL)
    server.wait_for("SIGKILL")


def lines(output: str, pattern: str) -> list[str]:
    return [line for line in output.splitlines() if re.search(pattern, line)]


# LOGGING is set up in the arbiter, or in each worker: one of each kind is tried without preload, too.
LOADED = [(variant, "--preload") for variant in VARIANTS] + [
    (variant, "--no-preload") for variant in ("no LOGGING", "disables, root console", "django is mailed")
]


@pytest.mark.parametrize(("variant", "preload"), LOADED)
def test_every_line_is_there_once(env: Any, variant: str, preload: str) -> None:
    site, begin = VARIANTS[variant]
    with serving(preload, "--workers", "2", "--access-log", "-", env=env(**site)) as server:
        everything_happens(server)
        assert server.stop() == 0
        said = server.output
    assert len(lines(said, r" ready in ")) == 1
    assert len(lines(said, "RuntimeError: the view broke")) == 1, said
    assert len(lines(said, "Internal Server Error: /boom/")) == 1, said
    assert len(lines(said, "Invalid request from ip=127.0.0.1")) == 1, said
    assert len(lines(said, begin + ".*Invalid request from ip=127.0.0.1")) == 1, said
    assert len(lines(said, "was killed \\(SIGKILL\\)")) == 1, said
    assert len(lines(said, begin + ".*was killed \\(SIGKILL\\)")) == 1, said
    assert len(lines(said, '"GET /boom/ HTTP/1.1" 500')) == 1, said
    assert len(lines(said, '"GET / HTTP/1.1" 400')) == 1, said
    if variant in SHOWN_BY_PROJECT:
        assert REFUSED in said
    else:
        assert len(lines(said, re.escape(REFUSED))) == 1, said
        assert said.count("Traceback") == 1, said


def test_a_traceback_stands_once_with_debug_too(env: Any) -> None:
    with serving("--allow-debug", env=env(DEBUG=True)) as server:
        assert server.get("/boom/").status == 500
        assert server.stop() == 0
        assert server.output.count("RuntimeError: the view broke") == 1


def test_a_project_that_silences_refused_hosts_keeps_them_silent(env: Any) -> None:
    null = {"null": {"class": "logging.NullHandler"}}
    mute = {"django.security.DisallowedHost": {"handlers": ["null"], "propagate": False}}
    site = {"LOGGING": {"version": 1, "handlers": null, "loggers": mute}}
    with serving(env=env(**site)) as server:
        assert server.get("/", headers={"Host": "evil.example"}).status == 400
        assert server.get("/boom/").status == 500
        assert server.stop() == 0
        assert "evil.example" not in server.output
        assert server.output.count("RuntimeError: the view broke") == 1


def is_now(text: str, form: str) -> bool:
    """Whether this is the time in UTC; Chicago is five or six hours away."""
    moment = datetime.strptime(text, form)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return abs(datetime.now(timezone.utc) - moment) < timedelta(minutes=5)


@PRELOAD
def test_times_are_utc_and_the_client_is_the_one_behind_the_proxy(env: Any, preload: str) -> None:
    client = {"X-Forwarded-For": "198.51.100.66, 203.0.113.9"}
    flags = (preload, "--workers", "2", "--access-log", "-")
    with serving(*flags, env=env({"TZ": "Asia/Tokyo"})) as server:
        everything_happens(server)
        assert server.get("/settings/", headers=client).status == 200
        assert server.stop() == 0
        said = server.output
    for words in ("Internal Server Error: /boom/", "Invalid HTTP_HOST", "Invalid request", "SIGKILL"):
        stamp = re.match(rf"{STAMP} \[\d+\] \[\w+\] .*{words}", lines(said, words)[0])
        assert stamp, said
        assert is_now(stamp[1], "%Y-%m-%dT%H:%M:%SZ")
    access = lines(said, '"GET /settings/')
    assert len(access) == 1
    match = re.match(r"203\.0\.113\.9 - - \[([^\]]+ \+0000)\]", access[0])
    assert match, access
    assert is_now(match[1], "%d/%b/%Y:%H:%M:%S %z")


@PRELOAD
@pytest.mark.parametrize(("level", "count"), [("debug", 1), ("info", 0)])
def test_gunicorns_chatter_is_for_debugging(env: Any, preload: str, level: str, count: int) -> None:
    with serving(preload, "--workers", "1", "--log-level", level, env=env()) as server:
        assert server.get("/").status == 200
        assert server.stop() == 0
        said = server.output
    for words in ("Starting gunicorn", "Listening at", "Booting worker", "Shutting down"):
        assert len(lines(said, words)) == count, said
    assert len(lines(said, " ready in ")) == 1


@PRELOAD
@pytest.mark.parametrize("variant", ["no LOGGING", "disables"])
def test_logs_go_to_files_and_usr1_reopens_them(env: Any, tmp_path: Path, preload: str, variant: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    access, errors = logs / "access.log", logs / "error.log"
    site = {**VARIANTS[variant][0], "PRODSERVE": {"GUNICORN": {"errorlog": str(errors)}}}
    with serving(preload, "--workers", "1", "--access-log", str(access), env=env(**site)) as server:
        assert server.get("/?before").status == 200
        until(lambda: "before" in access.read_text())
        for log in (access, errors):
            log.rename(log.with_suffix(".1"))
        server.process.send_signal(signal.SIGUSR1)
        asked = 0

        def has_reopened() -> bool:
            nonlocal asked
            asked += server.get("/?after").status == 200
            return access.exists() and "after" in access.read_text()

        until(has_reopened)
        until(lambda: count(access, "?after") == asked)
        os.kill(server.workers(1)[0], signal.SIGKILL)
        until(lambda: errors.exists() and "SIGKILL" in errors.read_text())
        assert server.stop() == 0
        assert "SIGKILL" not in server.output
        assert "GET /" not in server.output
    assert (count(access, "?before"), count(access, "?after")) == (1, asked)
    assert errors.read_text().count("SIGKILL") == 1


def count(log: Path, words: str) -> int:
    """Count words in a log file and the one that it replaced."""
    return (log.with_suffix(".1").read_text() + log.read_text()).count(words)


def test_a_handler_of_the_projects_does_not_replace_a_file_that_was_asked_for(
    env: Any, tmp_path: Path
) -> None:
    access = tmp_path / "access.log"
    site = {"LOGGING": logging_setting(loggers={"gunicorn.access": OWN})}
    with serving("--access-log", str(access), env=env(**site)) as server:
        assert server.get("/").status == 200
        assert server.stop() == 0
        assert len(lines(server.output, '^OWN .*"GET / ')) == 1
    assert len(lines(access.read_text(), '"GET / ')) == 1


@pytest.mark.parametrize(
    "kind", ["gunicorn.glogging.Logger", "gunicorn.instrument.statsd.Statsd", "shop.log.Silent"]
)
def test_a_logger_class_of_the_users_own_is_used(env: Any, tmp_path: Path, kind: str) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "log.py").write_text(
        "class Silent:\n"
        "    access_log_enabled = False\n"
        "    def __init__(self, cfg): self.cfg = cfg\n"
        "    def __getattr__(self, name): return lambda *args, **kwargs: None\n"
    )
    settings = {"PRODSERVE": {"GUNICORN": {"logger_class": kind}}}
    with serving("--workers", "1", env=env(**settings), cwd=site) as server:
        assert server.get("/boom/").status == 500
        assert server.stop() == 0
        assert server.output.count("RuntimeError: the view broke") == 1
        assert ("Booting worker" in server.output) == kind.startswith("gunicorn")


def test_statsd_is_told_when_a_host_is_named(env: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(PATIENCE)
        host = f"127.0.0.1:{collector.getsockname()[1]}"
        settings = {"PRODSERVE": {"GUNICORN": {"statsd_host": host}}}
        with serving("--workers", "1", env=env(**settings)) as server:
            assert collector.recv(1000) == b"gunicorn.workers:1|g"
            assert server.get("/").status == 200
            assert b"gunicorn.request.duration" in collector.recv(1000)
            assert server.stop() == 0
            assert "Booting worker" not in server.output


BROKEN = '''"""A middleware that raises for every request."""


def middleware(get_response):
    def handle(request):
        raise RuntimeError("the view broke: no tenant")

    return handle
'''


def break_every_request(site: Path) -> None:
    (site / "shop" / "tenants.py").write_text(BROKEN)
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + 'MIDDLEWARE.insert(0, "shop.tenants.middleware")\n')


@PRELOAD
def test_a_broken_warm_up_is_one_warning_with_the_line_and_serving_goes_on(
    env: Any, tmp_path: Path, preload: str
) -> None:
    site = copy_site(tmp_path)
    break_every_request(site)
    with serving(preload, "--workers", "2", env=env(), cwd=site) as server:
        assert len(server.workers(2)) == 2
        assert server.get("/").status == 500
        assert server.stop() == 0
        said = server.output
    warning = lines(said, "^warning: the warm-up request .* raised")
    assert len(warning) == 1, said
    assert "RuntimeError: the view broke: no tenant" in warning[0]
    assert 'shop/tenants.py, line 6: raise RuntimeError("the view broke: no tenant")' in warning[0]
    assert len(lines(said, "Internal Server Error: /$")) == 1
    assert said.count("Traceback") == 1


def test_check_says_the_same_of_a_broken_warm_up(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    break_every_request(site)
    ended = run("manage.py", "prodserve", "check", "--bind", "127.0.0.1:0", env=env(), cwd=site)
    assert len(lines(ended.stdout, "^warning: the warm-up .*shop/tenants.py, line 6")) == 1
    assert "Traceback" not in ended.stdout + ended.stderr


SLASHES = """

def middleware(get_response):
    def handle(request):
        request.path = request.path_info = f"{request.path_info.rstrip('/')}/"
        return get_response(request)

    return handle
"""


@pytest.mark.parametrize("path", ["/nowhere?page=1", "/nowhere"])
def test_a_warm_up_leaves_no_line_whatever_becomes_of_its_path(env: Any, tmp_path: Path, path: str) -> None:
    site = copy_site(tmp_path)
    (site / "shop" / "slashes.py").write_text(SLASHES)
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + 'MIDDLEWARE.insert(0, "shop.slashes.middleware")\n')
    loud = logging_setting(root=CONSOLE)
    with serving("--warmup", path, env=env(LOGGING=loud), cwd=site) as server:
        assert "Not Found" not in server.output
        assert server.get("/elsewhere").status == 404
        server.wait_for("Not Found: /elsewhere/")
