"""``status --watch``: the running server in a terminal, each second anew. Lives in a command of its own.

Needs no settings, no network and no library: it reads the board that the server shares, and looks for the
server each second, so that it survives a restart and a reload.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from typing import Any, TextIO

from ..errors import ProdserveError
from ..monitoring.snapshot import full_snapshot, recent_history
from ..scoreboard.board import Scoreboard, board_path
from ..utils import terminal
from ..utils.units import format_age, format_size
from . import control

REFRESH_SECONDS = 1.0
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""To a screen of our own without a cursor, and back."""
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
STYLES = {"bad": "1;31", "warn": "33", "ok": "32", "quiet": "2", "bold": "1"}
BARS = " ▁▂▃▄▅▆▇█"

Line = tuple[str, str]
"""A style, or none, and a text."""


class ServerView:
    """The server as it was last seen, and its board."""

    def __init__(self, binds: Sequence[str] | None) -> None:
        self.binds = binds
        self.board: Scoreboard | None = None
        self.cpu: dict[int, tuple[float, float]] = {}

    def tick(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the facts of now and the points of the last minutes; ProdserveError where nobody serves."""
        server = control.find_here(self.binds)
        path = board_path(server.directory, server.generation)
        if self.board is None or self.board.path != path:
            self.board = _open(path, server)
        now = time.monotonic()
        known = {**self._known(server), **full_snapshot(self.board, now)}
        for worker in known["workers"]:
            worker["share"] = self._share(worker, now)
        return known, recent_history(self.board)

    def _known(self, server: control.RunningServer) -> dict[str, Any]:
        return {"pid": server.pid, "bind": list(server.binds), "generation": server.generation}

    def _share(self, worker: dict[str, Any], now: float) -> float | None:
        """Return the share of a CPU that a worker has used since the last look."""
        spent, then = self.cpu.get(worker["pid"], (0.0, 0.0))
        self.cpu[worker["pid"]] = worker["cpu"], now
        return (worker["cpu"] - spent) / (now - then) if then and now - then > 0.2 else None


def _open(path: Any, server: control.RunningServer) -> Scoreboard:
    try:
        return Scoreboard.open(path)
    except (OSError, ValueError):
        raise ProdserveError(f"The server ({server}) is starting or stopping.", code="starting") from None


def watch(binds: Sequence[str] | None, out: TextIO) -> None:
    """Show the server until Ctrl-C: on a screen of its own, or in blocks of lines where there is none."""
    on_screen = out.isatty()
    if isinstance(out, TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal may not know our bars
    try:
        with _screen(out) if on_screen else nullcontext():
            _watch(ServerView(binds), out, on_screen)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # whoever read it has seen enough; Python would complain of the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _watch(sight: ServerView, out: TextIO, on_screen: bool) -> None:
    colours = terminal.colours(out)
    while True:
        width, height = shutil.get_terminal_size() if on_screen else (10_000, 10_000)
        text = [_styled(style, line, colours) for style, line in picture(sight, width, height)]
        if on_screen:
            out.write(HOME + f"{REST_OF_LINE}\n".join(text) + REST_OF_LINE + REST_OF_SCREEN)
        else:
            out.write("".join(f"{line}\n" for line in [*text, ""]))
        out.flush()
        time.sleep(REFRESH_SECONDS - time.time() % REFRESH_SECONDS)


@contextmanager
def _screen(out: TextIO) -> Iterator[None]:
    out.write(ENTER)
    try:
        yield
    finally:
        out.write(LEAVE)
        out.flush()


def _styled(style: str, line: str, colours: bool) -> str:
    return f"\x1b[{STYLES[style]}m{line}\x1b[0m" if colours and style else line


def picture(sight: ServerView, width: int, height: int) -> list[Line]:
    """Return the lines of a screen of this size: a server, or that there is none."""
    moment = time.strftime("%H:%M:%SZ", time.gmtime())  # as in the log
    try:
        known, points = sight.tick()
    except ProdserveError as error:
        first = str(error).splitlines()[0]
        hint = "Looking for it each second; Ctrl-C ends this."
        lines = [("bold", f"{moment}  prodserve"), ("", ""), ("bad", f"no server: {first}"), ("quiet", hint)]
    else:
        lines = render(known, points, moment, min(width, 100), height)
    return [(style, printable(line)[:width]) for style, line in lines[:height]]


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: a path is what a client has sent."""
    return "".join(each if each.isprintable() else "?" for each in text)


def render(
    known: dict[str, Any], points: Sequence[dict[str, Any]], moment: str, width: int, height: int
) -> list[Line]:
    """Return a server as lines: what is wrong first, events in the room that is left."""
    rates, workers = known["rates"], known["workers"]
    since = f"generation {known['generation']}, up {format_age(known['uptime'])}"
    lines: list[Line] = [
        ("bold", f"{moment}  pid {known['pid']}, {since}, on {', '.join(known['bind'])}"),
        *(_finding(each) for each in known["findings"]),
    ]
    if not known["findings"]:
        lines.append(("ok", "Serving normally"))
    lines += [("", ""), *_traffic(known, rates, points, width), ("", ""), *_workers(workers)]
    if known["restarts"]:
        told = ", ".join(f"{reason} {count}" for reason, count in known["restarts"].items())
        lines.append(("quiet", f"replaced  {told}"))
    if known.get("advice"):
        lines.append(("", f"advice    {known['advice']}"))
    room = max(1, min(8, height - len(lines) - 2))
    lines += [("", ""), *(_event(each) for each in reversed(known["events"][-room:]))]
    return lines


def _finding(finding: dict[str, Any]) -> Line:
    return finding["level"], f"{'!!' if finding['level'] == 'bad' else '! '} {finding['text']}"


def _traffic(
    known: dict[str, Any], rates: dict[str, Any], points: Sequence[dict[str, Any]], width: int
) -> Iterator[Line]:
    room = width - 34
    classes = dict(zip(("1xx", "2xx", "3xx", "4xx", "5xx"), rates["classes"], strict=False))
    told = "  ".join(f"{name} {_number(each)}" for name, each in classes.items() if each)
    total = f"{_number(rates['requests'])}/s"
    yield "", f"requests  {total:<12}{told}  refused {_number(rates['refused'])}"
    marks = "  ".join(f"{name} {_time(rates[name])}" for name in ("p50", "p95", "p99"))
    yield "", f"latency   {marks}  queued p95 {_time(rates['queued95'])}"
    threads = sum(each["threads"] for each in known["workers"] if each["state"] == "serving")
    yield (
        "",
        f"threads   {_bar(rates['busy'], threads)} {rates['busy']}/{threads} busy, {rates['waiting']} wait",
    )
    limit = known["memory_limit"]
    of = f" of {format_size(limit)}" if limit else ""
    yield "", f"memory    {_bar(rates['memory'], limit)} {format_size(rates['memory'])}{of}"
    for name, label in (("requests", "req/s"), ("p95", "p95")):
        values = [point[name] for point in points[-max(10, room) :]]
        top = max((value for value in values if value is not None), default=None)
        most = _time(top) if name == "p95" else f"{_number(top)}/s"
        yield "", f"{label:<10}{sparkline(values)} up to {most}"


def _workers(workers: Sequence[dict[str, Any]]) -> Iterator[Line]:
    yield "quiet", "worker   state     busy            limit wait   CPU    memory  conns  requests"
    for each in workers:
        busy = f"{_bar(each['busy'], each['threads'], 8)} {each['busy']}/{each['threads']}"
        share = f"{100 * each['share']:.0f} %" if each["share"] is not None else "-"
        yield (
            "",
            f"{each['pid']:<9}{each['state']:<10}{busy:<16}{each['concurrency_limit']:>5}"
            f"{each['queue']:>5}{share:>6}"
            f"{format_size(each['memory']):>10}{each['connections']:>7}{each['requests']:>10}",
        )
        if (oldest := each["oldest"]) and oldest["age"] >= 1:
            yield "warn", f"         {oldest['age']:.0f} s: {oldest['method']} {oldest['path']}"


def _event(event: dict[str, Any]) -> Line:
    moment = time.strftime("%H:%M:%SZ", time.gmtime(event["time"]))
    return event["level"], f"{moment}  {event['kind']:<11} {event['text']}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 9.95 or not value else f"{value:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{1000 * seconds:.{0 if seconds >= 0.01 else 1}f} ms"


def _bar(value: float, most: float | None, length: int = 20) -> str:
    """Return how much of something is in use, as a bar."""
    share = min(1.0, value / most) if most else 0.0
    full = max(round(length * share), 1 if share else 0)
    return f"[{'#' * full}{'.' * (length - full)}]"


def sparkline(values: Sequence[float | None]) -> str:
    """Return a line of bars, one for each value; a blank where there is none."""
    most = max((value for value in values if value), default=0.0)
    return "".join(BARS[max(1, round(8 * value / most))] if value else BARS[0] for value in values)
