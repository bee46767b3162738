"""Content-Length, Transfer-Encoding, chunks."""

from __future__ import annotations

from ..raw import NOTHING, Case
from .making import (
    HOST,
    SMUGGLED,
    chunked,
    either,
    get,
    head,
    ok,
    post,
    raw_chunks,
    refused,
    unfinished,
    whole,
)

CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
HELLO = b"5\r\nhello\r\n"
LARGE = bytes(range(256)) * 1200  # 300 KiB
NO_LENGTH = "a length that no body has"
UNDECODED = "a coding that is not undone must not reach the application without a sign"
HUGE_ANSWERS = frozenset({NOTHING, 400, 408, 413})


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def coding(value: bytes, body: bytes = HELLO + END) -> bytes:
    return post(b"Transfer-Encoding: " + value, body=body)


LENGTHS = [
    whole("a body", length(b"5"), b"hello"),
    whole("an empty body", length(b"0", b""), b""),
    whole("a large body", length(b"%d" % len(LARGE), LARGE), LARGE),
    whole("a body of CR LF", length(b"4", b"\r\n\r\n"), b"\r\n\r\n"),
    whole("a body that is a request", length(b"%d" % len(SMUGGLED), SMUGGLED), SMUGGLED),
    whole("spaces around a length", length(b" \t5\t "), b"hello"),
    either("a length with zeros first", length(b"0005"), 200, 400),
    *(
        refused(f"Content-Length: {value!r}", length(value))
        for value in (
            b"",
            b"+5",
            b"-5",
            b"-0",
            b"5.0",
            b"5e0",
            b"0x5",
            b"5_0",
            b"5 5",
            b"5,5",
            b"5, 5",
            b"5,6",
            b",5",
            b"5;",
            b"5;q=1",
            b'"5"',
            b"five",
            b"5a",
            b"5\x00",
            b"\xb2",
            b"\xbd",
            "\u0665".encode(),
            "\uff15".encode(),
            b"NaN",
            b"inf",
            b"9" * 5000,
        )
    ),
    refused("Content-Length twice", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello")),
    refused(
        "Content-Length twice, not the same", post(b"Content-Length: 5", b"Content-Length: 0", body=b"hello")
    ),
    refused(
        "Content-Length twice, other case", post(b"Content-Length: 0", b"content-length: 5", body=b"hello")
    ),
    refused("Content-Length twice on GET", get(b"Content-Length: 0", b"Content-Length: 0")),
    Case("a huge length", length(b"9" * 18), (HUGE_ANSWERS,), (), False, ends=True),
    refused("a length just beyond 63 bits", length(b"%d" % 2**63), beyond=NO_LENGTH),
    refused("a length beyond 64 bits", length(b"9" * 20), beyond=NO_LENGTH),
    refused("a length beyond all words", length(b"9" * 40), beyond=NO_LENGTH),
    refused("a length of 400 digits", length(b"9" * 400), beyond=NO_LENGTH),
    refused("a length of 400 zeros and 5", length(b"0" * 400 + b"5"), beyond=NO_LENGTH),
    unfinished("half a body", length(b"10")),
    unfinished("no body where one is announced", length(b"10", b"")),
    unfinished("half a large body", length(b"600000", LARGE)),
    ok("GET with a body", get(b"Content-Length: 5") + b"hello", length=5),
    ok("GET without", get(), length=0),
    ok("POST without", post(), length=0),
    ok(
        "DELETE with a body", head(b"DELETE /echo/ HTTP/1.1", HOST, b"Content-Length: 5") + b"hello", length=5
    ),
]

CODINGS = [
    *(
        whole(f"Transfer-Encoding: {value!r}", coding(value), b"hello")
        for value in (
            b"chunked",
            b"Chunked",
            b"CHUNKED",
            b"  chunked",
            b"chunked  ",
            b"\tchunked",
            b"chunked\t",
        )
    ),
    whole("TRANSFER-ENCODING", post(b"TRANSFER-ENCODING: chunked", body=HELLO + END), b"hello"),
    *(
        refused(f"Transfer-Encoding: {value!r}", coding(value))
        for value in (
            b"",
            b" ",
            b",",
            b"xchunked",
            b"chunkedx",
            b"x-chunked",
            b"chunke",
            b"chunked,",
            b",chunked",
            b"chunked, ",
            b"chunked;",
            b"chunked;q=1",
            b'"chunked"',
            b"'chunked'",
            b"chun ked",
            b"chunked chunked",
            b"chunked, chunked",
            b"chunked,chunked",
            b"chunked, identity",
            b"chunked, gzip",
            b"chunked, x",
            b"x, chunked",
            b"identity",
            b"gzip",
            b"deflate",
            b"compress",
            b"br",
            b"br, chunked",
            b"cow, chunked",
            b"trailers",
            b"\x0bchunked",
            b"chunked\x0b",
            b"\x0cchunked",
            b"chunked\x00",
            b"\xa0chunked",
            b"chunked\x85",
            "\uff43hunked".encode(),
            b"chun\xc4\xb1ked",
            b"\x00chunked",
            b"[chunked]",
        )
    ),
    *(
        refused(f"Transfer-Encoding: {value!r}", coding(value), beyond=UNDECODED)
        for value in (b"identity, chunked", b"gzip, chunked", b"deflate, chunked")
    ),
    refused("chunked in two fields", post(CHUNKED, CHUNKED, body=HELLO + END)),
    refused("chunked, then identity", post(CHUNKED, b"Transfer-Encoding: identity", body=HELLO + END)),
    refused("chunked, then an unknown one", post(CHUNKED, b"Transfer-Encoding: x", body=HELLO + END)),
    refused(
        "gzip in one field, chunked in another",
        post(b"Transfer-Encoding: gzip", CHUNKED, body=HELLO + END),
        beyond=UNDECODED,
    ),
    refused("an unknown one, then chunked", post(b"Transfer-Encoding: x", CHUNKED, body=HELLO + END)),
    refused("chunked, then an empty one", post(CHUNKED, b"Transfer-Encoding:", body=HELLO + END)),
    refused("a space before the colon", post(b"Transfer-Encoding : chunked", body=HELLO + END)),
    refused("a folded field", post(b"Transfer-Encoding:\r\n chunked", body=HELLO + END)),
    refused("HTTP/1.0", head(b"POST /echo/ HTTP/1.0", HOST, CHUNKED) + HELLO + END),
    refused(
        "HTTP/1.0 with keep-alive",
        head(b"POST /echo/ HTTP/1.0", HOST, CHUNKED, b"Connection: keep-alive") + HELLO + END,
    ),
    refused("Content-Length first", post(b"Content-Length: 5", CHUNKED, body=HELLO + END)),
    refused("Content-Length after", post(CHUNKED, b"Content-Length: 5", body=HELLO + END)),
    refused("Content-Length: 0", post(CHUNKED, b"Content-Length: 0", body=HELLO + END)),
    refused(
        "Content-Length and identity",
        post(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"hello"),
    ),
    refused("Content-Length and gzip", post(b"Transfer-Encoding: gzip", b"Content-Length: 5", body=b"hello")),
    refused("Content-Length that hides a request", post(b"Content-Length: 5", CHUNKED, body=END + SMUGGLED)),
    refused(
        "a length that is short for the chunks", post(b"Content-Length: 3", CHUNKED, body=END + SMUGGLED)
    ),
    ok("a GET of chunks", get(CHUNKED) + HELLO + END, length=5, headers={"CONTENT_LENGTH": "5"}),
]

CHUNKS = [
    whole("one chunk", chunked(b"hello"), b"hello"),
    whole("no chunk", chunked(), b""),
    whole("many chunks", chunked(*[b"a"] * 500), b"a" * 500),
    whole("a large chunk", chunked(LARGE), LARGE),
    whole(
        "chunks of all sizes",
        chunked(*(LARGE[:size] for size in (1, 2, 15, 16, 17, 4095, 4096, 4097, 9000))),
        b"".join(LARGE[:size] for size in (1, 2, 15, 16, 17, 4095, 4096, 4097, 9000)),
    ),
    whole("a chunk of CR LF", chunked(b"\r\n", b"0\r\n\r\n"), b"\r\n0\r\n\r\n"),
    whole("a chunk that is a request", chunked(SMUGGLED), SMUGGLED),
    whole("a size with zeros first", raw_chunks(b"0000005\r\nhello\r\n" + END), b"hello"),
    whole("a size in capitals", raw_chunks(b"A\r\n0123456789\r\n" + END), b"0123456789"),
    whole("a last size of zeros", raw_chunks(HELLO + b"000\r\n\r\n"), b"hello"),
    *(
        whole(f"extension {extension!r}", raw_chunks(b"5" + extension + b"\r\nhello\r\n" + END), b"hello")
        for extension in (
            b";a",
            b";a=1",
            b"; a=1",
            b" ;a=1",
            b"\t;\ta\t=\t1",
            b';a="1"',
            b';a="\\""',
            b';a=";"',
            b";a;b=2",
        )
    ),
    whole("an extension of the last", raw_chunks(HELLO + b"0;a=1\r\n\r\n"), b"hello"),
    *(
        refused(f"extension {extension!r}", raw_chunks(b"5" + extension + b"\r\nhello\r\n" + END), 400)
        for extension in (
            b";",
            b";;",
            b";=1",
            b";a b",
            b';a="1',
            b";a=\x00",
            b";\ra",
            b";a\n",
            b";a=(",
            b" ",
            b"\t",
            b" a",
        )
    ),
    *(
        refused(f"size {size!r}", raw_chunks(size + b"\r\nhello\r\n" + END), 400)
        for size in (
            b"",
            b"-5",
            b"+5",
            b"0x5",
            b"0X5",
            b" 5",
            b"5 ",
            b"\t5",
            b"5h",
            b"g",
            b"5_0",
            b"_5",
            b"5.0",
            b"5,5",
            b"'5'",
            b'"5"',
            b"\xb2",
            "\uff15".encode(),
            b"5\x00",
            b"\x005",
            b"5\r",
            b"\n5",
            b"5\n",
            b"five",
            b"-0",
            b"0x0",
        )
    ),
    refused("LF after the size", raw_chunks(b"5\nhello\r\n" + END), 400),
    refused("LF after the data", raw_chunks(b"5\r\nhello\n" + END), 400),
    refused("LF after the last size", raw_chunks(HELLO + b"0\n\r\n"), 400, ends=True),
    refused("LF for the end", raw_chunks(HELLO + b"0\r\n\n"), 400),
    refused("CR after the size", raw_chunks(b"5\rhello\r\n" + END), 400),
    refused("no CRLF after the data", raw_chunks(b"5\r\nhello" + END), 400),
    refused("more data than the size", raw_chunks(b"4\r\nhello\r\n" + END), 400),
    refused("less data than the size", raw_chunks(b"6\r\nhello\r\n" + END), 400),
    refused("another size after the data", raw_chunks(HELLO + b"x\r\n" + END), 400),
    refused("a size line without end", raw_chunks(b"5;a=" + b"1" * 70000), 400),
    refused("a size without end", raw_chunks(b"0" * 70000), 400),
    Case("a huge size", raw_chunks(b"7FFFFFFFFFFFFFFF\r\nhello"), (HUGE_ANSWERS,), (), False, ends=True),
    Case(
        "a size beyond all words", raw_chunks(b"F" * 30 + b"\r\nhello"), (HUGE_ANSWERS,), (), False, ends=True
    ),
    unfinished("half a size", raw_chunks(b"5")),
    unfinished("half a chunk", raw_chunks(b"5\r\nhel")),
    unfinished("no last chunk", raw_chunks(HELLO)),
    unfinished("no end after the last", raw_chunks(HELLO + b"0\r\n")),
    unfinished("no chunk at all", raw_chunks(b"")),
]

TRAILERS = [
    whole("a trailer", raw_chunks(HELLO + b"0\r\nA: 1\r\n\r\n"), b"hello"),
    whole("two trailers", raw_chunks(HELLO + b"0\r\nA: 1\r\nB: 2\r\n\r\n"), b"hello"),
    ok("a trailer is no header", raw_chunks(HELLO + b"0\r\nX-Evil: 1\r\n\r\n"), length=5, never=["evil"]),
    ok(
        "X-Forwarded-For in a trailer",
        raw_chunks(HELLO + b"0\r\nX-Forwarded-For: evil\r\n\r\n"),
        length=5,
        never=["evil"],
    ),
    *(
        refused(f"{name} in a trailer", raw_chunks(HELLO + b"0\r\n" + name.encode() + b": 1\r\n\r\n"), 400)
        for name in ("Host", "Content-Length", "Transfer-Encoding", "Trailer", "Authorization", "TE", "hOST")
    ),
    refused("LF in a trailer", raw_chunks(HELLO + b"0\r\nA: 1\nB: 2\r\n\r\n"), 400),
    refused("LF LF after a trailer", raw_chunks(HELLO + b"0\r\nA: 1\n\n"), 400),
    refused("a folded trailer", raw_chunks(HELLO + b"0\r\nA: 1\r\n 2\r\n\r\n"), 400),
    refused("a space before a trailer's colon", raw_chunks(HELLO + b"0\r\nA : 1\r\n\r\n"), 400),
    refused("a trailer without a colon", raw_chunks(HELLO + b"0\r\nA\r\n\r\n"), 400),
    refused("NUL in a trailer", raw_chunks(HELLO + b"0\r\nA: \x00\r\n\r\n"), 400),
    refused("a request for a trailer", raw_chunks(HELLO + b"0\r\n" + SMUGGLED), 400),
    refused(
        "101 trailers", raw_chunks(HELLO + b"0\r\n" + b"A: 1\r\n" * 101 + b"\r\n"), frozenset({400, 431})
    ),
]

GROUPS = {"Content-Length": LENGTHS, "Transfer-Encoding": CODINGS, "chunks": CHUNKS, "trailers": TRAILERS}
