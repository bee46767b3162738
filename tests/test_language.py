"""Messages, docstrings, comments and documents are plain technical English, in the words of the field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from .language import ROOT, Text, sentences, texts, texts_of

MAX_WORDS = 25
"""Words in a sentence."""

# Words that this project once used in a way of its own, and what operators say and search for instead.
UNUSUAL = {
    r"anew": "again, from scratch; reconnect",
    r"at once": "immediately, or at the same time",
    r"beside": "alongside, next to",
    r"bodies in chunks": "chunked bodies",
    r"breaks? off|broke off|broken off|cuts?|cutting": "aborted, truncated, closed, shortened",
    r"crews?|lets? go|takes? leave": "workers, stop",
    r"doors?": "entry",
    r"fattest": "using the most memory",
    r"films": "video",
    r"for ever": "no limit, without end",
    r"for good": "steadily, permanently",
    r"go on|goes on|serves on": "continues, keeps serving",
    r"heads": "request lines and headers",
    r"hears?|heard|heed\w*": "receive, handle",
    r"keepers?": "supervisor",
    r"kept connections?": "keep-alive connections",
    r"(?<!there )is no (?!longer\b|more\b)\w+": "is not a",
    r"has not run Python": "is unresponsive",
    r"lies?|stands?|stood": "is, is in",
    r"looks? after|looking after": "operators; watch",
    r"(may|might|would) pay": "would help",
    r"mend\w*": "fix, correct",
    r"neighbou?rs?": "other requests of that worker",
    r"of (ours|theirs|yours|the project's(?! own))": "of prodserve, from your project",
    r"probes? of (life|readiness)": "liveness and readiness probes",
    r"readiness (is |goes )?red": "the readiness probe fails",
    r"sa(y|ys|id|ying)": "shows, reports, names, requires, returns",
    r"spared?": "skipped, avoided",
    r"stated": "set, set explicitly",
    r"stuck": "hung, unresponsive",
    r"(is|are|was|were) taken": "in use, busy",
    r"tell|tells|told|telling": "report, log, show, print; ask",
    r"trials?": "test process",
    r"typed": "given on the command line",
    r"whom": "the noun",
    r"wish\w*": "requested; options",
    r"would fit": "recommended",
    r"^(largest|least|longest|shortest|smallest)": "maximum, minimum",
}
ANY = re.compile(rf"\b({'|'.join(UNUSUAL)})\b", re.IGNORECASE)
# What looks like one of these words and is something else: the text of a literal, or the words around.
NAMES = {
    "keeper": "the former name of an option",
    "tell": "a method of files",
}
PHRASES = {
    "are taken from sequences": "a database takes numbers from a sequence",
    "What readers say": "people speak, in the example's shop",
    "has stood on the same corner": "a house stands, in the example's shop",
}
# Spellings of other Englishes; names such as --no-color and Authorization keep theirs.
AMERICAN = (
    r"(?<!-)[a-z]*(behavi|col|fav|flav|hon|lab|neighb)or(s|ed|ing|able|ite)?",
    r"(analy|cataly)z\w+|catalogs?|cent(er|ers|ered)|defense|fulfills?|gray",
    r"(cancel|label|model|signal|travel)(ed|ing|er)",
    r"(?!(over|re|un)?siz|priz|seiz|finaliz|authoriz)[a-z]{3,}iz(e|es|ed|ing|ation|ations|er|ers)",
)
LOWER = re.compile(r"[a-z][a-z',-]*$")


Judge = Callable[[Text], Iterator[str]]


def _unusual(text: Text) -> Iterator[str]:
    if text.literal and text.text in NAMES:
        return
    words = " ".join(text.text.split())
    if not ANY.search(words):  # most texts; a search for each word costs ten times as much
        return
    for phrase in PHRASES:
        words = words.replace(phrase, "")
    for pattern, better in UNUSUAL.items():
        for match in re.finditer(rf"\b({pattern})\b", words, re.IGNORECASE):
            yield f"{match[0]!r} in {words[max(0, match.start() - 40) : match.end() + 40]!r}: {better}"


def _lower_case_names(text: Text) -> Iterator[str]:
    for match in re.finditer(r"(?<=\s)(sqlite|postgresql|mysql)(?=\s)", text.text):
        yield f"{match[0]!r}: its makers write it in another way"


def _american(text: Text) -> Iterator[str]:
    for pattern in AMERICAN:
        for match in re.finditer(rf"\b({pattern})\b", text.text):
            yield f"{match[0]!r}"


def _long(text: Text) -> Iterator[str]:
    for sentence in sentences(text.text):
        words = sentence.split()
        # A list of headers or the code of a shell is no sentence: most of its words are names.
        if len(words) > MAX_WORDS and 2 * sum(bool(LOWER.match(word)) for word in words) > len(words):
            yield f"{len(words)} words in {sentence!r}"


def test_every_text_is_plain_technical_english() -> None:
    judges = (_unusual, _lower_case_names, _american, _long)
    assert [f"{text.place}: {fault}" for text in texts() for judge in judges for fault in judge(text)] == []


@pytest.mark.parametrize(
    ("judge", "text", "faults"),
    [
        (_unusual, "It lies beside\nthe file, at once.", 3),
        (_unusual, "There is no file. The port is in use.", 0),
        (_lower_case_names, "with sqlite 3", 1),
        (_american, "the color of its behavior, initialized", 3),
        (_american, "--no-color: the colour, recognised, of this size", 0),
        (_long, " ".join(["word"] * 26), 1),
        (_long, "; ".join([" ".join(["word"] * 25)] * 2), 0),
    ],
)
def test_each_fault_is_found(judge: Judge, text: str, faults: int) -> None:
    assert len([*judge(Text("here", text, literal=True))]) == faults


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("django_prodserve/cli/control.py", "Reload failed; generation X keeps serving."),
        ("django_prodserve/utils/decision.py", "A value, its reason, and its source"),
        ("django_prodserve/project/footprint.py", "is enough. A test fork"),
        ("django_prodserve/worker/management/live_page/page.js", "Retrying every second."),
        ("django_prodserve/worker/management/live_page/index.html", "contains the same data"),
        ("README.md", "requests write at the same time."),
        ("django_prodserve/docs/errors.md", "## ... is already in use ..."),
        ("example_project/catalogue/templates/500.html", "we have been notified"),
    ],
)
def test_each_kind_of_text_is_read(place: str, words: str) -> None:
    assert any(words in text.text for text in texts_of(ROOT / place))
