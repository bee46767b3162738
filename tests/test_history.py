"""The verdict on a head, and what Django sees of it, is the same after any history, with either parser."""

from __future__ import annotations

import random

import pytest

from .e2e.corpus import GROUPS
from .e2e.raw import Case, boundaries
from .wire import PARSERS, Ours, Refused, Taken, Verdict, alike

CASES: list[Case] = [case for cases in GROUPS.values() for case in cases if len(case.sent) < 100_000]
SENT = [*{case.sent + case.then: None for case in CASES}]
SHORT = [sent for sent in SENT if len(sent) <= 4096]
LENGTHS = [b"9" * 18, b"9" * 19, b"9" * 20, b"9" * 400, b"9" * 5000, b"0" * 30 + b"5", b"%d" % 2**63]


def lines_of(sent: bytes) -> tuple[bytes, list[bytes]]:
    line, *fields = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return line, fields


REQUEST_LINES = [*{lines_of(sent)[0]: None for sent in SHORT}]
FIELDS = [*{field: None for sent in SHORT for field in lines_of(sent)[1][:20]}]


def wanted(parser: str, heard: list[bytes]) -> dict[bytes, list[Verdict]]:
    """Return what a fresh worker makes of each."""
    ours = Ours(parser)
    verdicts = {}
    for sent in heard:
        ours.forget()
        verdicts[sent] = ours.hear([sent])
    return verdicts


@pytest.mark.parametrize("parser", PARSERS)
def test_each_case_means_the_same_after_each_other(parser: str) -> None:
    fresh = wanted(parser, SENT)
    assert sum(isinstance(verdicts[0], Taken) for verdicts in fresh.values()) > 150
    assert sum(isinstance(verdicts[0], Refused) for verdicts in fresh.values()) > 150
    ours = Ours(parser)
    for number, first in enumerate(SHORT):
        ours.forget()
        for _ in range(2):  # lines are remembered with the second
            ours.hear([first])
        # What another line begins with is read as by a fresh worker; a quarter of the others is enough.
        same = [sent for sent in SHORT if lines_of(sent)[0] == lines_of(first)[0]]
        for second in same[number % 4 :: 4]:
            assert ours.hear([second]) == fresh[second], (first, second)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("seed", range(3))
def test_all_cases_mean_the_same_in_any_order_and_pieces(parser: str, seed: int) -> None:
    chance, ours, fresh = random.Random(seed), Ours(parser), wanted(parser, SENT)
    for _ in range(2):
        for sent in chance.sample(SENT, len(SENT)):
            assert ours.hear([sent]) == fresh[sent], sent
            assert alike(ours.hear(boundaries(sent)), fresh[sent]), sent


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("seed", range(4))
def test_lines_mean_the_same_whatever_they_stood_among(parser: str, seed: int) -> None:
    chance, ours, new = random.Random(seed), Ours(parser), Ours(parser)
    taken = 0
    for _ in range(2500):
        line = b"GET /echo/ HTTP/1.1" if chance.random() < 0.7 else chance.choice(REQUEST_LINES)
        fields = [b"Host: localhost", *chance.choices(FIELDS, k=chance.randrange(4))]
        if chance.random() < 0.2:
            fields.append(b"Content-Length: " + chance.choice(LENGTHS))
        chance.shuffle(fields)
        sent = b"\r\n".join([line, *fields, b"", b"5\r\nhello\r\n0\r\n\r\n"])
        new.forget()
        verdicts = new.hear([sent])
        assert ours.hear([sent]) == verdicts, sent
        taken += isinstance(verdicts[0], Taken)
    assert taken > 400


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_no_body_has_is_refused_at_once(parser: str, length: bytes) -> None:
    """Also where every other line of the head is known: it was accepted then, and timed out 31 s later."""
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %b\r\n\r\n"
    ours = Ours(parser)
    for _ in range(3):
        (verdict, *more) = ours.hear([sent % length])
        assert isinstance(verdict, Refused) is (len(length) > 18), verdict
        assert not more
        assert isinstance(ours.hear([sent % b"2" + b"ab"])[0], Taken)


@pytest.mark.parametrize("parser", PARSERS)
def test_a_head_is_measured_alike_whole_and_in_pieces(parser: str) -> None:
    line = b"GET /%b HTTP/1.1\r\nHost: x\r\n"
    dropped = b"".join(b"A_%d: %b\r\n" % (number, b"1" * 8000) for number in range(150))
    for sent in (line % b"" + dropped + b"\r\n", line % (b"a" * 5000) + b"\r\n", line % b"a" * 4078):
        kinds = set()
        for step in (len(sent), 65536, 8191):
            pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
            kinds.add(getattr(Ours(parser).hear(pieces)[-1], "kind", ""))
        assert len(kinds) == 1, kinds
    assert (
        Ours(parser, limit_request_line=0).hear([line % (b"a" * 20000) + b"\r\n"])[0]
        == Ours(parser, limit_request_line=0).hear(boundaries(line % (b"a" * 20000) + b"\r\n"))[0]
    )
