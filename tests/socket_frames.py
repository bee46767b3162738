"""The frames of a client of websockets, byte by byte: also those that no library sends."""

from __future__ import annotations

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = bytes((0x1F, 0x00, 0xA5, 0xFF))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    last: bool = True,
    key: bytes = KEY,
    reserved: int = 0,
    width: int = 0,
    masked: bool = True,
) -> bytes:
    """Return a frame; ``width`` writes its length in so many bytes, by default in as few as possible."""
    size = len(payload)
    width = width or (1 if size < 126 else 2 if size < 2**16 else 8)
    second = size if width == 1 else 126 if width == 2 else 127
    more = b"" if width == 1 else size.to_bytes(width, "big")
    head = bytes((last << 7 | reserved | opcode, masked << 7 | second)) + more
    if not masked:
        return head + payload
    if any(key):
        payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return head + key + payload


def close(code: int, reason: str = "") -> bytes:
    """Return a close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())
