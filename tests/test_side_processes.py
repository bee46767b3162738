"""Processes alongside the workers: what settings may say, their lines, when they start again, their files."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.config import side_processes
from django_prodserve.config.options import SourcedValue
from django_prodserve.config.resolve import environment_layer, resolve
from django_prodserve.errors import Problem, UsageError
from django_prodserve.export.check import contradictions
from django_prodserve.export.reading import command
from django_prodserve.logs.side_lines import LONGEST, LineSplitter, json_line, text_line
from django_prodserve.plan.plan import Plan, PlanInputs, make_plan
from django_prodserve.side_processes import policies
from django_prodserve.side_processes.host_lock import FileLock
from django_prodserve.side_processes.policies import SideState, too_large
from django_prodserve.utils.units import MIB

from .e2e.needs import need_package, need_program
from .exports import exported, facts
from .facts import NOWHERE, machine, project


def read(processes: Any) -> tuple[dict[str, side_processes.SideProcess], list[Problem]]:
    problems: list[Problem] = []
    return side_processes.read({"PROCESSES": processes}, problems), problems


def test_a_text_is_a_command_and_a_dictionary_has_more() -> None:
    found, problems = read(
        {
            "tasks": "manage.py db_worker --queue-name 'two words'",
            "beat": {"command": ["celery", "-A", "shop", "beat"], "memory": "80m", "one_host": True},
        }
    )
    assert problems == []
    assert found["tasks"].command == ("manage.py", "db_worker", "--queue-name", "two words")
    assert (found["tasks"].memory, found["tasks"].one_host) == (None, False)
    assert (found["beat"].memory, found["beat"].one_host) == (80 * MIB, True)


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (["manage.py db_worker"], "must be a dictionary"),
        ({"Tasks": "x"}, "name 'Tasks'"),
        ({3: "x"}, "name 3"),
        ({"all": "x"}, "means every process"),
        ({"tasks": ""}, "['tasks'] is empty"),
        ({"tasks": []}, "['tasks'] is empty"),
        ({"tasks": 7}, "['tasks'] is 7, but must be a command"),
        ({"tasks": "celery 'shop"}, "a quotation mark is not closed"),
        ({"tasks": "celery | tee log"}, "contains '|', but no shell reads it"),
        ({"tasks": "a\0b"}, "NUL"),
        ({"tasks": {"memory": "80m"}}, "['tasks'] has no command"),
        ({"tasks": {"comand": "x", "command": "y"}}, "has no key 'comand'"),
        ({"tasks": {"command": "x", "memory": "many"}}, "['memory'] is 'many', but must be an amount"),
        (
            {"tasks": {"command": "x", "one_host": "perhaps"}},
            "['one_host'] is 'perhaps', but must be on or off",
        ),
        ({"tasks": {"command": ["x", 3]}}, "must be a command as text or a list of its words"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place_and_a_fix(processes: Any, message: str) -> None:
    found, [problem] = read(processes)
    assert found == {}
    assert problem.message.startswith("PRODSERVE['PROCESSES']")
    assert message in problem.message
    assert problem.fix
    assert "\n" not in problem.message


BOTH = {"tasks": "manage.py db_worker", "beat": {"command": "celery beat", "memory": "80m"}}


def planned(*names: str, processes: Any = BOTH, **stated: Any) -> Plan:
    known, _ = read(processes)
    layer = {name: SourcedValue(value, f"--{name}") for name, value in stated.items()}
    if names:
        layer["side_processes"] = SourcedValue([*names], "--with")
    wishes = resolve([layer], processes=known)
    return make_plan(
        PlanInputs(machine=machine(), platform=NOWHERE, project=project(), options=wishes, fork_safe=True)
    )


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ((), ()),
        (("beat", "tasks"), ("tasks", "beat")),
        (("beat,tasks",), ("tasks", "beat")),
        (("all",), ("tasks", "beat")),
    ],
)
def test_only_named_processes_start_in_the_order_of_the_settings(
    names: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    decided = planned(*names)
    assert decided.side_processes.value == chosen
    assert [one.name for one in decided.inputs.options.beside] == [*chosen]
    left = [name for name in BOTH if name not in chosen]
    assert [note for note in decided.notes if "PROCESSES" in note] == [
        f"PROCESSES {name}: not started here (--with {name})" for name in left
    ]


def test_a_name_that_the_settings_lack_is_refused_with_a_similar_one() -> None:
    with pytest.raises(UsageError, match="--with: PRODSERVE\\['PROCESSES'\\] has no 'taks'") as raised:
        planned("taks")
    assert raised.value.problems[0].fix == "Did you mean 'tasks'?"
    with pytest.raises(UsageError, match="has none"):
        planned("all", processes={})


def test_the_variable_with_the_name_of_a_process_is_not_an_option() -> None:
    problems: list[Problem] = []
    assert environment_layer({"PRODSERVE_PROCESS": "tasks", "PRODSERVE_WITH": "tasks"}, problems) == {
        "side_processes": SourcedValue("tasks", "PRODSERVE_WITH")
    }
    assert problems == []


def test_their_memory_is_a_part_of_the_plan() -> None:
    alone, both = planned(), planned("all")
    assert alone.side_memory.value == 0
    assert both.side_memory.value == 88 * MIB + max(both.master_memory.value, both.worker_memory.value)
    assert "tasks 56 MiB, a guess; beat 80 MiB, set explicitly" in both.side_memory.why
    small = planned("all", memory="300m")
    assert small.workers.value < planned(memory="300m").workers.value
    assert "144 MiB alongside them" in small.workers.why


def lines_of(*pieces: bytes) -> list[str]:
    splitter = LineSplitter()
    return [*(line for piece in pieces for line in splitter.feed(piece)), *splitter.end()]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((b"one\ntwo\n",), ["one", "two"]),
        ((b"o", b"ne\r\ntw", b"o"), ["one", "two"]),
        ((b"\xff\xfe\x00 bin\n",), [r"\xff\xfe\x00 bin"]),
        (("grün\n".encode()[:3], "grün\n".encode()[3:]), ["grün"]),
        ((b"a\x1b[31mred\tb\x08\n",), ["a\x1b[31mred\tb\\x08"]),
        ((), []),
    ],
)
def test_bytes_become_lines(pieces: tuple[bytes, ...], lines: list[str]) -> None:
    assert lines_of(*pieces) == lines


def test_the_end_of_a_line_that_is_too_long_is_dropped_and_counted() -> None:
    long, after = lines_of(*[b"x" * 1000] * 50, b"\nafter\n")
    assert long == "x" * LONGEST + f" ... ({50_000 - LONGEST} bytes more)"
    assert after == "after"


def test_a_line_has_the_name_of_its_process_in_both_formats() -> None:
    assert text_line(0.0, "tasks", "done", 7) == "1970-01-01T00:00:00Z [7] [tasks] done"
    assert json.loads(json_line(0.0, "tasks", "done", 7)) == {
        **{"time": "1970-01-01T00:00:00.000Z", "level": "info", "logger": "prodserve", "message": "done"},
        **{"process": "tasks", "pid": 7},
    }
    assert json.loads(json_line(0.0, "tasks", '{"level": "error", "pid": 9}', 7)) == {
        "level": "error",
        "pid": 9,
        "process": "tasks",
    }
    assert json.loads(json_line(0.0, "tasks", "{broken", 7))["message"] == "{broken"
    assert json.loads(json_line(0.0, "tasks", "[1]", 7))["message"] == "[1]"


def test_pauses_grow_up_to_half_a_minute() -> None:
    assert [policies.back_off(count) for count in (0, 1, 2, 3, 7, 8, 1000)] == [0, 0.25, 0.5, 1, 16, 30, 30]


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "ended with exit code 0"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")],
)
def test_an_end_in_words(status: int, words: str) -> None:
    assert policies.ending(status) == words


def state(index: int, memory: int, planned: int = 100) -> SideState:
    return SideState(index=index, name=f"p{index}", memory=memory, planned=planned)


@pytest.mark.parametrize(
    ("states", "used", "expected"),
    [
        pytest.param([state(0, 900)], 700, None, id="there is room"),
        pytest.param([state(0, 140)], 990, None, id="a restart would gain nothing"),
        pytest.param(
            [state(0, 160), state(1, 320, 200)], 810, (1, False), id="the one furthest above its plan"
        ),
        pytest.param([state(0, 160)], 950, (0, True), id="no time is left"),
        pytest.param([], 950, None, id="there is none"),
    ],
)
def test_what_is_restarted_when_memory_is_short(
    states: list[SideState], used: int, expected: tuple[int, bool] | None
) -> None:
    found = too_large(states, used, used, 1000)
    assert (found and (found[0].index, found[2])) == expected


def test_a_file_lock_has_one_holder_until_it_is_released(tmp_path: Path) -> None:
    first, second = FileLock(str(tmp_path / "lock")), FileLock(str(tmp_path / "lock"))
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert FileLock("").take()


# Files.

IN_FILES = {
    "systemd": ("shop-tasks.service", r"^ExecStart=/srv/shop/\S*bin/python manage.py db_worker$"),
    "compose": ("compose.yaml", r'^  tasks:\n(.*\n)*?    command: \["python", "manage.py", "db_worker"\]$'),
    "kubernetes": ("kubernetes.yaml", r'^          args: \["python", "manage.py", "db_worker"\]$'),
    "supervisor": ("shop.conf", r"^command=/srv/shop/\S*bin/python manage.py db_worker$"),
    "procfile": ("Procfile", r"^tasks: python manage.py db_worker$"),
    "fly": ("fly.toml", r'^  tasks = "python manage.py db_worker"$'),
    "render": ("render.yaml", r"^  - type: worker\n    name: shop-tasks$"),
    "kamal": ("deploy.yml", r"^  tasks:\n(.*\n)*?    cmd: python manage.py db_worker$"),
    "cloudrun": ("cloudrun.yaml", r"^#   - tasks, python manage.py db_worker: it needs a worker pool"),
}


@pytest.mark.parametrize("kind", IN_FILES)
def test_a_process_that_the_server_does_not_start_has_a_home_in_the_file(kind: str) -> None:
    name, pattern = IN_FILES[kind]
    both = exported(kind, processes=BOTH)
    assert re.search(pattern, both[name], re.MULTILINE), both[name]
    if kind != "cloudrun":
        inside = exported(kind, processes=BOTH, side_processes=["tasks", "beat"])
        assert not any(re.search(pattern, text, re.MULTILINE) for text in inside.values())
        assert any("--with=tasks --with=beat" in text.replace('", "', " ") for text in inside.values())


@pytest.mark.parametrize("kind", ["compose", "kubernetes", "render", "kamal", "cloudrun"])
def test_the_files_with_processes_are_yaml(kind: str) -> None:
    need_package("yaml")
    import yaml

    for text in exported(kind, processes=BOTH).values():
        documents = [*yaml.safe_load_all(text)]
        assert documents
        assert all(isinstance(document, dict) for document in documents)


@pytest.mark.parametrize("kind", IN_FILES)
def test_the_check_of_a_file_with_processes_finds_nothing(kind: str) -> None:
    own = {"keep_alive": "1d"} if kind == "kamal" else {}  # a flag that the file itself adds
    for text in exported(kind, processes=BOTH, max_body="10m").values():
        assert contradictions(kind, text, facts(kind, processes=BOTH, max_body="10m", **own)) == []
        if "prodserve --" in text or '"prodserve"' in text:
            assert "db_worker" not in " ".join(command(text))


def test_systemd_accepts_the_unit_of_a_process_and_rates_it_well(tmp_path: Path) -> None:
    analyze = need_program("systemd-analyze")
    place = {"program": ("/bin/true",), "user": "root", "directory": "/"}
    for file, text in exported("systemd", place, bind="127.0.0.1:8000", processes=BOTH).items():
        (tmp_path / file).write_text(text.replace("ExecStart=/bin/", "ExecStart=/bin/true /bin/"))
    for words in (
        ["verify", "--recursive-errors=yes", "--man=no"],
        ["security", "--offline=yes", "--threshold=40", "--no-pager"],
    ):
        ended = subprocess.run(
            [analyze, *words, "./shop-tasks.service"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_program_of_a_process_is_ini() -> None:
    [text] = exported("supervisor", processes=BOTH).values()
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert parser.sections() == ["program:shop", "program:shop-tasks", "program:shop-beat"]


def test_cloud_run_cannot_start_a_process() -> None:
    with pytest.raises(UsageError, match="only while it answers"):
        exported("cloudrun", processes=BOTH, side_processes=["tasks"])


def test_a_limit_that_was_not_set_is_no_limit_of_a_unit() -> None:
    files = exported("systemd", processes=BOTH)
    assert "MemoryMax" not in files["shop-tasks.service"]
    assert "MemoryMax=80M" in files["shop-beat.service"]
    assert os.path.basename("shop-beat.service") in files
