"""The form of exported files: the head, comments that fit the screen, quoting. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

WIDTH = 80


class File(NamedTuple):
    """One exported file."""

    name: str
    text: str


def written(
    name: str,
    body: str,
    *,
    made_by: str,
    goes_to: str = "",
    apply: Sequence[str] = (),
    by_hand: Sequence[str] = (),
    serve: str = "",
) -> File:
    """Return a file with its head: what it is, where it goes, how to apply it, what a person must change."""
    head = [f"# {name}, written by: {made_by}"]
    if goes_to:
        head.append(f"# It goes to {goes_to}")
    if serve:
        head += ["#", "# It fits a server that is started with:", f"#   {serve}"]
    if apply:
        head += ["#", "# To apply it:", *(f"#   {line}" for line in apply)]
    head += ["#", "# To change by hand:" if by_hand else "# Nothing is left to change by hand."]
    for item in by_hand:
        head += textwrap.wrap(
            item,
            WIDTH,
            initial_indent="#   - ",
            subsequent_indent="#     ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return File(name, "\n".join([*head, "", *_wrapped(body.strip("\n").split("\n"))]) + "\n")


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    """Yield lines with long comments on several lines, and no empty line twice."""
    before = ""
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        text = line.lstrip()
        if not text and (before.endswith("{") or after.lstrip().startswith("}")):
            continue  # a part of the template that this project does not need
        if re.match(
            "# (?!prodserve |hadolint |systemctl |systemd |nginx )[a-z]", text
        ):  # a reason, which elsewhere follows a colon
            line = line.replace(f"# {text[2]}", f"# {text[2].upper()}", 1)
            text = line.lstrip()
        if text.startswith("# ") and len(line.expandtabs(4)) > WIDTH:
            start = line[: len(line) - len(text)] + "# "
            yield from textwrap.wrap(
                text.removeprefix("# "),
                WIDTH - 3 * start.count("\t"),
                initial_indent=start,
                subsequent_indent=start,
                break_long_words=False,
                break_on_hyphens=False,
            )
        elif text or before:
            yield line.rstrip()
        before = text


def block(*lines: str) -> str:
    """Return lines as one text, for a place in a template; empty texts are left out."""
    return "\n".join(filter(None, lines))


def indented(text: str, columns: int) -> str:
    """Return a text with each line moved to the right."""
    return textwrap.indent(text, " " * columns)
