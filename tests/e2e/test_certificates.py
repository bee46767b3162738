"""Certificates are renewed without a reload, and a server says when one ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.arbiter.certificate_watch import LOOK_SECONDS

from ..certificates import client_context, connected, ending, make, served
from .management import MANAGEMENT, ask
from .serving import Server, run, serving, until

DAY = 86400.0


class Live:
    """The directory of certbot: links to the files of the newest certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.flags = (f"--certfile={folder}/live/fullchain.pem", f"--keyfile={folder}/live/privkey.pem")
        (folder / "live").mkdir(parents=True)
        self.link(self.renew())

    def renew(self, days: int = 90) -> Path:
        """Write a new certificate and its key next to the old ones; nothing links to them."""
        self.number += 1
        place = self.folder / f"archive{self.number}"
        make(place, f"shop{self.number}.example", days)
        (place / "key.pem").chmod(0o600)
        return place

    def link(self, place: Path, names: Sequence[str] = ("fullchain", "privkey")) -> None:
        """Make links lead to these files, as certbot does."""
        for name in names:
            link, new = self.folder / "live" / f"{name}.pem", self.folder / "live" / "new"
            new.symlink_to(place / {"fullchain": "cert.pem", "privkey": "key.pem"}[name])
            new.replace(link)

    @property
    def certificate(self) -> str:
        return (self.folder / "live" / "fullchain.pem").read_text()


def everywhere(server: Server, certificate: str, times: int = 12) -> Callable[[], bool]:
    """Return whether each of some new connections gets this certificate: they reach all workers."""
    return lambda: all(served(server.port).split() == certificate.split() for _ in range(times))


def in_all_workers(server: Server, certificate: str) -> bool:
    """Return whether each worker serves this certificate; the open connections make the other one accept."""
    context, left = client_context(), set(server.workers())
    wanted = ssl.PEM_cert_to_DER_cert(certificate)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(connected(server.port, context))
            if client.getpeercert(binary_form=True) != wanted:
                return False
            left.discard(pid_of(client))
            if not left:
                return True
    return False


def pid_of(client: ssl.SSLSocket) -> int:
    """Ask for the pid of the worker at the other end."""
    client.sendall(b"GET /whoami/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
    found = b""
    while not (match := re.search(rb'"pid": (\d+)', found)) or not found.endswith(b"}"):
        piece = client.recv(65536)
        assert piece, found
        found += piece
    return int(match[1])


def kinds(server: Server) -> list[str]:
    """Return the kinds of the present findings on certificates."""
    found = ask(server, "/status.json").json()["findings"]
    return [one["kind"] for one in found if one["kind"].startswith("certificate")]


@pytest.mark.slow
def test_a_renewed_certificate_is_taken_over_without_a_reload(env: Any, tmp_path: Path) -> None:
    live = Live(tmp_path)
    with serving(*live.flags, *MANAGEMENT, "--workers", "2", env=env()) as server:
        pids, context = set(server.workers(2)), client_context()
        assert in_all_workers(server, live.certificate)
        kept = connected(server.port, context)
        worker, session = pid_of(kept), kept.session
        # The two files are written apart: a certificate without its key is not served.
        old, place = live.certificate, live.renew()
        live.link(place, ["fullchain"])
        looks = time.monotonic() + 3 * LOOK_SECONDS
        while time.monotonic() < looks:
            assert served(server.port).split() == old.split()
        live.link(place, ["privkey"])
        server.wait_for("The certificate of shop2.example is renewed: it expires on ")
        until(lambda: in_all_workers(server, live.certificate))
        # No process is new, the connection lives, and its session is resumed.
        assert set(server.workers()) == pids
        assert pid_of(kept) == worker
        kept.close()
        with connected(server.port, context, session) as again:
            assert again.session_reused
        assert "not used" not in server.output
        # It is shown everywhere.
        known = ask(server, "/status.json").json()
        (shown,) = known["certificates"]
        expires = ssl.cert_time_to_seconds(end_of(live.certificate))
        assert (shown["names"], shown["expires"]) == (["shop2.example", "localhost"], expires)
        assert shown["file"] == f"{tmp_path}/live/fullchain.pem"[-100:]
        assert known["events"][-1]["kind"] == "certificate renewed"
        assert kinds(server) == []
        labels = f'certificate="shop2.example",file="{shown["file"]}"'
        metrics = ask(server, "/metrics").text
        assert f"prodserve_tls_certificate_expires_seconds{{{labels}}} {float(expires)!r}\n" in metrics
        told = run("-m", "django_prodserve", "status", "--bind", str(server.port), env=env())
        assert re.search(r"^tls +shop2\.example expires on 20\d\d-\d\d-\d\d, in \d+ days$", told.stdout, re.M)
        # New workers have it, too.
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(set(server.workers(2)) - pids) == 1)
        until(lambda: in_all_workers(server, live.certificate))


