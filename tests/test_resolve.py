"""Precedence, sources, and complaints: all of them at once."""

from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.errors import CODES, ExitCode, ProdserveError, UsageError
from django_prodserve.machine.platforms import detect
from django_prodserve.plan.pipeline import collect_options


def options(flags: Any = None, environ: Any = None, block: Any = None) -> Any:
    environ = environ or {}
    return collect_options(flags or {}, environ, block or {}, detect(environ))


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("--graceful-timeout", {"flags": {"graceful_timeout": "1"}}),
    ("PRODSERVE_GRACEFUL_TIMEOUT", {"environ": {"PRODSERVE_GRACEFUL_TIMEOUT": "2"}}),
    ("PRODSERVE['GRACEFUL_TIMEOUT']", {"block": {"GRACEFUL_TIMEOUT": 3}}),
    ("PRODSERVE['GUNICORN']['graceful_timeout']", {"block": {"GUNICORN": {"graceful_timeout": 4}}}),
    ("GUNICORN_CMD_ARGS", {"environ": {"GUNICORN_CMD_ARGS": "--graceful-timeout 5"}}),
]


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_the_strongest_source_wins_and_is_named(strongest: int) -> None:
    given: dict[str, dict[str, Any]] = {"flags": {}, "environ": {}, "block": {}}
    for _, part in LAYERS[strongest:]:
        for kind, values in part.items():
            given[kind] |= values
    resolved = options(**given)
    assert resolved.source("graceful_timeout") == LAYERS[strongest][0]
    assert resolved.graceful_timeout == strongest + 1


def test_a_config_file_ranks_below_gunicorn_cmd_args(tmp_path: Any) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text("import os\ngraceful_timeout = 7\nthreads = 3\nnot_a_setting = 1\nraw_env = ['A=1']\n")
    resolved = options({"config": str(conf)}, {"GUNICORN_CMD_ARGS": "--graceful-timeout 5"})
    assert resolved.graceful_timeout == 5
    assert (str(resolved.threads), resolved.source("threads")) == ("3", f"{conf}: threads")
    assert resolved.gunicorn["raw_env"].value == ["A=1"]


def test_what_is_misspelt_in_a_config_file_is_named(tmp_path: Any) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    conf.write_text(
        "import os\nfrom os import path as config_path\n"
        "worker_clas = 'sync'\nKEEP_ALIVE = 5\nlog_level = 'debug'\n"
        "thread = 4\nthreads = thread\n_workers = 3\nport = 8000\nbase_directory = '/srv'\n"
        "def worker():\n    return 3\n"
    )
    notes = options({"config": str(conf)}).notes
    guesses = {"worker_clas": "worker_class", "KEEP_ALIVE": "keepalive", "log_level": "loglevel"}
    assert set(notes) == {
        f"{conf}: {typed} is not used: it names no Gunicorn setting. Did you mean {meant}?"
        for typed, meant in guesses.items()
    }


@pytest.mark.parametrize("way", ["environ", "block", "gunicorn", "args"])
def test_a_config_file_can_be_named_everywhere(tmp_path: Any, way: str) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("threads = 3\n")
    environ: dict[str, str] = {}
    block: dict[str, Any] = {}
    if way == "environ":
        environ["PRODSERVE_CONFIG"] = str(conf)
    elif way == "block":
        block["CONFIG"] = conf
    elif way == "gunicorn":
        block["GUNICORN"] = {"config": str(conf)}
    else:
        environ["GUNICORN_CMD_ARGS"] = f"--config {conf}"
    resolved = options(environ=environ, block=block)
    assert str(resolved.threads) == "3"
    assert resolved.config == str(conf)


@pytest.mark.parametrize(
    ("environ", "name", "value", "source"),
    [
        ({"PORT": "5000"}, "bind", ("0.0.0.0:5000",), "PORT"),
        ({"WEB_CONCURRENCY": "3"}, "workers", 3, "WEB_CONCURRENCY"),
        ({"WEB_CONCURRENCY": "auto"}, "workers", None, "WEB_CONCURRENCY"),
        ({"FORWARDED_ALLOW_IPS": "10.0.0.1"}, "trusted_proxies", ("10.0.0.1",), "FORWARDED_ALLOW_IPS"),
        ({"GUNICORN_CMD_ARGS": "--access-logfile -"}, "access_log", "-", "GUNICORN_CMD_ARGS"),
        ({"PRODSERVE_MILLICPUS": "250"}, "cpus", 0.25, "PRODSERVE_MILLICPUS"),
        ({"DYNO": "web.1"}, "trusted_proxies", ("*",), "Heroku"),
        (
            {"DYNO": "web.1", "FORWARDED_ALLOW_IPS": "127.0.0.1"},
            "trusted_proxies",
            ("127.0.0.1",),
            "FORWARDED_ALLOW_IPS",
        ),
        ({"DYNO": "web.1"}, "keep_alive", 100.0, "Heroku"),
        ({"K_SERVICE": "shop", "PORT": "8080"}, "keep_alive", 620.0, "Cloud Run"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "graceful_timeout", 22.0, "Kubernetes"),
        ({"PRODSERVE_SERVICE_HOST": "10.0.0.1", "PRODSERVE_PORT": "tcp://10.0.0.1:80"}, "bind", None, ""),
    ],
)
def test_what_platforms_say_is_honoured(environ: dict[str, str], name: str, value: Any, source: str) -> None:
    resolved = options(environ=environ)
    found = getattr(resolved, name)
    assert (found.workers(2) if name == "workers" and found else found) == value
    assert resolved.source(name) == source


