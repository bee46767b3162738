"""What people type wrongly: one clear line, exit not 0, nothing started."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.errors import CODES

from .serving import SITE, complaints, copy_site, run

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

COMMANDS = {
    "manage.py": ("manage.py", "prodserve"),
    "-m": ("-m", "django_prodserve"),
    "script": (str(Path(sys.executable).parent / "prodserve"),),
}


def block(**options: Any) -> dict[str, str]:
    return {"SITE": json.dumps({"PRODSERVE": options})}


def passed(**settings: Any) -> dict[str, str]:
    return block(GUNICORN=settings)


# What is typed and set; then the code, the exit code, words of the message, words of the fix.
Wrong = tuple[list[str], dict[str, str], str, int, str, str]
WRONG: list[Wrong] = [
    (
        ["--workers", "two"],
        {},
        "bad-value",
        2,
        "--workers is 'two', but must be a whole number from 1",
        "--workers 2",
    ),
    (["--workers", "0"], {}, "bad-value", 2, "--workers is '0'", "--workers 2"),
    (["--workers", "-1"], {}, "bad-value", 2, "--workers is '-1'", "--workers 2"),
    (["--workers", ""], {}, "bad-value", 2, "--workers is set but empty.", "Give it a value"),
    (["--workers", "1.5"], {}, "bad-value", 2, "--workers is '1.5'", "--workers 2"),
    (["--workers"], {}, "usage", 2, "--workers needs a value.", "--workers 2"),
    (["--worker", "2"], {}, "unknown-option", 2, "Unknown option --worker.", "Did you mean --workers?"),
    (["--thread=2"], {}, "unknown-option", 2, "Unknown option --thread.", "Did you mean --threads?"),
    (["--capture-output"], {}, "unknown-option", 2, "Unknown option --capture-output.", '"capture_output"'),
    (
        ["--access-logfile", "-"],
        {},
        "unknown-option",
        2,
        "Unknown option --access-logfile.",
        "called --access-log.",
    ),
    (["--threads", "many"], {}, "bad-value", 2, "--threads is 'many'", "--threads 16"),
    (
        ["--profile", "fast"],
        {},
        "bad-value",
        2,
        "--profile is 'fast', but must be io or cpu.",
        "--profile io",
    ),
    (["--cpus", "0"], {}, "bad-value", 2, "--cpus is '0'", "--cpus 1.5"),
    (["--memory", "lots"], {}, "bad-value", 2, "--memory is 'lots', but must be an amount", "--memory 512m"),
    (["--timeout", "soon"], {}, "bad-value", 2, "--timeout is 'soon', but must be a time", "--timeout 30s"),
    (["--umask", "9"], {}, "bad-value", 2, "--umask is '9'", "--umask 007"),
    (["--warmup", "about"], {}, "bad-value", 2, "--warmup is 'about'", "--warmup /about/"),
    (["--log-level", "loud"], {}, "bad-value", 2, "--log-level is 'loud', but must be debug, info", "debug"),
    (
        ["--bind", "localhost"],
        {},
        "bad-address",
        2,
        "--bind: 'localhost' lacks a port.",
        "Write localhost:8000",
    ),
    (["--bind", "1.2.3.4"], {}, "bad-address", 2, "--bind: '1.2.3.4' lacks a port.", "Write 1.2.3.4:8000"),
    (["--bind", "127.0.0.1:99999"], {}, "bad-address", 2, "Port 99999", "Write 127.0.0.1:8000"),
    (["--bind", "127.0.0.1:http"], {}, "bad-address", 2, "Port 'http' of '127.0.0.1:http'", "127.0.0.1:8000"),
    (["--bind", "fd://987"], {}, "bad-address", 2, "descriptor 987 is not an open socket", "pass it on"),
    (
        ["--bind", "203.0.113.7:80"],
        {},
        "bad-address",
        2,
        "not an address of this machine",
        "--bind 0.0.0.0:80",
    ),
    (["--bind", "no-such.invalid:80"], {}, "address-unknown", 2, "cannot be resolved", "ALLOWED_HOSTS"),
    (
        ["--bind", "unix:/nowhere/x.sock"],
        {},
        "bad-address",
        2,
        "unix:/nowhere/x.sock cannot be made",
        "must exist",
    ),
    (["--bind", "unix:" + "/x" * 70], {}, "bad-address", 2, "the kernel allows 107", "shorter path"),
    (["--worker-class", "a.UvicornWorker"], {}, "bad-value", 2, "is not supported", "Remove the option:"),
    (["--worker-class", "eventlet"], {}, "bad-value", 2, "before Django is imported", "--threads 64"),
    (["--worker-class", "sync", "--threads", "4"], {}, "conflict", 2, "which has none", "Remove one"),
    (["--trusted-proxies", "10.0.0.5/8"], {}, "bad-value", 2, "an address inside a network", "10.0.0.0/8"),
    (["--trusted-proxies", "everyone"], {}, "bad-value", 2, "'everyone' is neither an address", "192.0.2.7"),
    (["--trusted-hops", "0"], {}, "bad-value", 2, "from 1 to 16", "--trusted-hops 2"),
    (
        ["--certfile", "/nowhere.pem"],
        {},
        "certificate",
        2,
        "--certfile /nowhere.pem cannot be read",
        "--certfile PATH",
    ),
    (["--keyfile", "manage.py"], {}, "conflict", 2, "--keyfile names a key without", "Add --certfile"),
    (["--config", "nowhere.py"], {}, "config-file", 2, "there is no such file", "Name a file"),
    (["--env-file", "nowhere.env"], {}, "env-file", 2, "cannot be read: No such file", "may read"),
    (["--chdir", "nowhere"], {}, "directory", 2, "--chdir nowhere: it does not exist", "Name a directory"),
    (
        ["--access-log", "/nowhere/x.log"],
        {},
        "file",
        2,
        "the directory /nowhere does not exist",
        "mkdir -p /nowhere",
    ),
    (["--management-bind", "8000"], {}, "conflict", 2, "the address of the site itself", "9001"),
    (["--local", "--bind", "0.0.0.0:1"], {}, "local-only", 2, "serves this machine only", "Remove one"),
    (["--readiness-checks", "no.such"], {}, "E008", 2, "there is no module no", "Correct --readiness-checks"),
    (
        ["--json"],
        {},
        "usage",
        2,
        "--json works with plan, check, status and tune, not with serve.",
        "prodserve plan --json",
    ),
    (["serv"], {}, "unknown-action", 2, "There is no action 'serv'.", "Did you mean serve?"),
    (["frobnicate"], {}, "unknown-action", 2, "There is no action 'frobnicate'.", "The actions are serve, "),
    (["restart"], {}, "unknown-action", 2, "There is no action 'restart'.", "prodserve reload"),
    (["logs"], {}, "unknown-action", 2, "There is no action 'logs'.", "journalctl"),
    (["start"], {}, "unknown-action", 2, "There is no action 'start'.", "prodserve serves"),
    ([], {"WEB_CONCURRENCY": ""}, "bad-value", 2, "WEB_CONCURRENCY is set but empty.", "unset it"),
    ([], {"WEB_CONCURRENCY": "many"}, "bad-value", 2, "WEB_CONCURRENCY is 'many'", "WEB_CONCURRENCY=2"),
    ([], {"PORT": "http"}, "bad-value", 2, "PORT is 'http', but must be a number.", "from 0 to 65535"),
    ([], {"PORT": "99999"}, "bad-value", 2, "PORT 99999 is out of range (0-65535).", "from 0 to 65535"),
    ([], {"FORWARDED_ALLOW_IPS": "me"}, "bad-value", 2, "FORWARDED_ALLOW_IPS: 'me'", "192.0.2.7"),
    (
        [],
        {"GUNICORN_CMD_ARGS": "--threads x"},
        "gunicorn-setting",
        2,
        "GUNICORN_CMD_ARGS is '--threads x'",
        "Correct it, or unset it.",
    ),
    ([], {"PRODSERVE_WORKRES": "3"}, "unknown-variable", 2, "Unknown variable", "PRODSERVE_WORKERS?"),
    ([], block(WORKRES=3), "unknown-key", 2, "PRODSERVE has no option 'WORKRES'.", "Did you mean WORKERS?"),
    (
        [],
        block(MEMORY="lots"),
        "bad-value",
        2,
        "PRODSERVE['MEMORY'] is 'lots'",
        'PRODSERVE["MEMORY"] = "512m"',
    ),
    ([], block(PREPARE=["migrations"]), "bad-value", 2, "no step 'migrations'", "wait-for-db, migrate"),
    ([], passed(reload=True), "gunicorn-setting", 2, "serve old code", "Use --reload"),
    ([], passed(daemon=True), "gunicorn-setting", 2, "must see the server", "Leave it in the foreground"),
    ([], passed(worker_tmp_dir="/nowhere"), "file", 2, "/nowhere", "/dev/shm"),
    ([], passed(pidfile="/nowhere/p.pid"), "file", 2, "/nowhere", "may write"),
    ([], passed(logconfig="/nowhere"), "file", 2, "/nowhere cannot be read", "Name a file"),
    ([], passed(logger_class="no.Such"), "gunicorn-setting", 2, "'no.Such', which cannot", "Name a class"),
    ([], passed(raw_env=["A"]), "gunicorn-setting", 2, "holds 'A'", "NAME=VALUE"),
    ([], passed(http_protocols="h2"), "gunicorn-setting", 2, "h2 is not installed", "pip install h2"),
]

# What is wrong is said by the same code in all commands: a few are tried with each.
TYPED = [("-m", *wrong) for wrong in WRONG] + [("manage.py", *wrong) for wrong in WRONG[::20]]
AS_JSON = {"PRODSERVE_LOG_FORMAT": "json"}


@pytest.mark.parametrize(
    ("command", "arguments", "extra", "code", "exit_code", "message", "fix"),
    TYPED,
    ids=[f"{row[0]} {' '.join(row[1]) or row[2]}" for row in TYPED],
)
def test_what_is_wrong_is_said_with_its_fix_and_its_codes(
    env: Any,
    command: str,
    arguments: list[str],
    extra: dict[str, str],
    code: str,
    exit_code: int,
    message: str,
    fix: str,
) -> None:
    ended = run(*COMMANDS[command], *arguments, env=env(AS_JSON | extra))
    (told,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (told["code"], ended.returncode) == (code, exit_code), told
    assert message in told["message"]
    assert fix in told.get("fix", ""), told
    assert bool(fix) == ("fix" in told) or exit_code == 1, told
    assert (told["level"], told["logger"]) == ("error", "prodserve")
    assert code in CODES or code == "E008"
    assert "ready" not in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_people_read_one_form_from_every_command(env: Any, command: str) -> None:
    ended = run(*COMMANDS[command], "--workers", "two", "--bind", "localhost", env=env())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "prodserve: error: --bind: 'localhost' lacks a port.",
        "  Fix:  Write localhost:8000",
        "  More: prodserve help bind",
        "prodserve: error: --workers is 'two', but must be a whole number from 1, auto, or a formula in n "
        "(CPUs) such as 2n+1.",
        "  Fix:  For example: --workers 2",
        "  More: prodserve help workers",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_other_actions_complain_of_is_text_off_a_terminal_too(env: Any, command: str) -> None:
    ended = run(*COMMANDS[command], "plan", "check", env=env(AS_JSON))
    assert ended.returncode == 2
    assert complaints(ended) == [
        "prodserve: error: Only one action at a time: got plan and check.",
        "  Fix:  For example: prodserve plan",
    ]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("typed", "bound"),
    [
        ("8001", "127.0.0.1:8001"),
        ("0.0.0.0:8001", "0.0.0.0:8001"),
        (":8001", "0.0.0.0:8001"),
        ("0:8001", "0.0.0.0:8001"),
    ],
)
def test_an_address_is_one_as_with_runserver(env: Any, command: str, typed: str, bound: str) -> None:
    planned = run(*COMMANDS[command], "plan", typed, "--json", env=env())
    assert planned.returncode == 0, planned.stderr
    found = json.loads(planned.stdout)["decisions"]["bind"]["value"]
    assert found in ([bound], [bound.replace("127.0.0.1", "0.0.0.0")])  # in a container


@pytest.mark.parametrize("old", [*RENAMED, "no-keeper", "no-collect"])
def test_an_old_flag_is_told_with_the_name_of_today(env: Any, old: str) -> None:
    new = "no-" * old.startswith("no-") + RENAMED[old.removeprefix("no-")]
    ended = run(*COMMANDS["-m"], f"--{old}", env=env())
    assert ended.returncode == 2
    assert complaints(ended) == [
        f"prodserve: error: Unknown option --{old}.",
        f"  Fix:  It is called --{new} now.",
    ]


def test_old_variables_and_keys_are_told_with_the_names_of_today(env: Any) -> None:
    names = {old.upper().replace("-", "_"): new.upper().replace("-", "_") for old, new in RENAMED.items()}
    site = {"SITE": json.dumps({"PRODSERVE": dict.fromkeys(names, "off")})}
    variables = {f"PRODSERVE_{old}": "off" for old in names}
    ended = run(*COMMANDS["-m"], env=env({**site, **variables}))
    assert ended.returncode == 2
    lines = complaints(ended)
    told = {(lines[number], lines[number + 1]) for number in range(0, len(lines), 2)}
    assert told == {
        *(
            (
                f"prodserve: error: Unknown variable PRODSERVE_{old}.",
                f"  Fix:  It is called PRODSERVE_{new} now.",
            )
            for old, new in names.items()
        ),
        *(
            (f"prodserve: error: PRODSERVE has no option '{old}'.", f"  Fix:  It is called {new} now.")
            for old, new in names.items()
        ),
    }


def test_all_that_is_wrong_is_told_at_once(env: Any) -> None:
    ended = run(*COMMANDS["-m"], "--workers", "two", "--memory", "lots", env=env({"PORT": "x"}))
    assert ended.stderr.count("prodserve: error: ") == 3


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
    assert re.search(r"^  workers +3 ", ended.stdout, re.MULTILINE)
    if "--bind" in arguments:
        assert "127.0.0.1:1, 127.0.0.1:2" in ended.stdout


def test_a_plan_for_another_machine_as_text_and_as_json(env: Any) -> None:
    flags = ["--cpus", "0.5", "--memory", "512m"]
    text = run(*COMMANDS["manage.py"], "plan", *flags, env=env()).stdout
    made = json.loads(run(*COMMANDS["manage.py"], "plan", "--json", *flags, env=env()).stdout)
    assert made["decisions"]["cpus"] == {"value": 0.5, "why": "set explicitly", "source": "--cpus"}
    assert made["decisions"]["memory"]["value"] == 512 * 2**20
    assert made["gunicorn"]["workers"] == 2
    for name in made["decisions"]:
        assert len(re.findall(rf"^  {name.replace('_', '-')} +\S", text, re.MULTILINE)) == 1
    assert text.splitlines()[2:5] == [
        "Set explicitly",
        "  cpus        0.5 CPUs  set by --cpus",
        "  memory      512 MiB   set by --memory",
    ]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_plan_does_not_bind(env: Any) -> None:
    ended = run(*COMMANDS["manage.py"], "plan", "--bind", "203.0.113.7:1", env=env())
    assert ended.returncode == 0


def test_check_loads_warms_up_and_says_ready(env: Any) -> None:
    ended = run(*COMMANDS["manage.py"], "check", "--bind", "127.0.0.1:0", env=env())
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"(no|\d+) warnings?, ready to serve", ended.stdout.splitlines()[-1])


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
        "    assert '\\n  workers             3 ' in out.getvalue(), out.getvalue()\n"
    )
    ended = run("-c", code, env=env({"DJANGO_SETTINGS_MODULE": "shop.settings"}))
    assert ended.returncode == 0, ended.stderr


def test_help_and_version_need_no_project(env: Any, tmp_path: Path) -> None:
    assert "--profile" in run(*COMMANDS["-m"], "--help", env=env(), cwd=tmp_path).stdout
    told = run(*COMMANDS["-m"], "--version", env=env(), cwd=tmp_path).stdout
    for name in ("prodserve", "Django", "Gunicorn", "Python"):
        assert re.search(rf"\b{name} \d+\.\d+", told), told
    assert "worker class prodserve" in " ".join(told.split())
    ended = run(*COMMANDS["-m"], "plan", env=env(), cwd=tmp_path)
    assert ended.returncode == 2
    assert complaints(ended) == [
        f"prodserve: error: No manage.py in {tmp_path}.",
        "  Fix:  Go to the project's directory (cd), or name the settings: --settings mysite.settings",
    ]


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
    assert len(complaints(ended)) <= 3, ended.stderr
    for word in words:
        assert word in ended.stderr


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
    assert len(complaints(ended)) <= 3, ended.stderr
    for word in words:
        assert word in ended.stderr


def test_a_missing_secret_key_is_one_message(env: Any) -> None:
    ended = run(*COMMANDS["-m"], env=env(SECRET_KEY=""))
    assert ended.returncode == 1
    assert "SECRET_KEY" in ended.stderr
    assert "only for tests" not in ended.stderr  # the key of the settings file goes to no log
    assert len(complaints(ended)) <= 3, ended.stderr


def test_the_reference_site_is_sound(env: Any) -> None:
    assert run("manage.py", "check", env=env(), cwd=SITE).returncode == 0
