"""Files, logs and users that options name: all that is wrong with them is listed at once."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.config.gunicorn import new_config
from django_prodserve.config.options import SourcedValue
from django_prodserve.errors import CODES, UsageError
from django_prodserve.startup.files import check_files
from django_prodserve.tls.contexts import ENCRYPTED
from django_prodserve.utils.fork import run_in_fork

from .e2e.needs import need_program
from .facts import plan
from .test_tls_contexts import RSA, make


def refused(gunicorn: dict[str, Any] | None = None, **stated: Any) -> list[tuple[str, str]]:
    """Return message and fix of everything that cannot be used."""
    settings = {name: SourcedValue(value, name) for name, value in (gunicorn or {}).items()}
    try:
        check_files(replace(plan(**stated), gunicorn=settings))
    except UsageError as error:
        return [(problem.message, problem.fix) for problem in error.problems if problem.code in CODES]
    return []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the paths of a certificate and its key."""
    need_program("openssl")
    place = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k.pem -out c.pem"
    subprocess.run(["openssl", *words.split(), "-subj", "/CN=x"], cwd=place, check=True, capture_output=True)
    return str(place / "c.pem"), str(place / "k.pem")


def test_what_can_be_used_passes(pair: tuple[str, str], tmp_path: Path) -> None:
    settings = {"ciphers": "ECDHE+AESGCM", "ca_certs": pair[0], "errorlog": str(tmp_path / "log")}
    assert (
        refused(settings, certfile=(pair[0],), keyfile=(pair[1],), access_log=str(tmp_path / "access")) == []
    )
    assert refused({"logconfig_dict": {"version": 1}, "user": os.geteuid(), "errorlog": "-"}) == []


def test_everything_that_is_wrong_is_listed() -> None:
    found = refused(
        {"errorlog": "/nowhere/e"}, certfile=("/nowhere/c",), keyfile=("/nowhere/k",), access_log="/nowhere/a"
    )
    assert [message.partition(": ")[0] for message, _ in found] == [
        "test /nowhere/c cannot be read",
        "test /nowhere/k cannot be read",
        "test /nowhere/a cannot be written",
        "errorlog /nowhere/e cannot be written",
    ]
    assert all(fix for _, fix in found)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ciphers": "NOPE"}, "ciphers NOPE cannot be used for TLS: No cipher can be selected."),
        ({"ca_certs": __file__}, "cannot be used for TLS: NO_CERTIFICATE_OR_CRL_FOUND."),
    ],
)
def test_what_every_handshake_would_fail_on_is_refused(
    pair: tuple[str, str], settings: dict[str, Any], words: str
) -> None:
    ((message, fix),) = refused(settings, certfile=(pair[0],), keyfile=(pair[1],))
    assert words in message
    assert fix.startswith("Correct ")


def test_a_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    ((message, _),) = refused(certfile=(__file__,))
    assert message == f"{__file__} cannot be used for TLS: it is not in PEM format."


def test_each_pair_is_tried(pair: tuple[str, str], tmp_path: Path) -> None:
    other = make(tmp_path, "other", RSA)
    locked = make(tmp_path, "locked", "-newkey rsa:2048 -passout pass:secret")
    found = refused(
        certfile=(pair[0], other.certfile, locked.certfile), keyfile=(pair[1], pair[1], locked.keyfile)
    )
    assert [message for message, _ in found] == [
        f"{other.certfile} and {pair[1]} cannot be used for TLS: the key does not belong to the certificate.",
        f"{locked.certfile} and {locked.keyfile} cannot be used for TLS: {ENCRYPTED}.",
    ]
    assert found[1][1] == f"Store it without a password: openssl pkey -in {locked.keyfile} -out key.pem"


def test_client_certificates_need_issuers(pair: tuple[str, str]) -> None:
    stated = {"certfile": (pair[0],), "keyfile": (pair[1],)}
    ((message, _),) = refused({"cert_reqs": 2}, **stated)
    assert message == "cert_reqs asks for client certificates, but no issuer is trusted: all are refused."
    assert refused({"cert_reqs": 2, "ca_certs": pair[0]}, **stated) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"logconfig": __file__}, "logconfig cannot be used: "),
        (
            {"logconfig_dict": {"version": 1, "handlers": {"a": {"class": "no.Such"}}}},
            "logconfig_dict cannot be used: Unable to configure handler 'a'",
        ),
        ({"syslog": True, "syslog_addr": "udp://a:b"}, "syslog and syslog_addr cannot be used: 'b' is not"),
    ],
)
def test_what_gunicorns_logger_refuses_is_said_with_its_setting(settings: dict[str, Any], words: str) -> None:
    ((message, fix),) = refused(settings)
    assert words in message
    assert fix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user for the test")
def test_only_root_may_start_workers_as_another_user() -> None:
    def as_nobody() -> list[tuple[str, str]]:
        os.setuid(65534)
        return refused({"user": 0})

    assert refused({"user": 65534}) == []
    new_config()  # nobody may not be able to read Gunicorn
    ((message, fix),) = run_in_fork(as_nobody)
    assert message.startswith("user 0 cannot be used: only root may start workers as another user")
    assert "User= in systemd" in fix
