"""``prodserve export``: what each file holds, and that the files of one plan agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.cli.export import options_in, write
from django_prodserve.errors import ProdserveError, UsageError
from django_prodserve.export import reading
from django_prodserve.export import site as sites
from django_prodserve.export.build import Build, package_names
from django_prodserve.export.check import contradictions
from django_prodserve.export.kinds import KINDS, check_kinds
from django_prodserve.export.layout import File
from django_prodserve.export.servers import parse_servers
from django_prodserve.export.variables import Tried, find_required

from .e2e.needs import need_package, need_program
from .exports import BUILD, exported, facts
from .facts import site


def value(text: str, key: str) -> str:
    """Return the value of a key in a unit; fail unless it is there once."""
    (found,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return found


KILLS = {
    "systemd": r"^TimeoutStopSec=(\d+)$",
    "systemd-socket": r"^TimeoutStopSec=(\d+)$",
    "supervisor": r"^stopwaitsecs=(\d+)$",
    "dockerfile": r"^#.* --stop-timeout (\d+) ",
    "compose": r"^    stop_grace_period: (\d+)s$",
    "kubernetes": r"^      terminationGracePeriodSeconds: (\d+)$",
    "fly": r'^kill_timeout = "(\d+)s"$',
    "render": r"^    maxShutdownDelaySeconds: (\d+)$",
    "kamal": r"^ *(?:stop-timeout|drain_timeout): (\d+)$",
}
"""What says when a supervisor kills, in each kind of file."""
SIZED = {
    "compose": (r'cpus: "(.*)"', r"memory: (\d+)M"),
    "kubernetes": (r"cpu: (\d+m)", r"memory: (\d+)Mi"),
    "fly": (r"cpus = (\d+)", r'memory = "(\d+)mb"'),
    "cloudrun": (r'cpu: "(.*)"', r"memory: (\d+)Mi"),
    "kamal": (r'cpus: "(.*)"', r"memory: (\d+)m"),
}
"""What limits CPUs and MiB, in each kind of file."""


REFUSED = {("cloudrun", "migrate"), ("cloudrun", "graceful_timeout"), ("cloudrun", "drain_delay")}
REFUSED |= {("procfile", "timeout"), ("procfile", "keep_alive"), ("cloudrun", "keep_alive")}
REFUSED |= {("kamal", "keep_alive")}
"""Options that a platform cannot follow."""
PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "patient": {"timeout": 600, "graceful_timeout": 13, "drain_delay": 12.5},
    "small": {"cpus": "0.5", "memory": "256m", "max_body": "10m"},
    "hasty": {"timeout": "1500ms", "keep_alive": 5, "graceful_timeout": 2},
    "endless": {"timeout": 0, "workers": "2n+1", "migrate": True},
}


def stated(kind: str, name: str) -> dict[str, Any]:
    """Return the options of a plan that this kind can follow."""
    return {key: given for key, given in PLANS[name].items() if (kind, key) not in REFUSED}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", KINDS)
class TestEveryFile:
    def test_is_the_same_again(self, kind: str, name: str) -> None:
        assert exported(kind, **stated(kind, name)) == exported(kind, **stated(kind, name))

    def test_has_a_head_that_a_person_can_follow(self, kind: str, name: str) -> None:
        for file, text in exported(kind, **stated(kind, name)).items():
            assert text.startswith(f"# {file}, written by: prodserve export {kind}")
            assert ("To change by hand:" in text) != ("Nothing is left to change by hand." in text)
            assert not [line for line in text.split("\n") if line.endswith(" ")]
            assert text.endswith("\n")
            assert not text.endswith("\n\n")

    def test_holds_only_what_was_set_as_a_flag(self, kind: str, name: str) -> None:
        text = "".join(exported(kind, **stated(kind, name)).values())
        commands = [line for line in text.split("\n") if "prodserve" in line and "#" not in line]
        flags = set(re.findall(r"--([a-z-]+)=", "\n".join(commands)))
        allowed = {option.replace("_", "-") for option in PLANS[name]}
        allowed |= {"bind"} if kind in ("systemd", "supervisor") else set()
        allowed |= {"max-body"} if KINDS[kind].target.is_container else set()
        allowed |= {"keep-alive"} if kind == "kamal" else set()
        assert flags <= allowed


def test_a_size_of_this_machine_is_in_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        machine = KINDS[kind].target.machine()
        assert (machine.cpus, machine.memory_effective) == (1.0, 512 * 2**20)


# systemd


@pytest.mark.parametrize("kind", ["systemd", "systemd-socket"])
@pytest.mark.parametrize("name", PLANS)
def test_systemd_accepts_the_unit_and_rates_it_well(kind: str, name: str, tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze")
    python = {"program": ("/bin/true",), "user": "root", "directory": "/"}
    for file, text in exported(kind, python, bind="127.0.0.1:8000", **PLANS[name]).items():
        (tmp_path / file).write_text(text)
    for command in (
        ["verify", "--recursive-errors=yes", "--man=no"],
        ["security", "--offline=yes", "--threshold=40", "--no-pager"],
    ):
        ended = subprocess.run(
            [analyze, *command, "./shop.service"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert command[0] != "verify" or ended.stderr == ""


@pytest.mark.parametrize("name", PLANS)
def test_the_unit_gives_the_server_its_time(name: str) -> None:
    unit = exported("systemd", **PLANS[name])["shop.service"]
    known = facts("systemd", **PLANS[name])
    assert int(value(unit, "TimeoutStopSec")) > known.drain.value + known.graceful.value
    assert int(value(unit, "TimeoutStartSec")) >= (600 if PLANS[name].get("migrate") else 90)
    assert value(unit, "Type") == "notify"
    assert value(unit, "ExecReload") == "/srv/shop/venv/bin/prodserve reload"


def test_a_size_is_a_limit_of_the_unit_and_no_flag() -> None:
    unit = exported("systemd", cpus="1.5", memory="1g")["shop.service"]
    assert (value(unit, "CPUQuota"), value(unit, "MemoryMax")) == ("150%", "1024M")
    assert value(unit, "ExecStart") == "/srv/shop/venv/bin/prodserve --bind=127.0.0.1:8000"
    assert "CPUQuota" not in exported("systemd")["shop.service"]


def test_the_socket_has_the_address_and_the_service_has_none() -> None:
    files = exported("systemd-socket", bind="unix:/run/shop/shop.sock", timeout=60)
    assert value(files["shop.socket"], "ListenStream") == "/run/shop/shop.sock"
    assert value(files["shop.socket"], "SocketMode") == "0660"
    assert value(files["shop.service"], "ExecStart") == "/srv/shop/venv/bin/prodserve --timeout=60"
    assert "SocketMode" not in exported("systemd-socket")["shop.socket"]
    # systemd creates it as root, where the account of the server may not.
    files = exported("systemd-socket", bind="unix:/run/shop.sock")
    assert "RuntimeDirectory" not in files["shop.service"]


def test_a_unix_socket_of_the_service_has_a_directory() -> None:
    unit = exported("systemd", bind="unix:/run/shop/web/s.sock")["shop.service"]
    assert value(unit, "RuntimeDirectory") == "shop/web"
    with pytest.raises(UsageError, match="only root may create a socket in /run") as caught:
        exported("systemd", bind="unix:/run/shop.sock")
    assert caught.value.hint == "--bind unix:/run/shop/shop.sock"
    with pytest.raises(UsageError, match="fd://3 is a descriptor"):
        exported("systemd", bind="fd://3")


def test_a_project_in_a_home_stays_readable() -> None:
    assert value(exported("systemd")["shop.service"], "ProtectHome") == "yes"
    hidden = exported("systemd", {"hidden": "/home/anna/shop"})["shop.service"]
    assert value(hidden, "ProtectHome") == "read-only"
    assert "/home/anna/shop" in hidden


def test_a_low_port_needs_its_capability() -> None:
    unit = exported("systemd", bind="0.0.0.0:80")["shop.service"]
    assert value(unit, "AmbientCapabilities") == "CAP_NET_BIND_SERVICE"
    assert value(exported("systemd")["shop.service"], "CapabilityBoundingSet") == ""
    tls = {"certfile": "/c", "keyfile": "/k", "redirect_http": "80"}
    unit = exported("systemd", bind="0.0.0.0:8443", **tls)["shop.service"]
    assert value(unit, "AmbientCapabilities") == "CAP_NET_BIND_SERVICE"


def test_strange_paths_are_quoted() -> None:
    odd = {"directory": "/srv/my shop%1", "program": ("/srv/my shop/v$1/prodserve",)}
    unit = exported("systemd", {**odd, "writable": {"/srv/a b": "uploads"}})["shop.service"]
    assert value(unit, "WorkingDirectory") == "/srv/my shop%%1"
    assert value(unit, "ExecStart") == '"/srv/my shop/v$$1/prodserve" --bind=127.0.0.1:8000'
    assert value(unit, "ReadWritePaths") == '"-/srv/a b"'


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", KILLS)
def test_nothing_kills_before_the_server_has_stopped(kind: str, name: str) -> None:
    text = next(iter(exported(kind, **stated(kind, name)).values()))
    known = facts(kind, **stated(kind, name))
    found = [int(seconds) for seconds in re.findall(KILLS[kind], text, re.MULTILINE)]
    assert found
    assert min(found) > known.drain.value + known.graceful.value


@pytest.mark.parametrize("kind", SIZED)
def test_a_container_has_the_size_that_was_set_or_a_small_one(kind: str) -> None:
    cpus, memory = SIZED[kind]
    for more, expected in (({}, {"1", "1000m"}), ({"cpus": "2"}, {"2", "2000m"})):
        text = next(iter(exported(kind, memory="256m", **more).values()))
        assert setting(text, cpus) in expected
        assert setting(text, memory) == "256"
    assert setting(next(iter(exported(kind).values())), memory) == "512"


IMAGES = sorted(kind for kind in KINDS if KINDS[kind].target.is_container)


@pytest.mark.parametrize("name", ["plain", "small"])
@pytest.mark.parametrize("kind", IMAGES)
class TestContainer:
    def test_always_has_a_maximum_of_a_body(self, kind: str, name: str) -> None:
        text = next(iter(exported(kind, **stated(kind, name)).values()))
        size = setting(text, r"--max-body=(\d+)m\b")
        assert size == ("10" if name == "small" else "32" if kind == "cloudrun" else "100")

    def test_runs_as_a_number_with_words_and_no_shell(self, kind: str, name: str) -> None:
        text = next(iter(exported(kind, **stated(kind, name)).values()))
        user = re.search(r'(?m)^( *user: "|USER |  *runAsUser: )10001\b', text)
        assert user or kind in ("fly", "render", "cloudrun")  # as the image
        exec_form = re.search(r'(?m)^ *(CMD|command:|args:) \["prodserve", ', text)
        assert exec_form or re.search(r'(?m)^ *(app = "|dockerCommand: |cmd: )prodserve ', text)
        assert "tmpfs:" not in text
        assert "Memory}" not in text


def test_the_key_of_the_build_is_in_no_layer() -> None:
    text = exported("dockerfile", {"static_root": "/srv/shop/current/static"})["Dockerfile"]
    lines = re.findall(r"(?m)^.*only-for-the-build.*$", text)
    assert [line.split()[0] for line in lines] == ["RUN"]
    assert f"{lines[0]}\n    python manage.py collectstatic --no-input" in text
    assert "collectstatic" not in exported("dockerfile")["Dockerfile"].partition("FROM")[2]
    ignored = exported("dockerfile", {"static_root": "/srv/shop/current/static"})[".dockerignore"]
    assert {"static", ".git", "**/.env*"} <= {*ignored.split("\n")}


def test_what_settings_write_while_the_image_is_built_is_in_no_layer() -> None:
    place = {"static_root": "/srv/shop/current/static", "writable": {"/srv/shop/current/var": "SQLite"}}
    text = exported("dockerfile", place)["Dockerfile"]
    assert "collectstatic --no-input \\\n    && rm -rf /app/var \\\n    && chmod -R a+rX /app\n" in text
    assert text.index("rm -rf /app/var") < text.index("install -d -o 10001 -g 10001 /app/var")


def test_a_build_without_hashes_and_compression_is_named() -> None:
    place = {"static_root": "/srv/shop/current/static"}
    plain = exported("dockerfile", {**place, "has_plain_storage": True})["Dockerfile"]
    assert 'STORAGES["staticfiles"]' in plain
    assert "STORAGES" not in exported("dockerfile", place)["Dockerfile"]


def test_what_the_project_writes_survives_its_container() -> None:
    place = {"writable": {"/srv/shop/current/media": "uploads", "/srv/shop/current": "SQLite"}}
    assert "install -d -o 10001 -g 10001 /app/media" in exported("dockerfile", place)["Dockerfile"]
    text = exported("compose", place)["compose.yaml"]
    assert "      - media:/app/media\n" in text
    assert "/app\n" not in text
    assert "SQLite: it is in the project's directory" in text


def test_a_proxy_before_a_container_is_trusted_unless_somebody_chose() -> None:
    assert "PRODSERVE_TRUSTED_PROXIES: private" in exported("compose")["compose.yaml"]
    chosen = exported("compose", trusted_proxies="10.0.0.5")["compose.yaml"]
    assert "PRODSERVE_TRUSTED_PROXIES" not in chosen
    assert '"--trusted-proxies=10.0.0.5"' in chosen


@pytest.mark.parametrize("bind", ["unix:/run/s", "127.0.0.1:8000", "localhost:8000"])
def test_an_address_that_nobody_outside_reaches_is_refused(bind: str) -> None:
    for kind in IMAGES:
        with pytest.raises(UsageError, match="inside a container cannot be reached"):
            exported(kind, bind=bind)


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["pip", "uv", "poetry"])
def test_hadolint_accepts_the_dockerfile(manager: str, tmp_path: Path) -> None:
    build = Build(manager=manager, lock=f"{manager}.lock", names=BUILD.names, required=BUILD.required)
    (tmp_path / "Dockerfile").write_text(
        exported("dockerfile", {"static_root": "/srv/shop/static"}, build=build)["Dockerfile"]
    )
    ended = subprocess.run(
        [need_program("hadolint"), "Dockerfile"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_system_packages_follow_from_the_lock_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-r base.txt\npsycopg[binary,pool]>=3\n# mysqlclient\n")
    (tmp_path / "base.txt").write_text("Django==6.0\ndjango_prodserve\n--hash=x\n")
    names = frozenset(package_names(tmp_path / "requirements.txt"))
    assert {"django", "django-prodserve", "psycopg", "psycopg-binary"} <= names
    assert Build(manager="pip", lock="x", names=names, required=Tried()).packages == ([], [])
    (tmp_path / "uv.lock").write_text('[[package]]\nname = "psycopg2"\n\n[[package]]\nname = "mysqlclient"\n')
    names = frozenset(package_names(tmp_path / "uv.lock"))
    assert Build(manager="uv", lock="x", names=names, required=Tried()).packages == (
        ["default-libmysqlclient-dev", "gcc", "libc6-dev", "libpq-dev", "pkg-config"],
        ["libmariadb3", "libpq5"],
    )
    assert BUILD.packages == ([], ["libpq5"])


SETTINGS = """
import os, pathlib
here = pathlib.Path(__file__).parent
if (here / ".env").exists():
    for line in open(here / ".env"):
        os.environ.setdefault(*line.strip().split("=", 1))
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY")
HOSTS = os.environ.get("HOSTS", "").split(",")
POOL = int(os.environ["POOL_MAX"])
assert os.environ["DATABASE_URL"].partition("://")[0] == "sqlite"
"""


def test_the_variables_that_settings_require_are_found_by_trying(tmp_path: Path) -> None:
    (tmp_path / "required_settings.py").write_text(SETTINGS)
    (tmp_path / ".env").write_text("DJANGO_SECRET_KEY=secret\nPOOL_MAX=4\nDATABASE_URL=sqlite://\n")
    found = find_required(tmp_path, {"DJANGO_SETTINGS_MODULE": "required_settings"})
    assert found.error == ""
    assert [*found.substitutes] == ["DATABASE_URL", "DJANGO_SECRET_KEY", "POOL_MAX"]
    assert found.substitutes["POOL_MAX"] == "1"
    assert "secret" not in found.substitutes["DJANGO_SECRET_KEY"]


def test_settings_that_fail_without_a_variable_are_reported(tmp_path: Path) -> None:
    (tmp_path / "broken_settings.py").write_text("SECRET_KEY = 'x'\nraise ValueError('broken here')\n")
    found = find_required(tmp_path, {"DJANGO_SETTINGS_MODULE": "broken_settings"})
    assert (found.error, found.substitutes) == ("ValueError: broken here", {})


def test_the_release_line_migrates_unless_the_server_does() -> None:
    text = exported("procfile")["Procfile"]
    assert re.findall(r"(?m)^[a-z]+: .*$", text) == [
        "release: python manage.py migrate --no-input",
        "web: prodserve",
    ]
    assert "release:" not in exported("procfile", migrate=True)["Procfile"]


@pytest.mark.parametrize(
    ("kind", "given", "message", "fix"),
    [
        ("procfile", {"graceful_timeout": 60}, "Heroku kills 30 s after", "--graceful-timeout 25"),
        ("cloudrun", {"graceful_timeout": 25}, "Cloud Run kills 10 s after", "--graceful-timeout 5"),
        ("fly", {"graceful_timeout": 400}, "Fly kills 300 s after", "--graceful-timeout 295"),
        ("cloudrun", {"migrate": True}, "gives a start 240 s, but it may take 900 s", "gcloud run jobs"),
        ("cloudrun", {"certfile": ("/c",), "keyfile": ("/k",)}, "router ends TLS", "Leave --certfile"),
        ("fly", {"certfile": ("/c",)}, "router ends TLS", "Leave --certfile"),
        ("procfile", {"timeout": 120}, "Heroku's router gives up after 30 s", "Leave --timeout out"),
        ("procfile", {"keep_alive": 60}, "Heroku's router keeps idle connections for 90 s", "above 90 s"),
        ("cloudrun", {"keep_alive": 75}, "Google's router keeps idle connections for 10 min", "10 min"),
        (
            "kamal",
            {"keep_alive": 75},
            "kamal-proxy keeps idle connections for 24 h",
            "Leave --keep-alive out",
        ),
        ("procfile", {"bind": "unix:/run/s"}, "cannot be reached by the platform's router", "Leave --bind"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, given: dict[str, Any], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        exported(kind, **given)
    assert message in caught.value.message
    assert fix in caught.value.hint


@pytest.mark.parametrize("name", PLANS)
def test_probes_of_a_pod_fit_its_start_and_its_drain(name: str) -> None:
    text = exported("kubernetes", **PLANS[name])["kubernetes.yaml"]
    known = facts("kubernetes", **PLANS[name])
    startup, readiness = text.partition("startupProbe:")[2], text.partition("readinessProbe:")[2]
    least = 600 if PLANS[name].get("migrate") else 60
    assert 5 * int(re.findall(r"failureThreshold: (\d+)", startup)[0]) >= least
    assert 2 * int(re.findall(r"periodSeconds: (\d+)", readiness)[0]) < known.drain.value
    assert re.findall(r"timeoutSeconds: (\d+)", text) == ["5"] * 3
    assert "preStop:" not in re.sub("#.*", "", text)


def test_a_deployment_leaves_its_number_to_the_autoscaler() -> None:
    text = re.sub("#.*", "", exported("kubernetes")["kubernetes.yaml"])
    assert not re.search(r"\breplicas:", text)
    assert int(setting(text, r"minAvailable: (\d+)")) < int(setting(text, r"minReplicas: (\d+)"))
    (requests,), (limits,) = (re.findall(rf"{word}: (\{{.*\}})", text) for word in ("requests", "limits"))
    assert requests == limits


def test_kamal_s_proxy_never_meets_a_connection_that_the_server_closed() -> None:
    assert "--keep-alive=1d" in exported("kamal")["deploy.yml"]
    assert "--keep-alive=172800" in exported("kamal", keep_alive="2d")["deploy.yml"]
    assert int(setting(exported("kamal", timeout=600)["deploy.yml"], r"response_timeout: (\d+)")) >= 610


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", ["compose", "kubernetes", "render", "cloudrun", "kamal"])
def test_the_yaml_can_be_read(kind: str, name: str) -> None:
    need_package("yaml")
    import yaml

    for text in exported(kind, **stated(kind, name)).values():
        for document in yaml.safe_load_all(text):
            assert isinstance(document, dict)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is new in Python 3.11")
@pytest.mark.parametrize("name", PLANS)
def test_the_toml_can_be_read(name: str) -> None:
    import tomllib

    read = tomllib.loads(exported("fly", **PLANS[name])["fly.toml"])
    assert read["vm"][0]["memory"] == ("256mb" if name == "small" else "512mb")
    assert read["processes"]["app"].startswith("prodserve --")
    assert read["http_service"]["checks"][0]["path"] == "/readyz"


def test_a_percent_sign_is_none_of_supervisord_s() -> None:
    text = exported("supervisor", {"directory": "/srv/100%"}, access_log_sample="10%")["shop.conf"]
    assert value(text, "directory") == "/srv/100%%"
    assert value(text, "command") == (
        "/srv/shop/venv/bin/prodserve --bind=127.0.0.1:8000 --access-log-sample=10%%"
    )


# Proxies


def setting(text: str, pattern: str) -> str:
    """Return what a pattern finds in a file, comments aside; fail unless it is there once."""
    code = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    (found,) = set(re.findall(pattern, code))
    return str(found)


PROXY_NUMBERS = {
    "nginx": (r"proxy_read_timeout (\d+)s", r"^ +keepalive_timeout (\d+)s", r"client_max_body_size (\d+)"),
    "caddy": (r"response_header_timeout (\d+)s", r"keepalive (\d+)s", r"max_size (\d+)"),
    "haproxy": (r"timeout server (\d+)s", r"pool-purge-delay (\d+)ms", r"content-length\) gt (\d+)"),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", PROXY_NUMBERS)
def test_a_proxy_agrees_with_the_server(kind: str, name: str) -> None:
    (text,) = exported(kind, **stated(kind, name)).values()
    known = facts(kind, **stated(kind, name))
    wait, idle, body = (f"(?m){pattern}" for pattern in PROXY_NUMBERS[kind])
    assert int(setting(text, wait)) >= known.timeout.value + 10
    assert int(setting(text, wait)) >= 10
    # HAProxy closes half at a time: nine times close the connections of 24 clients, 15 times those of 1,024.
    share = 0.016 if kind == "haproxy" else 1
    assert 0 < int(setting(text, idle)) * share <= 0.8 * known.keep_alive.value
    if "max_body" in PLANS[name]:
        assert int(setting(text, body)) == 10 * 2**20
    elif kind == "nginx":
        assert int(setting(text, body)) == 0
    else:
        assert not re.search(body, text)
    # Caddy replaces X-Forwarded-Host of a client by itself.
    assert kind == "caddy" or len(re.findall('X-Forwarded-Host *("";)?\n', text)) == 1
    assert re.search("[ -]Forwarded", text)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nginx", "close;"),
        ("caddy", "keepalive off"),
        ("haproxy", "pool-max-conn 0"),
    ],
)
def test_a_server_without_keep_alive_gets_new_connections(kind: str, words: str) -> None:
    (text,) = exported(kind, keep_alive=0).values()
    assert words in text
    assert "keepalive_timeout" not in text


def test_nginx_of_every_version_starts_with_it() -> None:
    text = exported("nginx")["shop.conf"]
    assert setting(text, r"listen (443.*);") == "443 ssl http2"
    assert "http2 on;" not in re.sub("#.*", "", text)


@pytest.mark.parametrize(("drain", "most"), [(0.5, 500), (4, 4000), (600, 4000)])
def test_haproxy_notices_a_drain_before_it_ends(drain: float, most: int) -> None:
    text = exported("haproxy", drain_delay=drain)["haproxy.cfg"]
    interval, fast, fall = (int(setting(text, rf" {word} (\d+)")) for word in ("inter", "fastinter", "fall"))
    assert interval + (fall - 1) * fast <= most < 1000 * drain + 1
    assert "option httpchk GET /readyz" in text
    assert "shutdown-sessions" not in re.sub("#.*", "", text)


def test_haproxy_asks_nothing_of_a_server_that_does_not_drain() -> None:
    assert " check " not in re.sub("#.*", "", exported("haproxy")["haproxy.cfg"])


def test_haproxy_reaches_a_unix_socket() -> None:
    text = re.sub("#.*", "", exported("haproxy", bind="unix:/run/shop/s")["haproxy.cfg"])
    assert "server shop unix@/run/shop/s " in text
    assert "chroot" not in text
    assert "tcp-ut" not in text


MACHINES = ("10.0.0.11:8000", "10.0.0.12:8000")


def test_haproxy_in_front_of_several_machines() -> None:
    text = exported("haproxy", servers=MACHINES)["haproxy.cfg"]
    assert "#   prodserve --bind=0.0.0.0:8000 --drain-delay=4\n" in text
    assert "--trusted-proxies with the address of this machine" in re.sub(r"\s+#\s+", " ", text)
    lines = re.findall(r"^    server shop(\d) (\S+) (.*)$", text, re.MULTILINE)
    assert [(number, address) for number, address, _ in lines] == [("1", MACHINES[0]), ("2", MACHINES[1])]
    for _, _, words in lines:
        assert words == lines[0][2]
        assert re.match("check inter 1333ms .* tcp-ut 4s pool-purge-delay ", words)
    for word in ("option redispatch 1", "retry-on conn-failure empty-response", "unless METH_GET"):
        assert word in text
    assert faults("haproxy", text, drain_delay=4, bind="0.0.0.0:8000") == []


def test_servers_on_several_machines_keep_what_was_set() -> None:
    given = {"bind": "0.0.0.0:9000", "drain_delay": 9, "trusted_proxies": ("10.0.0.5",)}
    text = exported("haproxy", servers=MACHINES, **given)["haproxy.cfg"]
    line = "#   prodserve --bind=0.0.0.0:9000 --drain-delay=9 --trusted-proxies=10.0.0.5\n"
    assert sorted(line.split()) == sorted(re.search("#   prodserve --.*\n", text)[0].split())  # type: ignore[index]
    assert "need --trusted-proxies" not in text
    with pytest.raises(UsageError, match="HAProxy cannot reach that address"):
        exported("haproxy", servers=MACHINES, bind="unix:/run/shop/s")


@pytest.mark.parametrize(
    ("words", "kinds", "message"),
    [
        (["10.0.0.11"], ["haproxy"], "--server is '10.0.0.11': '10.0.0.11' lacks a port"),
        (["8000"], ["haproxy"], "names no machine"),
        (["unix:/run/s"], ["haproxy"], "names no machine"),
        (["10.0.0.11:8000"], ["haproxy", "nginx"], "not for nginx"),
    ],
)
def test_a_wrong_machine_is_one_message(words: list[str], kinds: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_servers(words, kinds)


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("check inter 1333ms fastinter 1333ms fall 2 rise 1 ", "a machine that is down"),
        ("option redispatch 1", "at the same machine again"),
        ("tcp-ut 4s", "until the timeout"),
        ("option srvtcpka\n", "until the timeout"),
        ("http-request disable-l7-retry unless METH_GET", "a POST twice"),
    ],
)
def test_a_contradiction_between_machines_is_found(old: str, message: str) -> None:
    text = exported("haproxy", servers=MACHINES)["haproxy.cfg"]
    before, found, after = text.rpartition(old)  # of two machines, only the last lacks it
    assert found
    assert message in "\n".join(faults("haproxy", before + after, drain_delay=4))


def test_a_certificate_moves_to_the_proxy() -> None:
    pair = {"certfile": ("/etc/tls/cert.pem",), "keyfile": ("/etc/tls/key.pem",)}
    assert "ssl_certificate     /etc/tls/cert.pem;" in exported("nginx", **pair)["shop.conf"]
    assert "\ttls /etc/tls/cert.pem /etc/tls/key.pem\n" in exported("caddy", **pair)["Caddyfile"]
    plain = {"redirect_http": "80", "acme_webroot": "/var/www"}
    for kind in PROXY_NUMBERS:
        (text,) = exported(kind, timeout=60, **pair, **plain).values()
        assert "#   prodserve --timeout=60\n" in text
        assert "without --certfile and --keyfile" in re.sub(r"\s+#\s+", " ", text)


def test_files_that_the_server_leaves_to_the_proxy() -> None:
    place = {"static_root": "/srv/shop/static"}
    assert "alias /srv/shop/static/;" in exported("nginx", place, static=False)["shop.conf"]
    assert "handle_path /static/* {" in exported("caddy", place, static=False)["Caddyfile"]
    assert "/srv/shop/static" not in exported("nginx", place)["shop.conf"]


def test_a_proxy_of_another_machine_must_be_trusted() -> None:
    assert "--trusted-proxies" in exported("nginx", bind="10.0.0.5:8000")["shop.conf"]
    assert "server 10.0.0.5:8000;" in exported("nginx", bind="10.0.0.5:8000")["shop.conf"]
    assert "server 127.0.0.1:8000;" in exported("nginx", bind="0.0.0.0:8000")["shop.conf"]


# Names and paths


@pytest.mark.parametrize(
    ("module", "base", "name"),
    [
        ("shop.settings", "/srv/other", "shop"),
        ("config.settings.production", "/srv/My_Shop/current", "my-shop"),
        ("settings", "/app", "site"),
        ("", "/", "site"),
    ],
)
def test_the_name_of_the_site(module: str, base: str, name: str) -> None:
    assert sites.site_name(module, base) == name


def test_domains_are_those_that_a_browser_can_open() -> None:
    hosts = ["*", "localhost", "127.0.0.1", "[::1]", ".shop.example", "WWW.shop.example", "web", ".localhost"]
    assert list(sites.find_domains(hosts)) == ["shop.example", "www.shop.example"]
    assert site(domains=()).domain == "site.example"


def test_a_directory_inside_another_needs_no_line() -> None:
    found = [("/srv/a", "SQLite"), ("/srv/a/media", "uploads"), ("/tmp/x", "log"), ("relative", "log")]
    assert sites.collapse(iter(found)) == {"/srv/a": "SQLite"}


# The command


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        ([], "export needs the kind of file.", "systemd-socket"),
        (["sytemd"], "There is no export 'sytemd'.", "Did you mean systemd?"),
        (["unit"], "There is no export 'unit'.", "Did you mean systemd?"),
        (["gunicorn"], "There is no export 'gunicorn'.", "plan --gunicorn-conf"),
        (["xyz"], "There is no export 'xyz'.", "There are systemd,"),
    ],
)
def test_a_wrong_kind_names_the_right_one(words: list[str], message: str, fix: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_kinds(words)
    assert caught.value.message == message
    assert fix in caught.value.hint


def test_no_file_is_replaced_unasked_and_none_is_written_then(tmp_path: Path) -> None:
    files = [File("a", "new\n"), File("b", "new\n")]
    (tmp_path / "b").write_text("edited\n")
    with pytest.raises(ProdserveError, match="b exists, and differs") as caught:
        list(write(files, tmp_path, force=False))
    assert "--force" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert list(write(files, tmp_path, force=True)) == [f"{tmp_path}/a written", f"{tmp_path}/b written"]
    assert (tmp_path / "b").read_text() == "new\n"
    assert next(write(files, tmp_path, force=False)) == f"{tmp_path}/a is up to date"
    (tmp_path / "a").write_bytes(b"\xff")  # no text
    assert next(write(files, tmp_path, force=True)) == f"{tmp_path}/a written"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a").mkdir()
    with pytest.raises(ProdserveError, match="cannot be written"):
        list(write([File("a", "x\n")], tmp_path / "file", force=False))
    with pytest.raises(ProdserveError, match="cannot be written"):
        list(write([File("a", "x\n")], tmp_path, force=True))


# --check


def faults(kind: str, text: str, **given: Any) -> list[str]:
    """Return what contradicts a plan with these options."""
    return [problem.message for problem in contradictions(kind, text, facts(kind, **given))]


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_export_writes_contradicts_nothing(kind: str, name: str) -> None:
    for file, text in exported(kind, **stated(kind, name)).items():
        if file != ".dockerignore":
            assert faults(kind, text, **{**stated(kind, name), **options_in(text)}) == []
            assert reading.kind_of(text) in (kind, kind.removesuffix("-socket"))


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"systemd-socket"}))
def test_the_command_of_a_file_is_read_again(kind: str) -> None:
    given = {"timeout": 21, "log_redact": "token,password", "workers": "2n+1"}
    text = next(iter(exported(kind, **given).values()))
    assert {"--timeout=21", "--log-redact=token,password", "--workers=2n+1"} <= {*reading.command(text)}


@pytest.mark.parametrize(
    ("kind", "old", "new", "given", "message"),
    [
        ("systemd", "TimeoutStopSec=30", "TimeoutStopSec=20s", {}, "TimeoutStopSec 20s ends before"),
        ("systemd", "TimeoutStopSec=95", "", {"graceful_timeout": 90}, "by default 90 s, ends before"),
        ("systemd", "Type=notify", "Type=notify-reload", {}, "Type is not notify"),
        ("systemd", "ExecReload=", "#ExecReload=", {}, "no ExecReload"),
        ("systemd", "TimeoutStartSec=900", "TimeoutStartSec=2min", {"migrate": True}, "is too short"),
        ("systemd-socket", "SocketMode=0660", "SocketMode=0666", {"bind": "unix:/run/a/s"}, "Every account"),
        ("supervisor", "stopwaitsecs=30", "", {}, "by default 10 s, ends before"),
        ("supervisor", "stopsignal=TERM", "stopsignal=QUIT", {}, "not TERM"),
        ("compose", "stop_grace_period: 30s", "stop_grace_period: 10s", {}, "ends before the server"),
        ("compose", "- tmp:/tmp", "- data:/data\n    tmpfs:\n      - /tmp", {}, "/tmp is memory"),
        ("compose", '"127.0.0.1:8000:8000"', '"8000:80"', {}, "Port 80 is not the server's"),
        ("kubernetes", "Seconds: 32", "Seconds: 20", {}, "terminationGracePeriodSeconds 20 ends"),
        ("kubernetes", "strategy:", "replicas: 3\n  strategy:", {}, "Each apply resets"),
        ("kubernetes", "emptyDir: {", "emptyDir: {medium: Memory, ", {}, "/tmp is memory"),
        (
            "kubernetes",
            "limits: {cpu: 1000m, memory: 512Mi}",
            "limits: {memory: 1Gi}",
            {},
            "is not its limit",
        ),
        ("kubernetes", "limits: {cpu: 1000m, memory: 512Mi}", "limits: {memory: 1Gi}", {}, "limit of CPU"),
        ("kubernetes", "failureThreshold: 24", "failureThreshold: 3", {}, "startup probe ends too early"),
        ("kubernetes", "minAvailable: 1", "minAvailable: 2", {}, "no node can be drained"),
        (
            "kubernetes",
            "path: /livez, port: http}\n            periodSeconds: 10\n            timeoutSeconds: 5",
            "path: /livez, port: http}\n            periodSeconds: 10",
            {},
            "A liveness probe of 1 s",
        ),
        ("kubernetes", "mountPath: /tmp", "mountPath: /data", {}, "/tmp is read-only"),
        ("kubernetes", "path: /livez", "path: /login/", {}, "The probe asks /login/"),
        ("kubernetes", "containerPort: 8000", "containerPort: 80", {}, "Port 80 is not"),
        (
            "kubernetes",
            "ports:\n            - {name: http, c",
            "lifecycle: {preStop: {exec: {command: "
            "[sleep, '15']}}}\n          ports:\n            - {name: http, c",
            {},
            "+ preStop 15 s",
        ),
        ("fly", 'kill_timeout = "17s"', "", {"graceful_timeout": 12}, "by default 5 s, ends"),
        ("render", "Seconds: 30", "Seconds: 20", {}, "maxShutdownDelaySeconds 20 ends"),
        ("kamal", "response_timeout: 130", "", {}, "response_timeout, by default 30 s, gives up"),
        ("cloudrun", "timeoutSeconds: 130", "timeoutSeconds: 60", {}, "timeoutSeconds 60 gives up"),
        ("nginx", "proxy_read_timeout 130s;", "", {}, "by default 60 s, gives up"),
        ("nginx", "keepalive_timeout 60s;", "keepalive_timeout 75s;", {}, "is too long for the server's"),
        ("nginx", "client_max_body_size 0;", "", {}, "client_max_body_size 1m is not the server's"),
        (
            "nginx",
            "client_max_body_size 10485760;",
            "client_max_body_size 4G;",
            {"max_body": "10m"},
            "4G is not",
        ),
        ("nginx", "proxy_http_version 1.1;", "", {}, "HTTP/1.0"),
        ("nginx", "proxy_buffering off;", "", {}, "proxy_buffering is on"),
        ("nginx", 'proxy_set_header Forwarded "";', "", {}, "Forwarded of a client"),
        ("nginx", "server 127.0.0.1:8000;", "server 127.0.0.1:8001;", {}, "sends requests to 127.0.0.1:8001"),
        ("caddy", "keepalive 60s", "", {}, "by default 120 s, is too long"),
        ("caddy", "max_size 10485760", "max_size 1m", {"max_body": "10m"}, "max_size 1m is not"),
        ("caddy", "response_header_timeout 130s", "response_header_timeout 1m", {}, "gives up before"),
        ("haproxy", "timeout server 130s", "timeout server 50000ms", {}, "timeout server 50000ms gives up"),
        ("haproxy", "timeout server 130s", "", {}, "There is no timeout server"),
        ("haproxy", "option http-no-delay", "", {}, "210 ms"),
        ("haproxy", "retry-on conn-failure", "retry-on all-retryable-errors", {}, "a POST twice"),
        ("haproxy", "fall 2", "fall 9", {"drain_delay": 4}, "notices a drain after"),
        (
            "haproxy",
            "rise 1",
            "rise 1 on-marked-down shutdown-sessions",
            {"drain_delay": 4},
            "shutdown-sessions",
        ),
        ("haproxy", "tcp-ut 4s", "", {}, "until the timeout"),
        ("haproxy", "pool-purge-delay 3750ms", "", {}, "by default 5 s, is too long for the server's"),
        ("dockerfile", 'CMD ["prodserve", "--max-body=100m"]', "CMD prodserve", {}, "A shell gets"),
        ("dockerfile", "USER 10001:10001", "USER app", {}, "The account is root's, or a name"),
        ("dockerfile", "EXPOSE 8000", "EXPOSE 80\nENV SECRET_KEY=x", {}, "EXPOSE 80"),
        ("dockerfile", "EXPOSE 8000", "EXPOSE 80\nENV SECRET_KEY=x", {}, "stays in the image"),
    ],
)
def test_a_planted_contradiction_is_found(
    kind: str, old: str, new: str, given: dict[str, Any], message: str
) -> None:
    text = "\n".join(exported(kind, **given).values())
    assert old in text
    assert message in "\n".join(faults(kind, text.replace(old, new, 1), **given))


def test_a_container_without_a_maximum_of_a_body_is_found() -> None:
    text = exported("kubernetes")["kubernetes.yaml"]
    assert "no --max-body" in faults("kubernetes", text)[0]
    assert faults("kubernetes", text, max_body="100m") == []
