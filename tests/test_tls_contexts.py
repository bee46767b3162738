"""Certificates: what they contain, which one a client gets, and how one is replaced while it serves."""

from __future__ import annotations

import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.config.gunicorn import new_config
from django_prodserve.tls.certificates import CertificateError, parse_der, read_certificate
from django_prodserve.tls.contexts import ENCRYPTED, KeyPairError, TLSContexts
from django_prodserve.tls.key_pairs import KeyPair, key_pairs

from .e2e.needs import need_program

EC = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
RSA = "-newkey rsa:2048 -nodes"


def make(folder: Path, name: str, words: str = EC, *, days: int = 2, names: str = "") -> KeyPair:
    """Make a certificate with this common name, and these alternative names."""
    pair = KeyPair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    more = ["-addext", f"subjectAltName={names}"] if names else []
    command = [need_program("openssl"), "req", "-x509", *words.split(), "-subj", f"/O=Shop/CN={name}", *more]
    files = ["-days", str(days), "-keyout", str(pair.keyfile), "-out", pair.certfile]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return pair


def contexts(*pairs: KeyPair, **settings: Any) -> TLSContexts:
    config = new_config()
    for name, value in settings.items():
        config.set(name, value)
    return TLSContexts.make(config, pairs)


def move(data: ssl.MemoryBIO, to: ssl.MemoryBIO) -> None:
    to.write(data.read())


def seen(made: TLSContexts, host: str | None, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
    """Return a client that has done a handshake, and has read what the server sent behind it."""
    client_context = seen.__dict__.setdefault("context", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    back_in, back_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host, session=session)
    server = made.wrap(back_in, back_out)
    open_ends = [client, server]
    for _ in range(6):
        for end in [*open_ends]:
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                pass
            move(to_server, back_in)
            move(back_out, to_client)
    assert not open_ends
    server.write(b"x")
    move(back_out, to_client)
    assert client.read(1) == b"x"
    return client


def der(pair: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(pair.certfile).read_text())


def test_a_certificate_shows_its_names_and_its_time(tmp_path: Path) -> None:
    now = time.time()
    names = "DNS:Shop.Example,DNS:*.shop.example,IP:192.0.2.1,IP:2001:db8::1,email:a@b.example"
    found = read_certificate(make(tmp_path, "shop", names=names).certfile)
    assert found.names == ("shop.example", "*.shop.example", "192.0.2.1", "2001:db8::1")
    assert abs(found.starts - now) < 120
    assert found.expires - found.starts == 2 * 86400
    late = read_certificate(make(tmp_path, "late", RSA, days=20_000).certfile)  # beyond 2049: another form
    assert late.expires - late.starts == 20_000 * 86400
    assert late.names == ("late",)
    assert late.key_type != found.key_type


def test_every_damage_of_a_certificate_is_found(tmp_path: Path) -> None:
    whole = der(make(tmp_path, "shop", names="DNS:shop.example"))
    for size in range(0, len(whole), 7):
        with pytest.raises((ValueError, IndexError)):
            parse_der(whole[:size])
    for text, why in {
        "": "it is not in PEM format",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----": "its certificate cannot be read",
    }.items():
        (tmp_path / "bad.pem").write_text(text)
        with pytest.raises(CertificateError, match=why):
            read_certificate(str(tmp_path / "bad.pem"))


def test_the_certificate_is_that_of_the_host(tmp_path: Path) -> None:
    first = make(tmp_path, "first", names="DNS:a.example,DNS:both.example")
    second = make(tmp_path, "second", RSA, names="DNS:b.example,DNS:*.b.example,DNS:both.example")
    made = contexts(first, second)
    hosts = {
        "b.example": second,
        "B.Example.": second,
        "x.b.example": second,
        "y.x.b.example": first,
        "example": first,
        "both.example": first,
        "unknown.example": first,
        None: first,
    }
    for host, expected in hosts.items():
        assert seen(made, host).getpeercert(True) == der(expected), host


def test_a_renewed_certificate_keeps_the_sessions(tmp_path: Path) -> None:
    pair = make(tmp_path, "shop")
    made = contexts(pair)
    client = seen(made, "shop.example")
    before = der(pair)
    make(tmp_path, "shop")
    made.renew(0)
    assert seen(made, "shop.example", client.session).session_reused
    assert seen(made, "shop.example").getpeercert(True) == der(pair) != before


def test_a_key_of_another_kind_replaces_the_old_one(tmp_path: Path) -> None:
    """In one context, OpenSSL would keep a certificate for each kind of key."""
    other, pair = make(tmp_path, "other"), make(tmp_path, "shop", RSA)
    made = contexts(pair, other)
    make(tmp_path, "shop")
    made.renew(0)
    assert seen(made, "shop.example").getpeercert(True) == der(pair)
    assert seen(made, "other").getpeercert(True) == der(other)  # the new context chooses, too


def test_a_pair_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    pair, other = make(tmp_path, "shop"), make(tmp_path, "other")
    made = contexts(pair)
    served = der(pair)
    Path(pair.certfile).write_bytes(Path(other.certfile).read_bytes())
    with pytest.raises(KeyPairError, match="the key does not belong to the certificate") as failed:
        made.renew(0)
    assert failed.value.pair == pair
    assert seen(made, "shop.example").getpeercert(True) == served
    Path(str(pair.keyfile)).unlink()
    with pytest.raises(KeyPairError, match="No such file"):
        made.renew(0)
    assert seen(made, "shop.example").getpeercert(True) == served


def test_a_key_with_a_password_is_refused_without_a_question(tmp_path: Path) -> None:
    words = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -passout pass:secret"
    with pytest.raises(KeyPairError, match=ENCRYPTED):
        contexts(make(tmp_path, "shop", words))


def test_gunicorns_hook_is_called_for_each_pair(tmp_path: Path) -> None:
    calls = []

    def hook(config: Any, default: Any) -> ssl.SSLContext:
        calls.append(default())
        calls[-1].minimum_version = ssl.TLSVersion.TLSv1_3
        return calls[-1]  # type: ignore[no-any-return]

    made = contexts(make(tmp_path, "a"), make(tmp_path, "b"), ssl_context=hook)
    assert len(calls) == 2
    assert seen(made, "a").version() == "TLSv1.3"
    assert all(context.options & ssl.OP_NO_RENEGOTIATION for context in calls)

    def broken(config: Any, default: Any) -> Any:
        raise RuntimeError("no secret")

    with pytest.raises(KeyPairError, match="the hook ssl_context raised RuntimeError: no secret"):
        contexts(made.pairs[0], ssl_context=broken)
    with pytest.raises(KeyPairError, match="the hook ssl_context returned None and no SSLContext"):
        contexts(made.pairs[0], ssl_context=lambda config, default: None)


def test_pairs_belong_together_in_their_order() -> None:
    assert key_pairs(["a", "b"], ["c", "d"]) == (KeyPair("a", "c"), KeyPair("b", "d"))
    assert key_pairs(["a"], []) == (KeyPair("a"),)
    assert [str(pair) for pair in (KeyPair("a", "b"), KeyPair("a"))] == ["a and b", "a"]
