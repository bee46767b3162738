"""Make certificates with openssl, and ask a server which one it serves."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from .e2e.needs import need_program

PATIENCE = 30.0


class Made(NamedTuple):
    """A certificate and its key, as text."""

    certificate: str
    key: str


def make(folder: Path, name: str = "shop.example", days: int = 90) -> Made:
    """Make a certificate for a name that signs itself; the files are left in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days)]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:localhost"]
    command = [need_program("openssl"), "req", "-x509", *kind, *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return Made((folder / "cert.pem").read_text(), (folder / "key.pem").read_text())


def ending(certificate: str, expires: float) -> str:
    """Return this certificate with another end. Its signature is wrong then, which no server checks."""
    data = ssl.PEM_cert_to_DER_cert(certificate)
    at = data.index(b"\x30\x1e\x17\x0d")  # the validity: two times in UTC
    end = time.strftime("%y%m%d%H%M%SZ", time.gmtime(expires)).encode()
    changed = data[: at + 19] + end + data[at + 32 :]
    body = base64.encodebytes(changed).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"


def served(port: int) -> str:
    """Return the certificate that a new connection gets, in the form of ``Made.certificate``."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)


def connected(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Return a connection over TLS; the certificate is not verified."""
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def client_context() -> ssl.SSLContext:
    """Return the settings of a client that takes any certificate, and whose tickets come in the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
