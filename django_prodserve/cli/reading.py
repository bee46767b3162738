"""``prodserve help`` and ``prodserve completion``: texts that need no project.

Runs in a command without a project. Needs neither Django nor settings nor a network. So it answers in a
fraction of a second, and also inside a container in which no other command works.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from ..config.options import option_field, option_fields
from ..config.row import Row
from ..errors import CODES, UsageError
from ..utils import manual, terminal
from . import completion, here
from .actions import ACTIONS

MANY = 3
"""With more entries than this, the command lists them instead of printing them."""


def run(words: Sequence[str], out: Any) -> None:
    """Run the action; ``words`` are the action and the words behind it."""
    action, *rest = words
    flags = [word for word in rest if word in ("--no-color", "--force-color")]
    terminal.choose(no_color="--no-color" in flags, force_color="--force-color" in flags)
    rest = [word for word in rest if word not in flags]
    if action == "completion":
        out.write(completion.script(rest))
    else:
        show(_help(" ".join(rest)) if rest else overview(), out)


def show(text: str, out: Any) -> None:
    """Print a text; through a pager if a terminal shows it and it does not fit."""
    text = "".join(f"{line}\n" for line in _coloured(text.rstrip("\n"), on=terminal.colours(out)))
    rows = shutil.get_terminal_size().lines
    if terminal.is_terminal(out) and text.count("\n") >= rows and _paged(text):
        return
    out.write(text)
    out.flush()


def _coloured(text: str, *, on: bool) -> Iterator[str]:
    fenced = False
    for line in text.split("\n"):
        fenced ^= bool(manual.FENCE.match(line))
        is_head = not fenced and manual.HEADING.fullmatch(line)
        yield terminal.styled(line, "bold", on=on) if is_head else line


def _paged(text: str) -> bool:
    """Send a text to the pager; return whether there is one."""
    try:
        words = shlex.split(os.environ.get("PAGER") or "less")
    except ValueError:  # a quotation without its end
        return False
    if not words or shutil.which(words[0]) is None:
        return False
    environ = {"LESS": "FRX", **os.environ}
    subprocess.run(words, input=text, text=True, env=environ, check=False)
    return True


def overview() -> str:
    """Return the list of topics."""
    lines = ["prodserve help TOPIC explains a document, an option, a check, a metric or a message.", ""]
    found = manual.topics()
    if found:
        width = max(map(len, found)) + 2
        lines += ["# Documents", "", *(f"  {name:<{width}}{title}" for name, title in found.items()), ""]
    width = max(map(len, ACTIONS)) + 2
    lines += ["# Actions", "", *(f"  {name:<{width}}{text}" for name, text in ACTIONS.items()), ""]
    lines += ["# Options", "", *_columns([row.topic for row in option_fields()]), ""]
    lines += ["For example: prodserve help workers, prodserve help W005, prodserve help exit-codes"]
    return "\n".join(lines)


def _columns(names: Sequence[str]) -> Iterator[str]:
    width = max(map(len, names)) + 2
    count = max(1, 78 // width)
    for start in range(0, len(names), count):
        yield "  " + "".join(f"{name:<{width}}" for name in names[start : start + count]).rstrip()


def _help(query: str) -> str:
    """Return the text that explains a query; raise UsageError with similar names if there is none."""
    match = manual.find(query)
    parts = [*_about_option(query, match.entries)]
    entries = [entry for entry in match.entries if not (parts and entry.level == manual.ROW)]
    if len(entries) > MANY:
        lines = [f"  {entry.topic:<24}{entry.title}" for entry in entries]
        parts.append("\n".join([f"# Entries that mention {query}", "", *lines]) + "\n")
    else:
        parts += [_without_marks(entry) for entry in entries]
    if parts:
        return "\n".join(parts)
    close = [*match.close, *difflib.get_close_matches(manual.key(query), _names(), n=3)]
    fix = (
        f"Did you mean {' or '.join(dict.fromkeys(close))}?"
        if close
        else "prodserve help lists what there is."
    )
    raise UsageError(f"There is no help on {query!r}.", fix, code="unknown-topic")


def _without_marks(entry: manual.Entry) -> str:
    where = f"(from prodserve help {entry.topic})\n" if entry.level > 1 else ""
    return f"{entry.text}{where}"


def _names() -> list[str]:
    return [*ACTIONS, *(row.topic for row in option_fields()), *CODES, "exit-codes"]


def _about_option(query: str, entries: Sequence[manual.Entry]) -> Iterator[str]:
    """Yield this machine's decision on an option, and the text of its row if no document describes it."""
    name = manual.key(query).replace(" ", "_")
    row = option_field(name) or option_field(name.removeprefix("prodserve_"))
    if row is None:
        return
    if not any(entry.topic == "options" and entry.level < manual.ROW for entry in entries):
        yield "\n".join(_of_row(row)) + "\n"
    if decided := here.decision(row):
        yield f"# {row.flag} here\n\n{decided}\n"


def _of_row(row: Row) -> Iterator[str]:
    flags = f"{row.short}, {row.flag}" if row.short else row.flag
    metavar = "" if row.kind.is_switch else f" {row.metavar}"
    yield f"# {flags}{metavar}"
    yield ""
    yield row.help
    yield ""
    yield f"  default   {row.default_text}{f' ({row.why})' if row.why and not row.computed else ''}"
    if row.kind.is_switch:
        yield f"  flag      {row.flag} or {row.flag.replace('--', '--no-', 1)}"
    yield f"  variable  {row.variable}"
    yield f"  settings  PRODSERVE = {{{row.key!r}: ...}}".replace("'", '"')
    if row.kind.example:
        yield f"  example   {row.flag}{'' if row.kind.is_switch else f' {row.kind.example}'}"
