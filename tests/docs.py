"""Write the generated parts of django_prodserve/docs: ``python -m tests.docs``. tests/test_docs.py compares.

An entry of a reference file is a heading with its name, the generated part, and prose that people write:

    ## workers

    Worker processes: ...        (the code's own words)

    ```
    --workers WORKERS, -w        (what follows from the row in the code)
    ```

    Prose.
"""

from __future__ import annotations

import ast
import re
import socket
import sys
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent / "django_prodserve"
DOCS = PACKAGE / "docs"
WIDTH = 78  # columns


class Entry(NamedTuple):
    """The generated part of an entry: its name in the heading, a sentence, the lines of its block."""

    name: str
    sentence: str
    block: Sequence[str]

    def text(self) -> str:
        sentence = f"{wrap(self.sentence)}\n\n" if self.sentence else ""
        return f"{sentence}```\n" + "\n".join(self.block) + "\n```\n"


def wrap(text: str, indent: int = 0) -> str:
    """Return text in lines that a terminal shows whole."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )


def options() -> Iterator[Entry]:
    """Yield an entry for every option, from its row."""
    from django_prodserve.config.options import option_fields

    for row in option_fields():
        names = f"{row.flag}, --no-{row.flag[2:]}" if row.kind.is_switch else f"{row.flag} {row.metavar}"
        names = f"{names}, {row.short}" if row.short else names
        why = f" ({row.why})" if row.default is not None and row.why else ""
        lines = [
            names,
            wrap(f"default:  {row.default_text}{why}", 10),
            f"variable: {row.variable}",
            f'settings: PRODSERVE["{row.key}"]',
        ]
        if row.gunicorn:
            lines.append(f"gunicorn: {row.gunicorn}")
        yield Entry(row.flag[2:], row.help, lines)


def checks() -> Iterator[Entry]:
    """Yield an entry for every check of the preflight, from the messages in the code."""
    found: dict[str, Entry] = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            words = {each.arg: each.value for each in node.keywords}
            name = getattr(words.get("id"), "value", None)
            if not isinstance(name, str) or not name.startswith("prodserve."):
                continue
            level = node.func.id.lower() if isinstance(node.func, ast.Name) else "warning"
            lines = [level]
            if node.args and (message := template(node.args[0])) != "...":
                lines.append(wrap(f"says:     {message}", 10))
            if "hint" in words and (hint := template(words["hint"])) != "...":
                lines.append(wrap(f"fix:      {hint}", 10))
            lines.append(f'silence:  SILENCED_SYSTEM_CHECKS = ["{name}"]')
            name = name.removeprefix("prodserve.")
            found[name] = Entry(name, "", lines)
    yield from (found[name] for name in sorted(found))


def metrics() -> Iterator[Entry]:
    """Yield an entry for every metric, from what a server exports."""
    from django_prodserve.monitoring.metrics import Metrics
    from django_prodserve.scoreboard.board import Scoreboard
    from django_prodserve.scoreboard.slot import SERVING

    board = Scoreboard.create(None, slots=1, rows=1, now=1.0)
    slot = board.claim()
    slot.start(1, 2, 2, now=5.0)
    slot.state = SERVING
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = Metrics(board, [listener], 1).text(ready=True).decode()
    for name, sentence in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        kind = re.search(rf"^# TYPE {name} (.*)$", text, re.MULTILINE)
        sample = re.search(rf"^{name}\{{(.*)\}} ", text, re.MULTILINE)
        labels = re.findall(r'(\w+)="', sample.group(1)) if sample else []
        assert kind is not None, name
        lines = [f"type:     {kind.group(1)}", f"labels:   {', '.join(labels) or 'none'}"]
        yield Entry(name, sentence, lines)


def events() -> Iterator[Entry]:
    """Yield an entry for every kind of event: the reasons for which workers end, then the others."""
    from django_prodserve.scoreboard.board import REASONS

    for reason in REASONS:
        yield Entry(reason, "", [f'counted: prodserve_workers_ended_total{{reason="{reason}"}}'])
    for kind in sorted(event_kinds() - {*REASONS}):
        yield Entry(kind, "", ["counted: no"])


def event_kinds() -> set[str]:
    """Return the words that the code passes as the kind of an event."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            at = {"record_event": 0, "_record_event": 0, "_log": 0, "Event": 1}.get(name)
            if at is None or len(node.args) <= at:
                continue
            for each in ast.walk(node.args[at]):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    found.add(each.value)
    return found


GENERATED = {"options.md": options, "checks.md": checks, "metrics.md": metrics, "events.md": events}


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module."""
    return {str(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def template(node: ast.expr) -> str:
    """Return the words of a string in the code, with ``...`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    return "..."


def sections(text: str) -> list[tuple[str, str]]:
    """Split a file at its headings of the second level: title and all below it; the first has no title."""
    fence, parts = False, [("", "")]
    for line in text.splitlines(keepends=True):
        fence ^= line.startswith("```")
        if line.startswith("## ") and not fence:
            parts.append((line.removeprefix("## ").strip(), ""))
        else:
            parts[-1] = (parts[-1][0], parts[-1][1] + line)
    return parts


def render(text: str, entries: Sequence[Entry]) -> str:
    """Return a file with its generated parts as the code has them, entries in the order of the code."""
    names = sorted((entry.name for entry in entries), key=len, reverse=True)
    before, after, prose = "", "", {}
    for title, body in sections(text):
        name = next((each for each in names if title == each or title.startswith(f"{each} ")), None)
        if name is not None:
            _, opened, rest = body.partition("\n```\n")  # the generated part ends with its block
            prose[name] = (title, rest.partition("\n```\n")[2] if opened else body)
        elif prose:
            after += f"## {title}\n{body}"
        else:
            before += f"## {title}\n{body}" if title else body
    made = ""
    for entry in entries:
        title, rest = prose.get(entry.name, (entry.name, ""))
        made += f"## {title}\n\n{entry.text()}\n" + (f"{rest.strip()}\n\n" if rest.strip() else "")
    return f"{before.rstrip()}\n\n{made}{after}".rstrip() + "\n"


def main() -> None:
    for name, entries in GENERATED.items():
        path = DOCS / name
        path.write_text(render(path.read_text(), [*entries()]))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