def test_a_buildpacks_guess_ranks_below_computed_and_is_mentioned() -> None:
    resolved = options(environ={"WEB_CONCURRENCY": "5", "WEB_CONCURRENCY_SET_BY": "heroku/python"})
    assert resolved.workers is None
    assert any("WEB_CONCURRENCY=5" in note for note in resolved.notes)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ProdserveError) as caught:
        options(
            {"workers": "two", "bind": ["nowhere"]},
            {"PRODSERVE_TIMEOUT": "soon", "PRODSERVE_WORKRES": "3", "WEB_CONCURRENCY": "many"},
            {
                "THREDS": 4,
                "MEMORY": "lots",
                "GUNICORN": {"worker_tmpdir": "/x", "daemon": True, "umask": "z"},
            },
        )
    found = caught.value.problems
    lines = [f"{problem.message} {problem.fix}" for problem in found]
    for words in (
        "--workers is 'two', but must be a whole number from 1",
        "--bind: 'nowhere' lacks a port. Write nowhere:8000",
        "PRODSERVE_TIMEOUT is 'soon', but must be a time",
        "Unknown variable PRODSERVE_WORKRES. Did you mean PRODSERVE_WORKERS?",
        "PRODSERVE has no option 'THREDS'. Did you mean THREADS?",
        "PRODSERVE['MEMORY'] is 'lots'",
        "PRODSERVE['GUNICORN']['worker_tmpdir'] names no Gunicorn setting. Did you mean worker_tmp_dir?",
        "Gunicorn's daemon is refused",
        "PRODSERVE['GUNICORN']['umask'] is 'z'",
    ):
        assert any(words in line for line in lines), (words, lines)
    assert len(lines) == 9, lines
    assert {problem.code for problem in found} <= CODES.keys()
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"environ": {"WEB_CONCURRENCY": ""}}, "WEB_CONCURRENCY is set but empty"),
        ({"environ": {"WEB_CONCURRENCY": "2.5"}}, "WEB_CONCURRENCY is '2.5'"),
        ({"environ": {"PORT": "http"}}, "PORT"),
        ({"environ": {"PORT": ""}}, "PORT is set but empty"),
        ({"environ": {"PORT": "99999"}}, "PORT 99999 is out of range (0-65535)."),
        ({"environ": {"GUNICORN_CMD_ARGS": "--threads many"}}, "GUNICORN_CMD_ARGS is '--threads many'"),
        ({"environ": {"GUNICORN_CMD_ARGS": "--no-such-flag"}}, "unrecognized arguments"),
        ({"environ": {"GUNICORN_CMD_ARGS": "'unclosed"}}, "No closing quotation"),
        ({"environ": {"GUNICORN_CMD_ARGS": "shop.wsgi"}}, "options only"),
        ({"environ": {"GUNICORN_CMD_ARGS": "--reload"}}, "serve old code"),
        ({"block": "fast"}, "must be a dictionary"),
        ({"block": {"GUNICORN": ["workers"]}}, "must be a dictionary"),
        ({"block": {"GUNICORN": {"pre_fork": lambda one: None}}}, "arity"),
        ({"block": {"GUNICORN": {"pre_fork": "no.such.module.hook"}}}, "no.such.module"),
        ({"flags": {"config": "nowhere.py"}}, "there is no such file"),
        ({"flags": {"config": "python:shop.conf"}}, "only files are read"),
        ({"block": {"CONFIG": 5}}, "PRODSERVE['CONFIG'] is 5, but must be a path."),
    ],
)
def test_wrong_inputs_get_one_clear_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ProdserveError) as caught:
        options(**given)
    assert words in str(caught.value)


