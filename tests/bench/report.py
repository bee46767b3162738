"""Turn cells into tables: medians, and ratios to a base that was measured in the same round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Cell:
    """One server, one view, one round."""

    server: str
    view: str
    round: int
    start: float = 0.0  # s
    rate: float = 0.0  # requests/s
    p50: float = 0.0  # ms
    p99: float = 0.0
    max: float = 0.0
    cpu: float = 0.0  # CPU seconds for 1000 requests
    pss: float = 0.0  # MiB after the load
    noise: float = 0.0  # share of the CPUs that others used meanwhile
    problem: str = ""  # why nothing of this counts


COLUMNS = {
    "rate": ("requests/s", "{:.0f}"),
    "p50": ("p50 ms", "{:.1f}"),
    "p99": ("p99 ms", "{:.1f}"),
    "cpu": ("CPU s/1000", "{:.3f}"),
    "pss": ("PSS MiB", "{:.0f}"),
    "start": ("start s", "{:.2f}"),
}


def ratios(cells: Sequence[Cell], base: str, column: str) -> dict[str, list[float]]:
    """Return each server's figures divided by the base's of the same view and round."""
    bases = {(c.view, c.round): getattr(c, column) for c in cells if c.server == base and not c.problem}
    found: dict[str, list[float]] = {}
    for cell in cells:
        by = bases.get((cell.view, cell.round))
        if by and not cell.problem:
            found.setdefault(cell.server, []).append(getattr(cell, column) / by)
    return found


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table that is also aligned for a terminal."""
    head, *body = list(rows)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    rule = ["-" * (width - 1) + ":" for width in widths]
    rule[0] = "-" * widths[0]
    return "\n".join(
        "| " + " | ".join(text.ljust(w) if n == 0 else text.rjust(w) for n, (text, w) in columns) + " |"
        for row in [head, rule, *body]
        for columns in [list(enumerate(zip(row, widths, strict=True)))]
    )


def view_table(cells: Sequence[Cell], base: str) -> str:
    """Return the figures of one view: median, ratio to the base (smallest to largest ratio)."""
    rows = [["server", *(title for title, _ in COLUMNS.values())]]
    wrong = []
    for server in dict.fromkeys(cell.server for cell in cells):
        mine = [cell for cell in cells if cell.server == server]
        problems = [cell.problem for cell in mine if cell.problem]
        if problems:
            rows.append([server, "invalid", *[""] * (len(COLUMNS) - 1)])
            wrong.append(f"{server}: {problems[0]}")
            continue
        row = [server]
        for column, (_, form) in COLUMNS.items():
            text = form.format(median(getattr(cell, column) for cell in mine))
            by = ratios(cells, base, column).get(server)
            if by:
                text += f"  x{median(by):.2f}" + (f" ({min(by):.2f}-{max(by):.2f})" if len(by) > 1 else "")
            row.append(text)
        rows.append(row)
    return "\n".join([table(rows), *wrong])


def summary_table(cells: Sequence[Cell], base: str, column: str) -> str:
    """Return one column as ratios: servers down, views across."""
    views = list(dict.fromkeys(cell.view for cell in cells))
    rows = [["server", *views]]
    for server in dict.fromkeys(cell.server for cell in cells):
        rows.append([server, *(across(cells, base, column, server, view) for view in views)])
    return table(rows)


def across(cells: Sequence[Cell], base: str, column: str, server: str, view: str) -> str:
    here = [cell for cell in cells if cell.view == view]
    if any(cell.problem for cell in here if cell.server == server):
        return "invalid"
    by = ratios(here, base, column).get(server)
    return f"{median(by):.2f}" if by else "-"


def summary(cells: Sequence[Cell], base: str, say: Callable[[str], None]) -> None:
    """Print the tables of docs/benchmarks.md."""
    for column, title in [
        ("rate", "Requests"),
        ("cpu", "CPU per request"),
        ("p99", "p99"),
        ("pss", "Memory"),
    ]:
        say(f"\n{title}, {base} = 1\n")
        say(summary_table(cells, base, column))
    rows = [["server", "start, s", "ratio"]]
    for server, by in ratios(cells, base, "start").items():
        started = median(cell.start for cell in cells if cell.server == server and not cell.problem)
        rows.append([server, f"{started:.2f}", f"{median(by):.2f}"])
    say(f"\nFrom the spawn to the first answer, {base} = 1\n")
    say(table(rows))
