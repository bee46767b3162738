"""Plan -> Gunicorn's settings: all of them are ones that Gunicorn takes."""

from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.config.gunicorn import new_config
from django_prodserve.config.options import SourcedValue
from django_prodserve.plan.gunicorn_settings import gunicorn_settings

from .facts import plan


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"workers": 3, "threads": 2, "timeout": "0.5s", "umask": "077"},
        {
            "worker_class": "sync",
            "timeout": "90.5s",
            "preload": "off",
            "access_log": "-",
            "bind": "unix:/run/a.sock",
        },
        {"trusted_proxies": "private,192.0.2.1", "max_requests": 100},
    ],
)
def test_gunicorn_takes_every_setting(stated: dict[str, Any]) -> None:
    config = new_config()
    for name, value in gunicorn_settings(plan(**stated)).items():
        config.set(name, value)
    config.validate()
    # With threads it is the heartbeat; sync has nothing else that ends a request.
    assert config.timeout == (91 if "worker_class" in stated else 20)


def test_gunicorns_own_timeout_can_be_stated() -> None:
    import dataclasses

    made = dataclasses.replace(plan(timeout="5m"), gunicorn={"timeout": SourcedValue(7, "test")})
    assert gunicorn_settings(made)["timeout"] == 7


@pytest.mark.parametrize(
    ("trusted", "allowed"),
    [("loopback", "127.0.0.0/8,::1/128"), ("*", "*"), ("none", ""), ("192.0.2.0/24", "192.0.2.0/24")],
)
def test_who_names_scheme_headers_has_gunicorn_read_them_from_the_same_peers(
    trusted: str, allowed: str
) -> None:
    import dataclasses

    headers = {"secure_scheme_headers": SourcedValue({"X-FORWARDED-SSL": "on"}, "test")}
    made = dataclasses.replace(plan(trusted_proxies=trusted), gunicorn=headers)
    settings = gunicorn_settings(made)
    assert settings["forwarded_allow_ips"] == allowed
    new_config().set("forwarded_allow_ips", allowed)
    assert gunicorn_settings(plan(trusted_proxies=trusted))["forwarded_allow_ips"] == ""