def end_of(certificate: str) -> str:
    """Return the end of a certificate in the words of the module ssl."""
    from django_prodserve.tls.certificates import parse_pem

    return time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(parse_pem(certificate.encode()).expires))


@pytest.mark.slow
def test_a_pair_that_does_not_fit_is_one_warning_until_it_is_mended(env: Any, tmp_path: Path) -> None:
    live = Live(tmp_path)
    with serving(*live.flags, *MANAGEMENT, "--workers", "2", env=env()) as server:
        old, first, second = live.certificate, live.renew(), live.renew()
        live.link(first, ["fullchain"])
        live.link(second, ["privkey"])
        server.wait_for("the key does not belong to the certificate. The old certificate serves")
        assert everywhere(server, old)()
        until(lambda: kinds(server) == ["certificate refused"])
        live.link(second)
        server.wait_for("The certificate of shop3.example is renewed")
        until(everywhere(server, live.certificate))
        until(lambda: kinds(server) == [])
        assert server.output.count("are not used") == 1


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
def test_workers_that_may_not_read_the_key_get_the_renewed_one(env: Any, tmp_path: Path) -> None:
    live = Live(tmp_path / "secret")
    live.folder.chmod(0o700)
    settings = {"PRODSERVE": {"GUNICORN": {"user": "nobody"}}}
    with contextlib.ExitStack() as stack:
        for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own are closed to others
            stack.callback(folder.chmod, folder.stat().st_mode & 0o7777)
            folder.chmod(0o755)
        with serving(*live.flags, "--workers", "2", env=env(**settings)) as server:
            pids = set(server.workers(2))
            assert all(os.stat(f"/proc/{pid}").st_uid != 0 for pid in pids)
            live.link(live.renew())
            server.wait_for("The certificate of shop2.example is renewed")
            until(lambda: in_all_workers(server, live.certificate))
            assert set(server.workers()) == pids


def test_a_certificate_that_ends_is_said(env: Any, tmp_path: Path) -> None:
    made = make(tmp_path / "made")
    place = tmp_path / "cert.pem"
    place.write_text(ending(made.certificate, time.time() - 3 * DAY))
    flags = (f"--certfile={place}", f"--keyfile={tmp_path}/made/key.pem", "--workers", "1")
    with serving(*flags, *MANAGEMENT, env=env()) as server:
        until(lambda: bool(ask(server, "/status.json").json()["certificates"]))
        assert re.search(
            rf"^warning: The certificate of shop\.example \({place}\) expired on \S+, 3 days ago: clients "
            r"refuse this site\. \(prodserve\.W029\)$",
            server.output,
            re.MULTILINE,
        )
        until(lambda: kinds(server) == ["certificate expires"])
        ended = run("-m", "django_prodserve", "status", "--bind", str(server.port), env=env())
        assert ended.returncode == 1
        assert "3 days ago: clients refuse this site" in ended.stdout
        place.write_text(made.certificate)
        server.wait_for("The certificate of shop.example is renewed")
        until(lambda: kinds(server) == [])
