"""What a certificate file contains: for which names, from when, until when, and the kind of its key.

Python's ssl module shows this of a peer's certificate alone, and only if it trusts the peer. So this module
reads the few fields itself, out of the DER form of X.509 (RFC 5280 4.1). It checks no signature.
"""

from __future__ import annotations

import calendar
import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

PEM_BEGIN, PEM_END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
SEQUENCE, OCTETS, IDENTIFIER, UTC_TIME, GENERALIZED_TIME = 0x30, 0x04, 0x06, 0x17, 0x18
VERSION, EXTENSIONS = 0xA0, 0xA3
DNS_NAME, IP_ADDRESS = 0x82, 0x87
COMMON_NAME, ALTERNATIVE_NAMES = bytes.fromhex("550403"), bytes.fromhex("551d11")
"""2.5.4.3 and 2.5.29.17."""
TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
"""The kinds of strings in a name, with their encodings."""


class CertificateError(ValueError):
    """A file does not hold a certificate; the text is the reason, as part of a sentence."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The first certificate of a file."""

    names: tuple[str, ...]
    """DNS names, in lower case, some with ``*.`` before them, and IP addresses."""
    starts: float
    """From when it is valid, as Unix time."""
    expires: float
    """Until when it is valid."""
    key_type: bytes
    """The algorithm of its key, as the identifier in the certificate."""


def read_certificate(path: str) -> Certificate:
    """Return the first certificate of a PEM file: the server's own, before those of its issuers."""
    with open(path, "rb") as file:
        return parse_pem(file.read())


def parse_pem(data: bytes) -> Certificate:
    """Return the first certificate in this text."""
    text = data.decode("latin-1")
    start = text.find(PEM_BEGIN)
    end = text.find(PEM_END, start)
    if start < 0 or end < 0:
        raise CertificateError("it is not in PEM format")
    try:
        return parse_der(ssl.PEM_cert_to_DER_cert(text[start : end + len(PEM_END)]))
    except (IndexError, ValueError, OverflowError):
        raise CertificateError("its certificate cannot be read") from None


def parse_der(data: bytes) -> Certificate:
    """Return the certificate of these bytes; any ValueError or IndexError means that there is none."""
    ((_, signed),) = _fields(data)
    (_, body), *_ = _fields(signed)
    fields = [(kind, content) for kind, content in _fields(body) if kind != VERSION]
    # Serial number, signature, issuer, validity, subject, public key; then optional fields.
    validity, subject, key = (content for _, content in fields[3:6])
    starts, expires = (_unix_time(kind, content) for kind, content in _fields(validity))
    (_, algorithm), *_ = _fields(key)
    (_, key_type), *_ = _fields(algorithm)
    names = [*_alternative_names(fields[6:])] or [*_common_names(subject)]
    return Certificate(names=tuple(names), starts=starts, expires=expires, key_type=key_type)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each value in these bytes."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("a value is longer than what holds it")
        yield tag, data[at : at + size]
        at += size


def _unix_time(kind: int, content: bytes) -> float:
    text = content.decode("ascii")
    if kind == UTC_TIME:  # two digits: from 50 on they mean 19xx (RFC 5280 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _alternative_names(fields: list[tuple[int, bytes]]) -> Iterator[str]:
    """Yield the subject alternative names: those that clients look at."""
    for tag, content in fields:
        if tag != EXTENSIONS:
            continue
        ((_, extensions),) = _fields(content)
        for _, extension in _fields(extensions):
            (_, identifier), *_, (_, value) = _fields(extension)
            if identifier == ALTERNATIVE_NAMES:
                ((_, names),) = _fields(value)
                yield from filter(None, (_name(kind, name) for kind, name in _fields(names)))


def _name(kind: int, content: bytes) -> str:
    if kind == DNS_NAME:
        return content.decode("ascii").lower().rstrip(".")
    return str(ipaddress.ip_address(content)) if kind == IP_ADDRESS else ""


def _common_names(subject: bytes) -> Iterator[str]:
    """Yield the common name of a certificate without alternative names."""
    for _, group in _fields(subject):
        for _, attribute in _fields(group):
            (_, identifier), (kind, value) = _fields(attribute)
            if identifier == COMMON_NAME and kind in TEXT:
                yield value.decode(TEXT[kind]).lower().rstrip(".")
