"""Frames of websockets (RFC 6455): bytes of a client to messages, and messages to frames. Pure.

Lives in a worker, in the asyncio loop's thread. The reader is strict: what the RFC forbids ends the
connection with the close code that it names. A large message is unmasked as it arrives, in pieces of one
read, so that no message delays the loop.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from struct import Struct
from typing import Any

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA
DATA, CONTROL = frozenset((CONTINUATION, TEXT, BINARY)), frozenset((CLOSE, PING, PONG))
FIN, MASKED, RESERVED, OPCODE, LENGTH = 0x80, 0x80, 0x70, 0x0F, 0x7F

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, ABNORMAL = 1000, 1001, 1002, 1005, 1006
INVALID_DATA, TOO_BIG, INTERNAL_ERROR, SERVICE_RESTART = 1007, 1009, 1011, 1012
UNSENDABLE = frozenset((1004, NO_CODE, ABNORMAL))
"""Codes below 1015 that mean a missing close frame: so no frame has them."""

MAX_CONTROL_BYTES = 125
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2
MAX_MESSAGE_BYTES = 2**24
"""Maximum bytes of a client's message, as in uvicorn and Gunicorn: 16 MiB."""
KEY_BYTES = 4
SHORT, LONG, CODE = Struct("!BBH"), Struct("!BBQ"), Struct("!H")

Frame = tuple[int, Any]
"""TEXT with a str; BINARY, PING and PONG with bytes; CLOSE with a code and a reason."""


