"""The documents that ship with the package: found by topic, by id, by the words of a heading.

Used in short commands (``prodserve help``), and in error messages that name the entry that explains them.
Standard library alone. A document is a file of ``docs/``; an entry is a heading in it with the text below.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

DIRECTORY = Path(__file__).parent.parent / "docs"
HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
FENCE = re.compile(r"\s*(```|~~~)")
LEVEL = re.compile(r"^(prodserve: )?(error|warning|note): ")
SPLIT = re.compile(r"[\s,:;()]+")


class Entry(NamedTuple):
    """A heading with the text below it, or a row of a table."""

    topic: str
    """The name of its document."""
    level: int
    title: str
    text: str
    """As it is in the document, including the heading."""


class Match(NamedTuple):
    """The result of a look-up."""

    entries: tuple[Entry, ...]
    close: tuple[str, ...] = ()
    """Similar names, if nothing was found."""


@cache
def topics(directory: Path = DIRECTORY) -> dict[str, str]:
    """Return the title of each document, by its name."""
    found = {}
    for file in sorted(directory.glob("*.md")):
        title = next((entry.title for entry in _entries_of(file)), file.stem)
        found[file.stem] = title
    return found


def read(topic: str, directory: Path = DIRECTORY) -> str:
    """Return a whole document, without the markers that tests search for."""
    text = (directory / f"{topic}.md").read_text(encoding="utf-8")
    return re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE)


def find(query: str, directory: Path = DIRECTORY) -> Match:
    """Return the document or the entries that a query names; the most exact match wins."""
    wanted = key(LEVEL.sub("", query.strip()))
    if not wanted:
        return Match(())
    for topic in topics(directory):
        if key(topic) in (wanted, f"deploy {wanted}"):
            text = read(topic, directory)
            return Match((Entry(topic, 1, topics(directory)[topic], text),))
    known = entries(directory)
    for fits in (_is_titled, _is_named, _is_row, _begins, _is_pattern, _contains):
        if found := [entry for entry in known if fits(entry, wanted)]:
            return Match(tuple(found))
    known_names = {key(name): name for name in names(directory)}
    close = difflib.get_close_matches(wanted, list(known_names), n=3)
    return Match((), tuple(known_names[name] for name in close))


def has(name: str, directory: Path = DIRECTORY) -> bool:
    """Return whether a name has a document or an entry of its own."""
    return key(name) in _known(directory)


@cache
def _known(directory: Path) -> frozenset[str]:
    """Return the names alone: a server must not keep every document in memory."""
    found = {key(topic) for topic in topics(directory)}
    for entry in entries(directory):
        if entry.level == ROW:
            found.update(key(word) for word in re.split(r"[,\s]+", entry.title))
        else:
            found |= {key(entry.title), key(_name(entry)), *_ids(entry)}
    return frozenset(found - {""})


def names(directory: Path = DIRECTORY) -> list[str]:
    """Return the one-word queries: documents, and entries whose heading begins with a name."""
    heads = [_name(entry) for entry in entries(directory) if entry.level > 1]
    return list(dict.fromkeys([*topics(directory), *filter(None, heads)]))


def entries(directory: Path = DIRECTORY) -> tuple[Entry, ...]:
    """Return every entry of every document."""
    return tuple(entry for file in sorted(directory.glob("*.md")) for entry in _entries_of(file))


def key(name: str) -> str:
    """Return a name in one form: ``--Keep_Alive``, ``keep-alive`` and `` `KEEP_ALIVE` `` are one."""
    text = name.strip().strip("`").lower().removeprefix("prodserve.")
    text = re.sub(r"[`*]", "", text).lstrip("-").replace("_", " ").replace("-", " ")
    return " ".join(text.strip(".:?! ").split())


def _name(entry: Entry) -> str:
    """Return the word that a heading begins with, if it is a name: an id, an option, a metric."""
    first = SPLIT.split(entry.title.strip("`"), maxsplit=1)[0].strip("`.")
    is_name = entry.title.startswith(("`", "--")) or re.fullmatch(r"[A-Z]\d{3}|\w+_\w+|[\w-]+", entry.title)
    return first if is_name or re.fullmatch(r"[A-Z]\d{3}", first) else ""


def _is_titled(entry: Entry, wanted: str) -> bool:
    return key(entry.title) == wanted


def _is_named(entry: Entry, wanted: str) -> bool:
    return key(_name(entry)) == wanted or wanted in _ids(entry)


def _ids(entry: Entry) -> list[str]:
    """Return the ids that a heading lists, such as ``W002, W003, W004``."""
    return [word.lower() for word in re.findall(r"\b[A-Z]\d{3}\b", entry.title)]


def _is_row(entry: Entry, wanted: str) -> bool:
    return entry.level == ROW and wanted in [key(word) for word in re.split(r"[,\s]+", entry.title)]


def _begins(entry: Entry, wanted: str) -> bool:
    return key(entry.title).startswith(wanted)


def _is_pattern(entry: Entry, wanted: str) -> bool:
    """Return whether a message matches a heading whose dots are wildcards: ``... is already in use ...``."""
    if entry.level == ROW or "..." not in entry.title:
        return False
    parts = [key(part) for part in entry.title.split("...")]
    if sum(len(part.split()) for part in parts) < 2:
        return False  # a single word matches too much
    return re.match(".*".join(map(re.escape, parts)), wanted) is not None


def _contains(entry: Entry, wanted: str) -> bool:
    words = re.sub(r"[(),:]", " ", key(entry.title)).split()
    return entry.level != ROW and all(word in words for word in wanted.split())


ROW = 9
"""The level of a row of a table: below every heading."""


def _entries_of(file: Path) -> Iterator[Entry]:
    lines = read(file.stem, file.parent).splitlines()
    heads: list[tuple[int, int, str]] = []
    fenced = False
    header: list[str] = []
    for number, line in enumerate(lines):
        if FENCE.match(line):
            fenced = not fenced
        elif fenced:
            continue
        elif match := HEADING.fullmatch(line):
            heads.append((number, len(match[1]), match[2]))
    for place, (number, level, title) in enumerate(heads):
        following = (other for other, depth, _ in heads[place + 1 :] if depth <= level)
        end = next(following, len(lines))
        yield Entry(file.stem, level, title, "\n".join(lines[number:end]).strip() + "\n")
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif not re.fullmatch(r"[-:| ]+", line) and cells[0]:
            parts = [f"{name}: {cell}" for name, cell in zip(header, cells, strict=False) if cell]
            yield Entry(file.stem, ROW, cells[0], "\n".join(parts).replace("\\|", "|") + "\n")
