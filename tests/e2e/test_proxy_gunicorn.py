"""Forged headers over real sockets to a plain Gunicorn: what is relied on there, proved there."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
FORGED = "198.51.100.66"
CLIENT = "203.0.113.9"

ECHO = """
import json, os

from django_prodserve.config.trust import parse_trust
from django_prodserve.middleware.proxy_headers import ProxyHeadersMiddleware


def echo(environ, start_response):
    body = json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


application = ProxyHeadersMiddleware(echo, parse_trust([os.environ["TRUST"]]))
"""

SETTINGS = """
forwarder_headers = ""
forwarded_allow_ips = ""
secure_scheme_headers = {}
header_map = "drop"
control_socket_disable = True
"""


@contextmanager
def gunicorn(folder, listener, *, worker, trust, **environment):
    (folder / "echo.py").write_text(ECHO)
    (folder / "settings.py").write_text(SETTINGS)
    fd = listener.fileno()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--config", "settings.py", "--bind", f"fd://{fd}"),
            *("--worker-class", worker, "--threads", "2", "--graceful-timeout", "5"),
            "echo:application",
        ],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if k not in ("GUNICORN_CMD_ARGS", "SCRIPT_NAME")},
            "PYTHONPATH": str(ROOT),
            "FORWARDED_ALLOW_IPS": "*",
            "TRUST": trust,
            **environment,
        },
        pass_fds=[fd],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own: master and workers
            process.communicate()


def loopback_socket():
    return socket.create_server(("127.0.0.1", 0))


def ask(listener, *lines, path="/page"):
    """Send these header lines as they are; return the status and the environ, if any."""
    head = [f"GET {path} HTTP/1.1", "Host: example.com", "Connection: close", *lines, "", ""]
    with closing(socket.socket(listener.family, socket.SOCK_STREAM)) as client:
        client.settimeout(60)
        client.connect(listener.getsockname())
        client.sendall("\r\n".join(head).encode("latin-1"))
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    answer_head, _, body = answer.partition(b"\r\n\r\n")
    status = int(answer_head.split()[1])
    return status, json.loads(body) if status == 200 else {}


@pytest.fixture(scope="module", params=["gthread", "sync"])
def worker(request):
    return request.param


@pytest.fixture(scope="module")
def trusting_nobody(worker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("none")
    with loopback_socket() as listener, gunicorn(folder, listener, worker=worker, trust="none"):
        yield listener


@pytest.fixture(scope="module")
def trusting_loopback(worker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    with loopback_socket() as listener, gunicorn(folder, listener, worker=worker, trust="loopback"):
        yield listener


def spellings(name):
    """Return the ways to write a name that end up as the same environ key, or might."""
    dashed, words = name.title(), name.split("-")
    return sorted(
        {
            dashed,
            name.lower(),
            name.upper(),
            dashed.swapcase(),
            "_".join(words),
            "_".join(words).upper(),
            *("-".join(words[:i]) + "_" + "-".join(words[i:]) for i in range(1, len(words))),
        }
    )


FORGERIES = {
    "X-Forwarded-For": FORGED,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Protocol": "ssl",
    "Forwarded": f"for={FORGED};proto=https",
    "X-Real-Ip": FORGED,
    "Cf-Connecting-Ip": FORGED,
    "Front-End-Https": "on",
    "Proxy": "http://evil.example",
    "Script-Name": "/page",
    "Path-Info": "/evil",
    "Remote-User": "root",
    "Remote-Addr": FORGED,
}


def assert_nothing_arrived(listener, *lines):
    plain_status, plain = ask(listener)
    status, environ = ask(listener, *lines)
    assert plain_status == 200
    assert status in (200, 400)
    if status == 200:
        assert {**environ, "REMOTE_PORT": ""} == {**plain, "REMOTE_PORT": ""}
    assert plain["REMOTE_ADDR"] == "127.0.0.1"
    assert plain["wsgi.url_scheme"] == "http"
    assert (plain["SCRIPT_NAME"], plain["PATH_INFO"]) == ("", "/page")


@pytest.mark.parametrize("name", FORGERIES)
def test_no_spelling_of_a_forged_header_arrives(trusting_nobody, name):
    value = FORGERIES[name]
    for spelling in spellings(name):
        assert_nothing_arrived(trusting_nobody, f"{spelling}: {value}")
        assert_nothing_arrived(trusting_nobody, f"{spelling}: {value}", f"{spelling}: {value}")
    assert_nothing_arrived(trusting_nobody, *(f"{s}: {value}" for s in spellings(name)))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([f"X-Forwarded-For: {FORGED}", " , 127.0.0.1"], id="folded with a space"),
        pytest.param(["X-Forwarded-Proto:", "\thttps"], id="folded with a tab"),
        pytest.param(["User-Agent: x", " X-Forwarded-Proto: https"], id="folded into another"),
        pytest.param(["X-Forwarded-Proto : https"], id="a space before the colon"),
        pytest.param(["X-Forwarded-Proto\t: https"], id="a tab before the colon"),
        pytest.param(["X-Forwarded-Proto\x0b: https"], id="a vertical tab in the name"),
        pytest.param(["X-Forwarded-Proto\xa0: https"], id="a hard space in the name"),
        pytest.param(["User-Agent: x\nX-Forwarded-Proto: https"], id="a bare line feed"),
        pytest.param(["User-Agent: x\rX-Forwarded-Proto: https"], id="a bare carriage return"),
        pytest.param([f"X-Forwarded-For: \x00{FORGED}"], id="a zero byte"),
    ],
)
def test_bent_headers_are_refused(trusting_nobody, lines):
    status, _ = ask(trusting_nobody, *lines)
    assert status == 400


def test_a_trusted_proxy_is_believed_and_the_client_is_not(trusting_loopback):
    status, environ = ask(
        trusting_loopback,
        f"X-Forwarded-For: {FORGED}",
        f"x-forwarded-for: {CLIENT}",
        f"X_Forwarded_For: {FORGED}",
        "X-Forwarded-Proto: https",
        "X_Forwarded_Proto: http",
        f"X-Real-IP: {FORGED}",
        "SCRIPT_NAME: /page",
        "PATH_INFO: /evil",
        "Proxy: http://evil.example",
    )
    assert status == 200
    assert environ["REMOTE_ADDR"] == CLIENT
    assert environ["HTTP_X_FORWARDED_FOR"] == CLIENT
    assert environ["HTTP_X_REAL_IP"] == CLIENT
    assert environ["wsgi.url_scheme"] == environ["HTTP_X_FORWARDED_PROTO"] == "https"
    assert environ["SERVER_PORT"] == "443"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/page")
    assert FORGED not in json.dumps(environ)
    assert "evil" not in json.dumps(environ)


def test_contradicting_schemes_are_no_error(trusting_loopback):
    status, environ = ask(
        trusting_loopback, "X-Forwarded-Proto: http", "X-Forwarded-Ssl: on", "Front-End-Https: on"
    )
    assert (status, environ["wsgi.url_scheme"]) == (200, "http")


@pytest.mark.parametrize(("trust", "address"), [("loopback", CLIENT), ("none", "")])
def test_a_unix_socket(worker, tmp_path, trust, address):
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with gunicorn(tmp_path, listener, worker=worker, trust=trust):
            status, environ = ask(
                listener,
                f"X-Forwarded-For: {FORGED}, {CLIENT}",
                "X-Forwarded-Proto: https",
                "SCRIPT_NAME: /page",
            )
    assert (status, environ["REMOTE_ADDR"]) == (200, address)
    assert environ["wsgi.url_scheme"] == ("https" if address else "http")
    assert environ["SCRIPT_NAME"] == ""
    assert FORGED not in json.dumps(environ)


def test_the_servers_own_script_name_is_kept(worker, tmp_path):
    options = {"worker": worker, "trust": "loopback", "SCRIPT_NAME": "/app"}
    with loopback_socket() as listener, gunicorn(tmp_path, listener, **options):
        status, environ = ask(listener, "SCRIPT_NAME: /evil", path="/app/page")
    assert status == 200
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/page")