class FrameError(Exception):
    """A client has violated the protocol; the connection ends with this close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class FrameReader:
    """Reads the frames of one client; returns whole messages and control frames."""

    __slots__ = (
        *("_at", "_buffer", "_decoder", "_ends", "_key", "_left"),
        *("_limit", "_message", "_opcode"),
    )

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = limit
        self._buffer, self._at = b"", 0
        self._opcode = CONTINUATION
        """Of the message that has begun; CONTINUATION between two messages."""
        self._message = bytearray()
        self._left, self._key, self._ends = 0, b"", False
        """Bytes of a data frame that have not arrived, its key, and whether it is its message's last."""
        self._decoder: codecs.IncrementalDecoder | None = None
        """Checks the text of a message that arrives in pieces."""

    @property
    def has_bytes(self) -> bool:
        """Return whether bytes wait to be read."""
        return self._at < len(self._buffer)

    @property
    def missing(self) -> int:
        """Return how many bytes of a message are known to follow."""
        return self._left

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        rest = self._buffer[self._at :] if self._at < len(self._buffer) else b""
        self._buffer, self._at = rest + data if rest else data, 0

    def read(self) -> Frame | None:
        """Return the next message or control frame; None if it has not arrived. Raise FrameError."""
        while True:
            if self._left:
                if self._at == len(self._buffer):
                    return None
                self._take(min(self._left, len(self._buffer) - self._at))
                if self._left:
                    return None
                if self._ends:
                    return self._complete()
            buffer, at = self._buffer, self._at
            have = len(buffer) - at
            if have < 2:
                return None
            first, second = buffer[at], buffer[at + 1]
            length = second & LENGTH
            head = 2 + KEY_BYTES + (0 if length < 126 else 2 if length == 126 else 8)
            self._check(first, second)
            if have < head:
                return None
            if length > 125:
                length = _long_length(buffer, at, length)
            opcode = first & OPCODE
            start = at + head
            if opcode in CONTROL:
                if have < head + length:
                    return None
                self._at = start + length
                payload = unmask(buffer[start : self._at], buffer[start - KEY_BYTES : start])
                return opcode, _close(payload) if opcode == CLOSE else payload
            if len(self._message) + length > self._limit:
                raise FrameError(TOO_BIG, f"a message has more than {self._limit} bytes")
            is_last = first >= FIN
            if is_last and opcode != CONTINUATION and have >= head + length:  # the usual case
                self._at = start + length
                payload = unmask(buffer[start : self._at], buffer[start - KEY_BYTES : start])
                return opcode, _text(payload) if opcode == TEXT else payload
            if opcode != CONTINUATION:
                self._opcode = opcode
                self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
            self._at, self._left, self._ends = start, length, is_last
            self._key = buffer[start - KEY_BYTES : start]
            if not length and is_last:
                return self._complete()

    def _check(self, first: int, second: int) -> None:
        """Raise FrameError if no frame may begin like this here."""
        opcode = first & OPCODE
        if first & RESERVED:
            raise FrameError(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        if not second & MASKED:
            raise FrameError(PROTOCOL_ERROR, "a frame of a client is not masked")
        if opcode in CONTROL:
            if not first & FIN:
                raise FrameError(PROTOCOL_ERROR, "a control frame is fragmented")
            if second & LENGTH > MAX_CONTROL_BYTES:
                raise FrameError(PROTOCOL_ERROR, "a control frame has more than 125 bytes")
        elif opcode not in DATA:
            raise FrameError(PROTOCOL_ERROR, f"opcode {opcode} is reserved")
        elif (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            words = "continues no message" if opcode == CONTINUATION else "begins inside another message"
            raise FrameError(PROTOCOL_ERROR, f"a frame {words}")

    def _take(self, size: int) -> None:
        """Add so many bytes of the buffer to the message."""
        part = unmask(self._buffer[self._at : self._at + size], self._key)
        self._at += size
        self._left -= size
        if turn := size % KEY_BYTES:
            self._key = self._key[turn:] + self._key[:turn]
        self._validate(part, final=False)
        self._message += part

    def _validate(self, part: bytes, *, final: bool) -> None:
        if self._decoder is not None:
            try:
                self._decoder.decode(part, final)
            except UnicodeDecodeError:
                raise FrameError(INVALID_DATA, "a text is not UTF-8") from None

    def _complete(self) -> Frame:
        self._validate(b"", final=True)
        opcode, message = self._opcode, self._message
        self._opcode, self._message, self._decoder, self._ends = CONTINUATION, bytearray(), None, False
        return opcode, message.decode() if opcode == TEXT else bytes(message)


def xor(payload: bytes, key: bytes) -> bytes:
    """Return the bytes XOR the key, which masks just as it unmasks: 4 KiB in 9 us, as one large number."""
    size = len(payload)
    keys = key * (size // KEY_BYTES + 1)
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(keys[:size], "little")
    return mixed.to_bytes(size, "little")


def _best() -> Callable[[bytes, bytes], bytes]:
    """Return the same in C, 14 times as quick, if the extra "websockets" is installed."""
    with suppress(ImportError):
        found: Callable[[bytes, bytes], bytes] = import_module("websockets.speedups").apply_mask
        return found
    return xor


unmask = _best()


def frame_head(opcode: int, size: int) -> bytes:
    """Return the head of a frame to a client, with so many bytes behind it."""
    if size < 126:
        return bytes((FIN | opcode, size))
    if size < 2**16:
        return SHORT.pack(FIN | opcode, 126, size)
    return LONG.pack(FIN | opcode, 127, size)


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; a reason that is too long is shortened, and one without a code is left out."""
    payload = b"" if code == NO_CODE else CODE.pack(code) + _cut(reason).encode()
    return frame_head(CLOSE, len(payload)) + payload


def is_sendable(code: int) -> bool:
    """Return whether a close frame may carry this code."""
    return (1000 <= code < 1015 and code not in UNSENDABLE) or 3000 <= code < 5000


def _cut(reason: str) -> str:
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def _long_length(buffer: bytes, at: int, kind: int) -> int:
    """Return a length that is written in 2 or 8 bytes, as few as possible."""
    width = 2 if kind == 126 else 8
    length = int.from_bytes(buffer[at + 2 : at + 2 + width], "big")
    if length < (126 if width == 2 else 2**16) or length >= 2**63:
        raise FrameError(PROTOCOL_ERROR, "the length of a frame is not written as the protocol has it")
    return length


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "a text is not UTF-8") from None


def _close(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame."""
    if not payload:
        return NO_CODE, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame has half a code")
    code: int = CODE.unpack_from(payload)[0]
    if not is_sendable(code):
        raise FrameError(PROTOCOL_ERROR, f"a close frame has the code {code}")
    return code, _text(payload[2:])
