"""A decision is shown, typed and read back by the kind of its option."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from django_prodserve.cli.arguments import FlatParser, add_arguments
from django_prodserve.cli.export_conf import render_conf
from django_prodserve.config.options import Row, option_fields
from django_prodserve.plan.explain import explain
from django_prodserve.utils.decision import Decision

from .facts import plan

TYPED = {
    "bind": "127.0.0.1:8000,unix:/run/shop.sock",
    "workers": "2n+1",
    "threads": "16",
    "cpus": "1.5",
    "memory": "536870912",
    "db_connections": "40",
    "roads": "shop:report=threads,/api/=loop",
    "max_body": "1048576",
    "max_requests_jitter": "7",
    "preload": "off",
    "warmup": "/about/",
    "certfile": "cert.pem",
    "keyfile": "key.pem",
    "redirect_http": "0.0.0.0:80",
    "acme_webroot": "/srv/acme",
    "side_processes": "tasks,beat",
    "trusted_hops": "2",
    "access_log": "-",
    "log_redact": "query,token",
    "readiness_checks": "database,shop.health.queue",
    "management_bind": "127.0.0.1:9000",
    "config": "gunicorn.conf.py",
    "chdir": "/srv/shop",
    "supervisor": "on",
    "env_file": ".env",
}
"""A value of each option whose default is none."""


@pytest.mark.parametrize("row", option_fields(), ids=lambda row: str(row.name))
def test_what_is_typed_is_read_back(row: Row) -> None:
    value = row.kind.parse(TYPED[row.name]) if row.default in (None, ()) else row.default
    if value is not None:  # no workers: the plan decides on a number
        assert row.kind.parse(row.typed(value)) == value
    assert row.show(value)


def test_every_switch_is_typed_without_a_word() -> None:
    parser = FlatParser("prodserve")
    add_arguments(parser)
    switches = [row for row in option_fields() if row.kind.is_switch]
    assert {"server_timing", "static", "preload"} <= {row.name for row in switches}
    for row in switches:
        assert vars(parser.parse_args([row.flag]))[row.name] is True
        assert vars(parser.parse_args([row.flag.replace("--", "--no-")]))[row.name] is False
        assert isinstance(parser._option_string_actions[row.flag], argparse.BooleanOptionalAction)
        for words, state in (("on", True), ("off", False)):
            assert vars(parser.parse_args([row.flag, words, "plan"])) == {
                **vars(parser.parse_args(["plan"])),
                row.name: state,
            }
            assert vars(parser.parse_args([f"{row.flag}={words}"]))[row.name] is state


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("queue_timeout", 2.0, "2 s"),
        ("drain_delay", 90.0, "90 s"),
        ("max_body", 10 << 20, "10 MiB"),
        ("umask", 0o27, "0027"),
        ("access_log_sample", 0.1, "10%"),
        ("worker_memory", 56 << 20, "56 MiB"),
        ("memory", None, "unknown"),
        ("management_bind", None, "none"),
        ("drain_delay", 0.0, "off"),
        ("max_requests", 0, "off"),
    ],
)
def test_a_plan_shows_decisions_by_their_kind(name: str, value: object, shown: str) -> None:
    text = explain(replace(plan(), **{name: Decision(value, "a test")}))
    line = next(line for line in text.splitlines() if line.startswith(f"  {name.replace('_', '-')}  "))
    assert line.split("  a test")[0].split(maxsplit=1)[1].strip() == shown


def test_a_conf_carries_what_the_layers_and_workers_decide_by() -> None:
    changed = replace(plan(), cpus=Decision(1.5, "a test"), queue_timeout=Decision(3.0, "a test"))
    text = render_conf(changed, "/srv/shop", "/srv/shop")
    assert "os.environ['PRODSERVE_CPUS'] = '1.5'  # a test [computed]" in text
    assert "os.environ['PRODSERVE_QUEUE_TIMEOUT'] = '3'" in text


def test_a_conf_carries_the_worker_class_for_the_layers() -> None:
    text = render_conf(plan(worker_class="asgi"), "/srv/shop", "/srv/shop")
    assert "os.environ['PRODSERVE_WORKER_CLASS'] = 'asgi'" in text
    assert "worker_class = 'django_prodserve.worker.gunicorn_asgi.ASGIWorker'" in text
    assert "http_parser = 'python'  # the other parser" in text
