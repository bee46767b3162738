"""What people type wrongly: one clear line, exit not 0, nothing started."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .serving import SITE, copy_site, run

# What each option was called before the first release.
RENAMED = {
    "keeper": "supervisor",
    "manage": "management-bind",
    "ready": "readiness-checks",
    "health": "health-paths",
    "slow": "slow-request",
    "log-slow": "access-log-min-duration",
    "log-sample": "access-log-sample",
    "collect": "private-static",
}

COMMANDS = {"manage.py": ("manage.py", "prodserve"), "-m": ("-m", "django_prodserve")}

WRONG: list[tuple[list[str], dict[str, str], str]] = [
    (["--workers", "two"], {}, "--workers is 'two', but must be a whole number from 1"),
    (["--workers", "0"], {}, "--workers is '0'"),
    (["--workers", "-1"], {}, "--workers"),
    (["--workers", ""], {}, "--workers is set but empty"),
    (["--workers", "1.5"], {}, "--workers is '1.5'"),
    (["--workers"], {}, "expected one argument"),
    (["--worker", "2"], {}, "unknown option --worker. Did you mean --workers?"),
    (["--thread=2"], {}, "unknown option --thread. Did you mean --threads?"),
    (["--threads", "many"], {}, "--threads is 'many'"),
    (["--profile", "fast"], {}, "--profile is 'fast', but must be io or cpu."),
    (["--cpus", "0"], {}, "--cpus is '0'"),
    (["--memory", "lots"], {}, "--memory is 'lots', but must be an amount of memory"),
    (["--timeout", "soon"], {}, "--timeout is 'soon', but must be a time"),
    (["--umask", "9"], {}, "--umask is '9'"),
    (["--warmup", "about"], {}, "--warmup is 'about'"),
    (["--log-level", "loud"], {}, "--log-level is 'loud', but must be debug, info"),
    (["--bind", "nowhere"], {}, "'nowhere' is no address"),
    (["--bind", "1.2.3.4"], {}, "write 1.2.3.4:8000"),
    (["--bind", "127.0.0.1:99999"], {}, "between 0 and 65535"),
    (["--bind", "fd://987"], {}, "descriptor 987 is no open socket"),
    (["--bind", "203.0.113.7:8000"], {}, "is no address of this machine"),
    (["--bind", "no-such-host.invalid:8000"], {}, "is not known"),
    (["--bind", "unix:/nowhere/at/all.sock"], {}, "must exist and be writable"),
    (["--bind", "unix:" + "/x" * 70], {}, "the kernel allows 107"),
    (["--worker-class", "gunicorn.workers.UvicornWorker"], {}, "serves ASGI"),
    (["--worker-class", "eventlet"], {}, "is not supported"),
    (["--worker-class", "sync", "--threads", "4"], {}, "leave one of them out"),
    (["--trusted-proxies", "10.0.0.5/8"], {}, "10.0.0.0/8"),
    (["--trusted-proxies", "everyone"], {}, "everyone"),
    (["--trusted-hops", "0"], {}, "--trusted-hops is '0'"),
    (["--certfile", "/nowhere.pem"], {}, "/nowhere.pem"),
    (["--keyfile", "manage.py"], {}, "--certfile"),
    (["--config", "nowhere.py"], {}, "there is no such file"),
    (["--access-log", "/nowhere/x.log"], {}, "'/nowhere/x.log' isn't writable"),
    (["--json"], {}, "goes with plan"),
    (["serv"], {}, "Did you mean serve?"),
    (["frobnicate"], {}, "There is no action 'frobnicate'"),
    (["export", "systemd"], {}, "One action at a time"),
    (["0.0.0.0:8080"], {}, "write --bind 0.0.0.0:8080"),
    (["8080"], {}, "write --bind 8080"),
    ([], {"WEB_CONCURRENCY": ""}, "WEB_CONCURRENCY is set but empty"),
    ([], {"WEB_CONCURRENCY": "many"}, "WEB_CONCURRENCY is 'many'"),
    ([], {"PORT": "http"}, "PORT"),
    ([], {"FORWARDED_ALLOW_IPS": "me"}, "FORWARDED_ALLOW_IPS"),
    ([], {"GUNICORN_CMD_ARGS": "--threads x"}, "GUNICORN_CMD_ARGS is '--threads x'"),
    ([], {"PRODSERVE_WORKRES": "3"}, "Did you mean PRODSERVE_WORKERS?"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"WORKRES": 3}})}, "Did you mean WORKERS?"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"reload": True}}})}, "serve old code"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"worker_tmp_dir": "/nowhere"}}})}, "/nowhere"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"pidfile": "/nowhere/p.pid"}}})}, "/nowhere"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"logconfig": "/nowhere"}}})}, "/nowhere"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"logger_class": "no.Such"}}})}, "no.Such"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"raw_env": ["A"]}}})}, "'A' invalid"),
    ([], {"SITE": json.dumps({"PRODSERVE": {"GUNICORN": {"http_protocols": "h2"}}})}, "h2"),
]


# What is wrong is said by the same code in both commands: a few are tried with each.
TYPED = [("manage.py", *wrong) for wrong in WRONG] + [("-m", *wrong) for wrong in WRONG[::6]]


@pytest.mark.parametrize(
    ("command", "arguments", "extra", "words"),
    TYPED,
    ids=[f"{command} {' '.join(arguments) or extra}" for command, arguments, extra, _ in TYPED],
)
def test_one_clear_line_and_an_exit_code(
    env: Any, arguments: list[str], extra: dict[str, str], words: str, command: str
) -> None:
    ended = run(*COMMANDS[command], *arguments, env=env(extra))
    assert ended.returncode in {1, 2}
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert 1 <= len(ended.stderr.splitlines()) <= 2, ended.stderr
    assert " ready in " not in ended.stdout


@pytest.mark.parametrize("old", [*RENAMED, "no-keeper", "no-collect"])
def test_an_old_flag_is_told_with_the_name_of_today(env: Any, old: str) -> None:
    new = "no-" * old.startswith("no-") + RENAMED[old.removeprefix("no-")]
    ended = run(*COMMANDS["-m"], f"--{old}", env=env())
    assert ended.returncode in {1, 2}
    (line,) = ended.stderr.splitlines()
    assert line.partition(": ")[2] == f"unknown option --{old}: it is called --{new} now."
    assert " ready in " not in ended.stdout


def test_old_variables_and_keys_are_told_with_the_names_of_today(env: Any) -> None:
    names = {old.upper().replace("-", "_"): new.upper().replace("-", "_") for old, new in RENAMED.items()}
    site = {"SITE": json.dumps({"PRODSERVE": dict.fromkeys(names, "off")})}
    variables = {f"PRODSERVE_{old}": "off" for old in names}
    ended = run(*COMMANDS["-m"], env=env({**site, **variables}))
    assert ended.returncode in {1, 2}
    told = set(ended.stderr.removeprefix("CommandError: ").splitlines())
    assert told == {
        *(
            f"Unknown variable PRODSERVE_{old}: it is called PRODSERVE_{new} now."
            for old, new in names.items()
        ),
        *(f"PRODSERVE has no option '{old}': it is called {new} now." for old, new in names.items()),
    }
    assert " ready in " not in ended.stdout


def test_all_that_is_wrong_is_told_at_once(env: Any) -> None:
    ended = run(*COMMANDS["-m"], "--workers", "two", "--memory", "lots", env=env({"PORT": "x"}))
    assert len(ended.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--cpus", "3", "--settings", "shop.settings"],
        ["--cpus", "3", "--settings", "shop.settings", "plan"],
        ["--cpus", "3", "plan", "-v", "2"],
        ["-v", "2", "--cpus=3", "--bind", "127.0.0.1:1", "plan", "--bind", "127.0.0.1:2"],
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_options_stand_on_both_sides_of_the_action(env: Any, arguments: list[str], command: str) -> None:
    ended = run(*COMMANDS[command], *arguments, env=env())
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^workers +3 ", ended.stdout, re.MULTILINE)
    if "--bind" in arguments:
        assert "127.0.0.1:1, 127.0.0.1:2" in ended.stdout


def test_a_plan_for_another_machine_as_text_and_as_json(env: Any) -> None:
    flags = ["--cpus", "0.5", "--memory", "512m"]
    text = run(*COMMANDS["manage.py"], "plan", *flags, env=env()).stdout
    made = json.loads(run(*COMMANDS["manage.py"], "plan", "--json", *flags, env=env()).stdout)
    assert made["decisions"]["cpus"] == {"value": 0.5, "why": "as stated", "source": "--cpus"}
    assert made["decisions"]["memory"]["value"] == 512 * 2**20
    assert made["gunicorn"]["workers"] == 2
    for name, decision in made["decisions"].items():
        assert re.search(
            rf"^{name.replace('_', '-')} .*\[{re.escape(decision['source'])}\]$", text, re.MULTILINE
        )


def test_the_plan_does_not_bind(env: Any) -> None:
    ended = run(*COMMANDS["manage.py"], "plan", "--bind", "203.0.113.7:1", env=env())
    assert ended.returncode == 0


def test_check_loads_warms_up_and_says_ready(env: Any) -> None:
    ended = run(*COMMANDS["manage.py"], "check", "--bind", "127.0.0.1:0", env=env())
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "ready to serve"


def test_check_fails_on_djangos_ordinary_errors(env: Any) -> None:
    ended = run(*COMMANDS["manage.py"], "check", env=env(ROOT_URLCONF="shop.nowhere"))
    assert ended.returncode == 1


def test_call_command(env: Any) -> None:
    code = (
        "import django, io; django.setup()\n"
        "from django.core.management import call_command\n"
        "for words, given in ((['plan'], {}), ([], {'action': 'plan'})):\n"
        "    out = io.StringIO()\n"
        "    call_command('prodserve', *words, cpus='3', stdout=out, **given)\n"
        "    assert '\\nworkers                   3 ' in out.getvalue(), out.getvalue()\n"
    )
    ended = run("-c", code, env=env({"DJANGO_SETTINGS_MODULE": "shop.settings"}))
    assert ended.returncode == 0, ended.stderr


def test_help_and_version_need_no_project(env: Any, tmp_path: Path) -> None:
    assert "--profile" in run(*COMMANDS["-m"], "--help", env=env(), cwd=tmp_path).stdout
    assert re.match(r"\d+\.\d+", run(*COMMANDS["-m"], "--version", env=env(), cwd=tmp_path).stdout)
    ended = run(*COMMANDS["-m"], "plan", env=env(), cwd=tmp_path)
    assert ended.returncode == 1
    assert "No settings module" in ended.stderr


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "shop/settings.py",
            "import nonexistent_module\n",
            ["No module named 'nonexistent_module'", "settings.py, line 1"],
        ),
        ("shop/settings.py", "x = (\n", ["SyntaxError", "settings.py, line 1"]),
        ("shop/settings.py", "INSTALLED_APPS = ['no_such_app']\nSECRET_KEY = 'x'\n", ["no_such_app"]),
        ("shop/settings.py", "raise SystemExit('settings gave up')\n", ["settings gave up"]),
        ("shop/apps.py", "raise RuntimeError('the app broke')\n", ["the app broke", "apps.py, line 1"]),
        ("shop/urls.py", "from . import missing\n", ["missing", "urls.py, line 1"]),
        ("shop/urls.py", "urlpatterns = [\n", ["SyntaxError", "urls.py, line 1"]),
        ("shop/wsgi.py", "raise RuntimeError('wsgi broke')\n", ["wsgi broke", "wsgi.py, line 1"]),
    ],
)
def test_a_broken_project_is_one_message(
    env: Any, tmp_path: Path, file: str, text: str, words: list[str]
) -> None:
    site = copy_site(tmp_path)
    (site / file).write_text(text)
    settings = site / "shop" / "settings.py"
    if file == "shop/apps.py":
        settings.write_text(
            settings.read_text().replace('"django_prodserve",', '"django_prodserve", "shop.apps.X",')
        )
    ended = run(*COMMANDS["-m"], "--bind", "127.0.0.1:0", env=env(), cwd=site)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2, ended.stderr
    for each in words:
        assert each in ended.stderr


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("shop/urls.py", "from . import missing\n", ["missing", "urls.py, line 1"]),
        ("shop/views.py", "def index(request)\n", ["SyntaxError", "views.py, line 1: def index(request)"]),
        ("shop/views.py", "import json\nimport no_such\n", ["no_such", "views.py, line 2: import no_such"]),
        ("shop/wsgi.py", "raise RuntimeError('wsgi broke')\n", ["wsgi broke", "wsgi.py, line 1"]),
    ],
)
@pytest.mark.parametrize("action", ["serve", "check"])
def test_what_settings_do_not_load_is_one_message_under_manage_py_too(
    env: Any, tmp_path: Path, file: str, text: str, words: list[str], action: str
) -> None:
    site = copy_site(tmp_path)
    if file == "shop/views.py":
        urls = site / "shop" / "urls.py"
        urls.write_text(f"from . import views\n{urls.read_text()}")
    (site / file).write_text(text)
    ended = run(*COMMANDS["manage.py"], action, "--bind", "127.0.0.1:0", env=env(), cwd=site)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2, ended.stderr
    for each in words:
        assert each in ended.stderr


def test_a_missing_secret_key_is_one_message(env: Any) -> None:
    ended = run(*COMMANDS["-m"], env=env(SECRET_KEY=""))
    assert ended.returncode == 1
    assert "SECRET_KEY" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2, ended.stderr


def test_the_reference_site_is_sound(env: Any) -> None:
    assert run("manage.py", "check", env=env(), cwd=SITE).returncode == 0
