"""The preflight: each message for its cause, and none for a sound project."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, Error

from django_prodserve.config.options import SourcedValue
from django_prodserve.config.resolve import resolve
from django_prodserve.errors import ProdserveError
from django_prodserve.machine.platforms import NOWHERE, Platform
from django_prodserve.plan.plan import PlanInputs, make_plan
from django_prodserve.project.databases import DatabaseProbe
from django_prodserve.project.detect import Database
from django_prodserve.project.dotted_paths import broken_paths
from django_prodserve.startup import checks
from django_prodserve.startup.checks import CheckContext, Preflight, raise_on_errors, run_rules
from django_prodserve.staticfiles import StaticChoice
from django_prodserve.tls.expiry import Expiry

from .facts import machine, postgresql, project

DAY = 86400.0
SOUND = Database(alias="default", vendor="sqlite", where="db.sqlite3", max_age=0)
KEPT = dataclasses.replace(postgresql(), max_age=60, health_checks=True)


def seen(
    stated: dict[str, Any] | None = None, platform: Platform = NOWHERE, facts: Any = None, **more: Any
) -> CheckContext:
    """Return what the rules see of a sound project on a dull machine, with these differences."""
    site = project(**{"databases": (SOUND,), **(facts or {})})
    options = resolve([{name: SourcedValue(value, f"--{name}") for name, value in (stated or {}).items()}])
    plan = make_plan(PlanInputs(machine=machine(), platform=platform, project=site, options=options))
    return CheckContext(plan=plan, project=site, **{"user_id": 1000, "somaxconn": 4096, **more})


HEROKU = Platform(name="Heroku", marker="DYNO", values={}, why={})

CAUSES: list[tuple[str, CheckContext, str]] = [
    ("E001", seen(facts={"debug": True}), "DEBUG = False"),
    ("E002", seen(facts={"allowed_hosts": ()}), "ALLOWED_HOSTS"),
    ("W001", seen(facts={"databases": (dataclasses.replace(SOUND, deferred=True),)}), "IMMEDIATE"),
    ("W002", seen(facts={"local_caches": ("default",)}), "Redis"),
    ("W003", seen(facts={"local_sessions": True}), "SESSION_ENGINE"),
    ("W004", seen(facts={"local_channels": True}), "channels_redis"),
    ("W005", seen({"bind": "0.0.0.0:80", "certfile": ("c",)}, facts={"ssl_redirect": True}), ""),
    ("W005", seen({"bind": "0.0.0.0:80"}, facts={"ssl_redirect": True}), "--trusted-proxies private"),
    ("W006", seen({"bind": "0.0.0.0:80", "trusted_proxies": "*"}), "--trusted-proxies 10.0.0.5"),
    ("W007", seen({"bind": "0.0.0.0:80"}), "--certfile"),
    ("W008", seen(probes=(DatabaseProbe(alias="default", pending=3),)), "manage.py migrate"),
    (
        "W009",
        seen(facts={"databases": (dataclasses.replace(KEPT, health_checks=False),)}),
        "CONN_HEALTH_CHECKS",
    ),
    ("W010", seen(facts={"databases": (postgresql(),)}), "CONN_MAX_AGE"),
    (
        "W011",
        seen(facts={"databases": (dataclasses.replace(KEPT, max_age=0, pool_size=4),)}),
        '"max_size": 16',
    ),
    (
        "W012",
        seen(facts={"databases": (KEPT,)}, probes=(DatabaseProbe(alias="default", max_connections=20),)),
        "--db-connections 10",
    ),
    ("W013", seen(user_id=0), "unprivileged user"),
    ("W014", seen({"backlog": 9000}), "somaxconn"),
    ("W015", seen(facts={"prodserver": True}), "INSTALLED_APPS"),
    (
        "W021",
        seen(facts={"static": StaticChoice(mode="collect", why="", url="/s/", elsewhere="cdn.example")}),
        "put STATIC_ROOT on cdn.example",
    ),
    ("W022", seen(facts={"allowed_hosts": ("shop.example", "http://localhost:8000")}), "'localhost'"),
    ("W026", seen(facts={"daphne": True}), "INSTALLED_APPS"),
    ("W016", seen(probes=(DatabaseProbe(alias="default", error="refused"),)), "Start it, or correct"),
]


@pytest.mark.parametrize(("number", "what", "hint"), [cause for cause in CAUSES if cause[2]])
def test_each_cause_has_its_message_with_a_way_out(number: str, what: CheckContext, hint: str) -> None:
    found = {str(message.id): message for message in run_rules(what)}
    assert f"prodserve.{number}" in found
    message = found[f"prodserve.{number}"]
    assert hint in str(message.hint)
    assert isinstance(message, Error) == number.startswith("E")


@pytest.mark.parametrize(
    "what",
    [
        seen(),
        seen(certificates=(Expiry(("shop.example",), "/c.pem", time.time() + 15 * DAY),)),
        seen({"bind": "0.0.0.0:80", "certfile": ("c",)}, facts={"ssl_redirect": True}),
        seen({"bind": "0.0.0.0:80", "trusted_proxies": "private"}, facts={"ssl_redirect": True}),
        seen({"bind": "0.0.0.0:80", "trusted_proxies": "*"}, platform=HEROKU),
        seen({"bind": "unix:/run/a.sock"}),
        seen({"workers": 1}, facts={"local_caches": ("default",), "local_sessions": True}),
        seen({"workers": 1, "threads": 1}, facts={"databases": (dataclasses.replace(SOUND, deferred=True),)}),
        seen(facts={"databases": (KEPT,)}, probes=(DatabaseProbe(alias="default", max_connections=100),)),
        seen(facts={"databases": (dataclasses.replace(KEPT, max_age=0, pool_size=16),)}),
        seen(facts={"debug": True}, allow_debug=True),
        seen(somaxconn=128),
        seen(facts={"allowed_hosts": ("shop.example", ".shop.example", "*", "[::1]", "127.0.0.1")}),
        seen(
            {"collectstatic": True},
            facts={"static": StaticChoice(mode="collect", why="", elsewhere="cdn.example")},
        ),
    ],
)
def test_a_sound_project_has_none(what: CheckContext) -> None:
    assert run_rules(what) == []


@pytest.mark.parametrize(
    ("entry", "host"),
    [
        ("http://localhost:8000", "localhost"),
        ("https://user@shop.example/path/", "shop.example"),
        ("shop.example:443", "shop.example"),
        ("[::1]:8000", "[::1]"),
        ("shop.example/", "shop.example"),
    ],
)
def test_an_allowed_host_that_is_none_is_named_with_its_host(entry: str, host: str) -> None:
    (message,) = run_rules(seen(facts={"allowed_hosts": (entry,)}))
    assert message.id == "prodserve.W022"
    assert repr(entry) in message.msg
    assert message.hint == f"In ALLOWED_HOSTS: {host!r}"


PATHS: list[tuple[str, Any, str, str, str]] = [
    ("ROOT_URLCONF", "tests.url", "E005", "there is no module tests.url", "tests.urls"),
    ("ROOT_URLCONF", "nowhere", "E005", "there is no module nowhere", ""),
    (
        "WSGI_APPLICATION",
        "tests.site.shop.wsgi.app",
        "E006",
        "the module tests.site.shop.wsgi has no app",
        "tests.site.shop.wsgi.application",
    ),
    (
        "ASGI_APPLICATION",
        "tests.site.shop.asgi.aplication",
        "E010",
        "the module tests.site.shop.asgi has no aplication",
        "tests.site.shop.asgi.application",
    ),
    (
        "MIDDLEWARE",
        ["django.middleware.gzip.GZipMiddleware", "django.middleware.gzipp.GZipMiddleware"],
        "E007",
        "there is no module django.middleware.gzipp",
        "django.middleware.gzip.GZipMiddleware",
    ),
    (
        "TEMPLATES",
        [{"OPTIONS": {"context_processors": ["django.template.context_processors.reqest"]}}, {}],
        "E009",
        "the module django.template.context_processors has no reqest",
        "django.template.context_processors.request",
    ),
    (
        "MIDDLEWARE",
        ["whitenoise.middleware.WhiteNoiseMiddlewar"],
        "E007",
        "the module whitenoise.middleware has no WhiteNoiseMiddlewar",
        "whitenoise.middleware.WhiteNoiseMiddleware",
    ),
]


@pytest.mark.parametrize(("name", "value", "number", "problem", "guess"), PATHS)
def test_a_setting_that_names_nothing_is_told_by_its_name(
    settings: Any, name: str, value: Any, number: str, problem: str, guess: str
) -> None:
    setattr(settings, name, value)
    loaded = {*sys.modules}
    (found,) = broken_paths()
    assert {*sys.modules} == loaded
    assert (found.setting, found.problem, found.guess) == (name, problem, guess)
    (message,) = run_rules(seen(broken_paths=(found,)))
    assert message.id == f"prodserve.{number}"
    assert message.msg.startswith(
        f"{name} {'is' if isinstance(value, str) else 'holds'} {found.path!r}, but "
    )
    assert message.hint == (f"Did you mean {guess!r}?" if guess else f"Correct {name} in the settings")


@pytest.mark.parametrize(
    ("path", "problem", "hint"),
    [
        ("no.such", "there is no module no", "Correct --readiness_checks"),
        ("tests.facts.machin", "the module tests.facts has no machin", "Did you mean 'tests.facts.machine'?"),
    ],
)
def test_a_readiness_check_that_names_nothing_is_found_before_anything_is_loaded(
    path: str, problem: str, hint: str
) -> None:
    (found,) = broken_paths(["database", path, "tests.facts.machine"])
    (message,) = run_rules(seen({"readiness_checks": path}, broken_paths=(found,)))
    assert (message.id, message.hint) == ("prodserve.E008", hint)
    assert message.msg == f"--readiness_checks holds {path!r}, but {problem}."


def test_an_application_that_nothing_loads_may_name_nothing(settings: Any) -> None:
    settings.ASGI_APPLICATION = "no.such"
    assert run_rules(seen({"asgi": "off"}, broken_paths=tuple(broken_paths()))) == []


def test_what_can_only_be_known_by_loading_is_left_alone(settings: Any, tmp_path: Path) -> None:
    package = tmp_path / "lazy_names"
    package.mkdir()
    (package / "__init__.py").write_text("__path__ = __import__('pkgutil').extend_path(__path__, __name__)")
    (package / "star.py").write_text("from somewhere import *")
    (package / "made.py").write_text("def __getattr__(name): ...")
    (package / "raises.py").write_text("raise RuntimeError")
    (package / "broken.py").write_text("here = 1\ndef broken(:")
    names = ("star.A", "made.B", "elsewhere.C", "raises.D", "broken.E")
    settings.MIDDLEWARE = [f"lazy_names.{name}" for name in names]
    sys.path.insert(0, str(tmp_path))
    try:
        assert [*broken_paths()] == []
    finally:
        sys.path.remove(str(tmp_path))


def test_messages_can_be_silenced(settings: Any) -> None:
    settings.SILENCED_SYSTEM_CHECKS = ["prodserve.W013"]
    assert run_rules(seen(user_id=0)) == []


def test_ids_are_unique_and_each_has_a_cause_here() -> None:
    source = Path(checks.__file__).read_text()
    ids = re.findall(r'id="prodserve\.([EW]\d{3})"', source)
    assert len(ids) == len(set(ids))
    assert {number for number, _, _ in CAUSES} <= set(ids)


def test_a_loaded_project_with_async_views_opens_more_connections() -> None:
    pooled = dataclasses.replace(KEPT, max_age=0, pool_size=16)
    what = seen(
        facts={"databases": (KEPT, dataclasses.replace(pooled, alias="reports"))},
        probes=(DatabaseProbe(alias="default", max_connections=50),),
    )
    assert run_rules(what) == []
    loaded = dataclasses.replace(what, plan=what.plan.with_road_table("2 async routes on the asyncio loop"))
    found = {str(message.id): message.msg for message in run_rules(loaded)}
    assert "may open 66" in found["prodserve.W012"]
    assert "for 32 threads" in found["prodserve.W011"]


@pytest.mark.parametrize(
    ("days", "told"),
    [
        (15, None),
        (9.1, r"The certificate of shop\.example \(/c\.pem\) expires on \S+, in 9 days\."),
        (
            -3.1,
            r"The certificate of shop\.example \(/c\.pem\) expired on \S+, 3 days ago: clients refuse .*\.",
        ),
    ],
)
def test_a_certificate_that_ends_soon_is_a_warning(days: float, told: str | None) -> None:
    expiry = Expiry(("shop.example",), "/c.pem", time.time() + days * DAY)
    found = run_rules(seen(certificates=(expiry,)))
    assert [str(message.id) for message in found] == (["prodserve.W029"] if told else [])
    assert all(re.fullmatch(told or "", str(message.msg)) and message.hint for message in found)


def test_what_was_told_before_the_project_was_loaded_is_not_told_again() -> None:
    what = seen(facts={"local_caches": ("default",)})
    checked = Preflight(what.plan, what.project)
    assert "W002" in [problem.code for problem in checked.settings(what.plan)[1]]
    assert checked.loaded(what.plan.with_road_table("2 async routes on the asyncio loop")) == []


def test_strict_makes_warnings_fatal() -> None:
    what = seen({"strict": True}, facts={"local_caches": ("default",)})
    with pytest.raises(ProdserveError, match=r"^\d+ warnings?, and --strict refuses"):
        Preflight(what.plan, what.project).settings(what.plan)
    relaxed = seen(facts={"local_caches": ("default",)})
    (found,) = [
        problem
        for problem in Preflight(relaxed.plan, relaxed.project).settings(relaxed.plan)[1]
        if problem.check == "prodserve.W002"
    ]
    assert found.code == "W002"
    assert "W002" not in found.message
    assert "Redis" in found.fix


def test_errors_are_told_together() -> None:
    what = seen(facts={"debug": True, "allowed_hosts": ()})
    with pytest.raises(ProdserveError, match=r"(?s)E001.*E002"):
        raise_on_errors(what.plan, what.project)


def test_every_message_is_a_check_message() -> None:
    assert all(isinstance(message, CheckMessage) for _, what, _ in CAUSES for message in run_rules(what))


@pytest.mark.parametrize(("worker_class", "more"), [("prodserve", 1), ("gthread", 0)])
def test_only_our_workers_have_a_thread_more_that_keeps_a_connection(worker_class: str, more: int) -> None:
    context = seen({"worker_class": worker_class}, facts={"databases": (postgresql(),)})
    (hint,) = [found.hint for found in run_rules(context) if found.id == "prodserve.W010"]
    kept = context.plan.workers.value * (context.plan.threads.value + more)
    assert f"keeps up to {kept} connections open" in str(hint)