def test_a_broken_config_file_names_its_line(tmp_path: Any) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("threads = 2\nworkers = undefined\n")
    with pytest.raises(UsageError) as caught:
        options({"config": str(conf), "threads": "many"})
    broken, threads = caught.value.problems
    assert broken.message == f"--config {conf} raises NameError: name 'undefined' is not defined"
    assert broken.where == f"{conf}, line 2: workers = undefined"
    assert broken.code == "config-file"
    assert "--threads is 'many'" in threads.message
    conf.write_text("threads = (\n")
    with pytest.raises(UsageError, match="raises SyntaxError: '\\(' was never closed") as caught:
        options({}, {"PRODSERVE_CONFIG": str(conf)})
    assert caught.value.where == f"{conf}, line 1: threads = ("
    assert caught.value.message.startswith("PRODSERVE_CONFIG ")
    conf.write_text("import sys\nsys.exit('no')\n")
    with pytest.raises(UsageError, match="raises SystemExit: no"):
        options({"config": str(conf)})


@pytest.mark.parametrize(
    ("setting", "value", "words", "fix"),
    [
        ("raw_env", ["A=1", "B"], "holds 'B', but each entry must be NAME=VALUE", "NAME=VALUE"),
        ("logconfig", "/nowhere/log.ini", "/nowhere/log.ini cannot be read: there is no such file", "exists"),
        ("logconfig_json", "/nowhere/log.json", "cannot be read: there is no such file", "exists"),
        ("ca_certs", "/nowhere/ca.pem", "cannot be read: there is no such file", "exists"),
        ("access_log_format", "%(h)s %(s", "which is not a format: incomplete format key", "%(h)s"),
        ("logger_class", "no.Such", "cannot be loaded: ModuleNotFoundError: No module named 'no'", "a class"),
        ("logger_class", "logging.Loger", "cannot be loaded: AttributeError", "a class"),
    ],
)
def test_what_gunicorn_would_refuse_at_its_start_is_refused_before(
    setting: str, value: Any, words: str, fix: str
) -> None:
    with pytest.raises(UsageError) as caught:
        options({"workers": "two"}, block={"GUNICORN": {setting: value}})
    workers, wrong = sorted(caught.value.problems, key=lambda problem: "GUNICORN" in problem.message)
    assert "--workers is 'two'" in workers.message
    assert wrong.message.startswith(f"PRODSERVE['GUNICORN']['{setting}'] ")
    assert words in wrong.message
    assert "Traceback" not in wrong.message
    assert fix in wrong.fix


@pytest.mark.parametrize(
    "block",
    [
        {"raw_env": ["A=1", "B=2=3"]},
        {"logconfig": __file__},
        {"logger_class": "simple"},
        {"logger_class": "gunicorn.glogging.Logger"},
        {"http_protocols": "h1"},
        {"access_log_format": "%(h)s %({x-own}i)s %(nothing)s"},
    ],
)
def test_what_gunicorn_takes_passes(block: dict[str, Any]) -> None:
    resolved = options(block={"GUNICORN": block})
    assert {name: found.value for name, found in resolved.gunicorn.items()} == block


def test_what_gunicorn_could_do_but_we_decide_is_a_note() -> None:
    resolved = options(block={"GUNICORN": {"wsgi_app": "shop.wsgi", "daemon": False}})
    assert not resolved.gunicorn
    assert any("WSGI_APPLICATION" in note for note in resolved.notes)


PREPARE = {"PREPARE": ["wait-for-db", "migrate"]}


def test_prepare_is_short_for_three_options() -> None:
    resolved = options(block=PREPARE)
    assert (resolved.wait_for_db, resolved.migrate, resolved.collectstatic) == (30, True, False)
    assert {resolved.source("wait_for_db"), resolved.source("migrate")} == {"PRODSERVE['PREPARE']"}
    assert options(block={"PREPARE": "migrate, collectstatic"}).collectstatic is True
    assert options(block={"PREPARE": []}).migrate is False


def test_what_says_it_more_exactly_wins_over_prepare() -> None:
    assert options(block={**PREPARE, "WAIT_FOR_DB": "2m"}).wait_for_db == 120
    assert options(environ={"PRODSERVE_MIGRATE": "off"}, block=PREPARE).migrate is False
    resolved = options({"migrate": False}, block=PREPARE)
    assert (resolved.migrate, resolved.source("migrate")) == (False, "--migrate")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (
            ["migrate", "migrat"],
            "PRODSERVE['PREPARE'] has no step 'migrat'.\n  There are wait-for-db, migrate, ",
        ),
        ([1], "PRODSERVE['PREPARE'] is [1], but must be a list of wait-for-db, migrate, collectstatic."),
        (True, "PRODSERVE['PREPARE'] is True, but must be a list"),
    ],
)
def test_a_wrong_step_is_told(value: Any, complaint: str) -> None:
    with pytest.raises(ProdserveError) as caught:
        options(block={"PREPARE": value})
    assert complaint in str(caught.value)
