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
    for node in calls():
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        for name in check_ids(words["id"]) if "id" in words else ():
            level = node.func.id.lower() if isinstance(node.func, ast.Name) else "warning"
            lines = [level]
            if node.args and (message := template(node.args[0])) != "...":
                lines.append(wrap(f"message:  {message}", 10))
            if "hint" in words and (hint := template(words["hint"])) != "...":
                lines.append(wrap(f"fix:      {hint}", 10))
            lines.append(f'silence:  SILENCED_SYSTEM_CHECKS = ["prodserve.{name}"]')
            found[name] = Entry(name, "", lines)
    yield from (found[name] for name in sorted(found))


def check_ids(node: ast.expr) -> list[str]:
    """Return the ids that an expression stands for, without ``prodserve.``; some are looked up."""
    from django_prodserve.startup.checks import PATH_IDS

    text = template(node)
    if text == "prodserve....":
        return [*PATH_IDS.values()]
    return [text.removeprefix("prodserve.")] if text.startswith("prodserve.") else []


def metrics() -> Iterator[Entry]:
    """Yield an entry for every metric, from what a server exports."""
    from django_prodserve.monitoring.metrics import Metrics
    from django_prodserve.scoreboard.board import Scoreboard
    from django_prodserve.scoreboard.slot import SERVING

    board = Scoreboard.create(None, slots=1, rows=1, now=1.0, document={"processes": ["tasks"]}, sides=1)
    board.sides[0].pid = 1
    slot = board.claim()
    slot.start(1, 2, 2, now=5.0)
    slot.state = SERVING
    expiry = {"names": ["shop.example"], "file": "/etc/tls/shop.pem", "expires": 2e9, "refused": ""}
    board.write_summary({"certificates": [expiry], "room": {"limits": {"cpu": 430.0}, "unknown": ""}})
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
    from django_prodserve.scoreboard.events import SEVERITY

    for kind in [*REASONS, *sorted({*SEVERITY} - {*REASONS})]:
        lines = [f"level:   {SEVERITY.get(kind) or 'none'}"]
        if kind in REASONS:
            lines.append(f'counted: prodserve_workers_ended_total{{reason="{kind}"}}')
        yield Entry(kind, "", lines)


def codes() -> Iterator[Entry]:
    """Yield an entry for every code of an error."""
    from django_prodserve.errors import CODES

    for name, sentence in CODES.items():
        yield Entry(name, sentence, [f'JSON:    "code": "{name}"'])


def exports() -> Iterator[Entry]:
    """Yield an entry for every kind of file that ``prodserve export`` writes."""
    from django_prodserve.export.kinds import KINDS

    for name, kind in KINDS.items():
        yield Entry(name, f"{kind.about[0].upper()}{kind.about[1:]}.", [f"prodserve export {name}"])


def exit_codes() -> Iterator[Entry]:
    """Yield an entry for every exit code."""
    from django_prodserve.errors import EXIT_CODES

    for code, sentence in EXIT_CODES.items():
        yield Entry(str(int(code)), sentence, [f"exit code: {int(code)}"])


GENERATED = {
    "options.md": options,
    "checks.md": checks,
    "metrics.md": metrics,
    "events.md": events,
    "codes.md": codes,
    "exit-codes-and-signals.md": exit_codes,
    "export.md": exports,
}


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module."""
    return {str(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def calls() -> Iterator[ast.Call]:
    """Yield every call in the code."""
    for tree in trees().values():
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def template(node: ast.expr) -> str:
    """Return the words of a string in the code, with ``...`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    return "..."


EXAMPLE = re.compile(r"^# (\S+), written by: prodserve export (\S+)\n(?:(?!```).*\n)*", re.MULTILINE)
"""A block of a page that shows an exported file."""


def with_examples(text: str) -> str:
    """Return a page whose exported files are those of the code."""
    from .exports import exported

    return EXAMPLE.sub(lambda match: exported(match[2])[match[1]], text)


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
        name = next(
            (candidate for candidate in names if title == candidate or title.startswith(f"{candidate} ")),
            None,
        )
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
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text()
        if (shown := with_examples(text)) != text:
            path.write_text(shown)
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
