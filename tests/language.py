"""Collect every text of the project that people read; tests/test_language.py judges them."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_prodserve"
LIVE_PAGE = PACKAGE / "worker" / "management" / "live_page"
OTHERS = (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / ".github" / "CONTRIBUTING.md")
DOCUMENTS = (*sorted((PACKAGE / "docs").glob("*.md")), *OTHERS, ROOT / "example_project" / "README.md")
TEMPLATES = tuple(sorted((ROOT / "example_project").rglob("*.html")))
PAGE = tuple(LIVE_PAGE / name for name in ("index.html", "page.js", "page.css"))
FILLED_IN = "X"
"""Stands for what a program fills in, and for code."""

_SCRIPT = re.compile(
    r'(?P<comment>/\*.*?\*/|//[^\n]*)|"(?P<double>[^"\n]*)"|\'(?P<single>[^\'\n]*)\'|`(?P<template>[^`]*)`',
    re.DOTALL,
)
_DECORATION = re.compile(r"^\s*(/\*+|\*/|\*|//)|\*/$", re.MULTILINE)


class Text(NamedTuple):
    """A text and its place. A ``literal`` is a string of the code: it may be a name that no person reads."""

    place: str
    text: str
    literal: bool = False


def texts() -> Iterator[Text]:
    """Yield the texts of the package, of its live page, of the documents and of the example's pages."""
    for path in (*sorted(PACKAGE.rglob("*.py")), *PAGE, *DOCUMENTS, *TEMPLATES):
        yield from texts_of(path)


def texts_of(path: Path) -> Iterator[Text]:
    """Yield the texts of one file."""
    if path.suffix == ".py":
        return _of_module(path)
    return _of_document(path) if path.suffix == ".md" else _of_page(path)


def prose(text: str) -> str:
    """Return what people wrote as text: no blocks, no tables, no headings, no code words, no addresses."""
    text = re.sub(r"^```.*?^```$", ".", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(\||#|<!--|\[[\w-]+\]: ).*$", ".", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", plain(text))


def plain(text: str) -> str:
    """Return a text without code words and addresses."""
    return re.sub(r"https?://\S+", FILLED_IN, re.sub(r"(`+)[^`]*\1", FILLED_IN, text))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, as readers see them: an item, a cell and a paragraph end one."""
    text = re.sub(r"^\s*([-*]|\d+\.) |\n\s*\n|^ {4,}|(?<=\S) {2,}(?=\S)", ". ", text, flags=re.MULTILINE)
    for sentence in re.split(r"[.:;!?](?=[\s)*\"']|$)", " ".join(text.split())):
        if sentence.strip():
            yield sentence.strip()


def _of_module(path: Path) -> Iterator[Text]:
    source = path.read_text()
    for line, text, literal in _strings(ast.parse(source)):
        yield Text(f"{_place(path)}:{line}", plain(text), literal)
    for line, text in _comments(source):
        yield Text(f"{_place(path)}:{line}", plain(text))


def _strings(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield the line and the text of each string, a docstring without its indent; whether it is in code."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield node.lineno, _joined(node), True
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            is_docstring = id(node) in alone
            text = inspect.cleandoc(node.value) if is_docstring else node.value
            yield node.lineno, text, not is_docstring


def _joined(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in node.values)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each comment; comments that follow one another are one text."""
    lines: list[str] = []
    first, last = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or token.string.startswith("# type:"):
            continue
        if lines and token.start != (last[0] + 1, last[1]):
            yield first, "\n".join(lines)
            lines = []
        first, last = (first if lines else token.start[0]), token.start
        lines.append(token.string.removeprefix("#").removeprefix(" "))
    if lines:
        yield first, "\n".join(lines)


def _of_page(path: Path) -> Iterator[Text]:
    source = path.read_text()
    for line, text in _in_script(source) if path.suffix in {".js", ".css"} else [(1, _visible(source))]:
        yield Text(f"{_place(path)}:{line}", plain(text))


def _of_document(path: Path) -> Iterator[Text]:
    """Yield the running text, then each line of a block, of a table and each heading."""
    source = path.read_text()
    yield Text(_place(path), prose(source))
    is_block = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("```"):
            is_block = not is_block
        elif is_block or line.startswith(("|", "#")):
            yield Text(f"{_place(path)}:{number}", plain(line.replace("|", " . ")))


def _in_script(source: str) -> Iterable[tuple[int, str]]:
    for match in _SCRIPT.finditer(source):
        text = _DECORATION.sub("", match["comment"]) if match["comment"] else match[match.lastgroup or 0]
        yield source.count("\n", 0, match.start()) + 1, re.sub(r"\$\{.*?\}", FILLED_IN, text)


def _visible(source: str) -> str:
    """Return the text of a page of HTML, with titles and labels."""
    source = re.sub(r"<(script|style)\b.*?</\1>|<!--.*?-->|\{[%#].*?[%#]\}", " ", source, flags=re.DOTALL)
    source = re.sub(r"\{\{.*?\}\}", FILLED_IN, source)
    spoken = re.findall(r'\b(?:title|alt|aria-label|placeholder|content)="([^"]*)"', source)
    return "\n\n".join([re.sub(r"</?[a-z][^>]*>", "\n\n", source), *spoken])


def _place(path: Path) -> str:
    return str(path.relative_to(ROOT))
