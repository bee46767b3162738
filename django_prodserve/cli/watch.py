"""``status --watch``: the running server in a terminal, refreshed each second. Runs in a command of its own.

Needs no settings, no network and no library. It reads the scoreboard that the server shares, and searches for
the server each second, so that it survives a restart and a reload.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn, TextIO

from ..errors import ExitCode, ProdserveError
from ..monitoring.snapshot import full_snapshot, recent_history
from ..scoreboard.board import Scoreboard, board_path
from ..utils import terminal
from ..utils.units import format_age, format_latency, format_size
from . import control
from .lines import Line, clock, loop_words, printable, process_lines, route_lines, verdict_lines, wrapped

REFRESH_SECONDS = 1.0
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Escape sequences: to the alternate screen without a cursor, and back."""
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
BARS = " ▁▂▃▄▅▆▇█"
ROOM_FOR_ROUTES = 12
"""Free rows from which the slowest routes are shown, too: events come first."""


class ServerView:
    """The server as last read, and its scoreboard."""

    def __init__(self, binds: Sequence[str] | None) -> None:
        self.binds = binds
        self.board: Scoreboard | None = None
        self.cpu: dict[int, tuple[float, float]] = {}

    def tick(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return current facts and the points of the last minutes; raise ProdserveError if no server runs."""
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
        """Return the share of a CPU that a worker has used since the last tick."""
        spent, then = self.cpu.get(worker["pid"], (0.0, 0.0))
        self.cpu[worker["pid"]] = worker["cpu"], now
        return (worker["cpu"] - spent) / (now - then) if then and now - then > 0.2 else None


def _open(path: Any, server: control.RunningServer) -> Scoreboard:
    try:
        return Scoreboard.open(path)
    except (OSError, ValueError):
        raise ProdserveError(f"The server ({server}) is starting or stopping.", code="starting") from None


def watch(binds: Sequence[str] | None, out: TextIO) -> None:
    """Show the server until q or Ctrl-C: on an alternate screen, or in blocks of lines without a terminal."""
    on_screen = out.isatty()
    if isinstance(out, TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal may not support the bar characters
    signal.signal(signal.SIGTERM, _terminated)  # restores the terminal's screen and echo
    try:
        with _screen(out) if on_screen else nullcontext(), _keys(on_screen) as keyboard:
            _watch(ServerView(binds), out, on_screen, keyboard)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # the reader has gone; Python would report the unwritten rest at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _terminated(number: int, frame: object) -> NoReturn:
    sys.exit(ExitCode.TERMINATED)


def _watch(sight: ServerView, out: TextIO, on_screen: bool, keyboard: int | None) -> None:
    colours = terminal.colours(out)
    while True:
        width, height = shutil.get_terminal_size() if on_screen else (10_000, 10_000)
        text = [terminal.styled(line, style, on=colours) for style, line in picture(sight, width, height)]
        if on_screen:
            out.write(HOME + f"{REST_OF_LINE}\n".join(text) + REST_OF_LINE + REST_OF_SCREEN)
        else:
            out.write("".join(f"{line}\n" for line in [*text, ""]))
        out.flush()
        if _asked_to_leave(keyboard, REFRESH_SECONDS - time.time() % REFRESH_SECONDS):
            return


def _asked_to_leave(keyboard: int | None, seconds: float) -> bool:
    """Wait, and return whether the operator pressed q meanwhile."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if keyboard is None:
            time.sleep(left)
        elif select.select([keyboard], [], [], left)[0]:
            keys = os.read(keyboard, 64)
            if not keys or b"q" in keys.lower():  # no keys: the terminal has gone
                return True
    return False


@contextmanager
def _keys(on_screen: bool) -> Iterator[int | None]:
    """Read single keys without echo; None without a terminal, or in the background."""
    number = _keyboard() if on_screen else None
    if number is None:
        yield None
        return
    import termios
    import tty

    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield number
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _keyboard() -> int | None:
    if sys.stdin is None or not terminal.is_terminal(sys.stdin):
        return None
    number = sys.stdin.fileno()
    with suppress(OSError):  # the terminal of another session: no shell reads from it
        if os.tcgetpgrp(number) != os.getpgrp():
            return None
    return number


@contextmanager
def _screen(out: TextIO) -> Iterator[None]:
    out.write(ENTER)
    try:
        yield
    finally:
        out.write(LEAVE)
        out.flush()


def picture(sight: ServerView, width: int, height: int) -> list[Line]:
    """Return the lines of a screen of this size: a server, or a message that none runs."""
    moment = clock(time.time())
    try:
        known, points = sight.tick()
    except ProdserveError as error:
        first = str(error).splitlines()[0]
        hint = "Retrying every second; q quits."
        lines = [("bold", f"{moment}  prodserve"), ("", ""), ("bad", f"no server: {first}"), ("quiet", hint)]
        lines = _fitted(lines, width)
    else:
        lines = render(known, points, moment, min(width, 100), height)
    return [(style, line[:width]) for style, line in lines[:height]]


def render(
    known: dict[str, Any], points: Sequence[dict[str, Any]], moment: str, width: int, height: int
) -> list[Line]:
    """Return a server as lines: problems first, then events in the remaining rows."""
    since = f"generation {known['generation']}, up {format_age(known['uptime'])}"
    lines: list[Line] = [
        ("bold", f"{moment}  pid {known['pid']}, {since}, on {', '.join(known['bind'])}"),
        *verdict_lines(known["findings"]),
        ("", ""),
        *_traffic(known, known["rates"], points, width),
        ("", ""),
        *_workers(known["workers"], width),
        *process_lines(known["processes"]),
    ]
    if known["restarts"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in known["restarts"].items())
        lines.append(("quiet", f"replaced  {counts}"))
    if known.get("advice"):
        lines.append(("", f"advice    {known['advice']}"))
    lines = _fitted(lines, width)
    if height - len(lines) > ROOM_FOR_ROUTES:
        lines += _fitted(route_lines(known["routes"]), width)
    lines.append(("", ""))
    room = max(1, min(8, height - len(lines) - 1))
    lines += [_shortened(_event(event), width) for event in reversed(known["events"][-room:])]
    if len(lines) < height:
        lines.append(("quiet", "q quits"))
    return lines


def _fitted(lines: Sequence[Line], width: int) -> list[Line]:
    """Return lines that fit; a long line is wrapped into several."""
    return [(style, part) for style, line in lines for part in wrapped(printable(line), width)]


def _shortened(line: Line, width: int) -> Line:
    style, text = line[0], printable(line[1])
    return style, text if len(text) <= width else f"{text[: width - 3].rstrip()}..."


def _traffic(
    known: dict[str, Any], rates: dict[str, Any], points: Sequence[dict[str, Any]], width: int
) -> Iterator[Line]:
    room, bar = width - 34, 20 if width >= 60 else 8
    classes = dict(zip(("1xx", "2xx", "3xx", "4xx", "5xx"), rates["classes"], strict=False))
    parts = "  ".join(f"{name} {_number(count)}" for name, count in classes.items() if count)
    total = f"{_number(_arrived(rates))}/s"
    yield "", f"requests  {total:<12}{parts}  rejected {_number(rates['refused'])}"
    if left := known.get("room"):
        yield "", f"{'room':<10}{left['text']}"
    marks = "  ".join(f"{name} {_time(rates[name])}" for name in ("p50", "p95", "p99"))
    yield "", f"latency   {marks}  queued p95 {_time(rates['queued95'])}"
    threads = sum(worker["threads"] for worker in known["workers"] if worker["state"] == "serving")
    busy = f"{rates['busy']}/{threads} busy, {rates['waiting']} wait"
    yield "", f"threads   {_bar(rates['busy'], threads, bar)} {busy}"
    limit = known["memory_limit"]
    of = f" of {format_size(limit)}" if limit else ""
    yield "", f"memory    {_bar(rates['memory'], limit, bar, least=0)} {format_size(rates['memory'])}{of}"
    seen = points[-max(10, room) :]
    arrived, p95 = [_arrived(point) for point in seen], [point["p95"] for point in seen]
    yield "", f"{'req/s':<10}{sparkline(arrived)} up to {_number(_highest(arrived))}/s"
    yield "", f"{'p95':<10}{sparkline(p95)} up to {_time(_highest(p95))}"


def _arrived(rates: dict[str, Any]) -> float | None:
    """Return the requests that arrived each second: answered plus rejected ones."""
    answered, refused = rates["requests"], rates["refused"]
    return None if answered is None else answered + (refused or 0.0)


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


class Column(NamedTuple):
    """A column of the table of workers; negative widths are left-aligned."""

    name: str
    width: int


COLUMNS = (
    *(Column("worker", -9), Column("state", -10), Column("busy", -16), Column("limit", 5)),
    *(Column("wait", 5), Column("CPU", 6), Column("memory", 10), Column("conns", 7), Column("requests", 12)),
)
DROPPED = ("requests", "conns", "limit", "memory", "wait", "CPU")
"""Columns that a narrow terminal omits, in the order of removal."""


def _columns(width: int) -> list[Column]:
    columns = list(COLUMNS)
    for name in DROPPED:
        if sum(abs(column.width) for column in columns) <= width:
            break
        columns = [column for column in columns if column.name != name]
    return columns


def _cells(columns: Sequence[Column], values: dict[str, str]) -> str:
    return "".join(
        f"{values[name]:<{-width}}" if width < 0 else f"{values[name]:>{width}}" for name, width in columns
    ).rstrip()


def _workers(workers: Sequence[dict[str, Any]], width: int) -> Iterator[Line]:
    columns = _columns(width)
    yield "quiet", _cells(columns, {name: name for name, _ in COLUMNS})
    for worker in workers:
        values = {
            "worker": str(worker["pid"]),
            "state": worker["state"],
            "busy": f"{_bar(worker['busy'], worker['threads'], 8)} {worker['busy']}/{worker['threads']}",
            "limit": str(worker["concurrency_limit"]),
            "wait": str(worker["queue"]),
            "CPU": f"{100 * worker['share']:.0f} %" if worker["share"] is not None else "-",
            "memory": format_size(worker["memory"]),
            "conns": str(worker["connections"]),
            "requests": f"{worker['requests']:,}",
        }
        yield "", _cells(columns, values)
        if words := loop_words(worker):
            yield "quiet", f"         asyncio loop: {words}"
        if (oldest := worker["oldest"]) and oldest["age"] >= 1:
            yield "warn", f"         {oldest['age']:.0f} s: {oldest['method']} {oldest['path']}"


def _event(event: dict[str, Any]) -> Line:
    return event["level"], f"{clock(event['time'])}  {event['kind']:<11} {event['text']}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 9.95 or not value else f"{value:.1f}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else format_latency(seconds)


def _bar(value: float, most: float | None, length: int, *, least: int = 1) -> str:
    """Return a bar for the used part of a resource; at least ``least`` cells if any of it is used."""
    share = min(1.0, value / most) if most else 0.0
    full = max(round(length * share), least if share else 0)
    return f"[{'#' * full}{'.' * (length - full)}]"


def sparkline(values: Sequence[float | None]) -> str:
    """Return a line of bars, one for each value; a blank for a missing value."""
    most = max((value for value in values if value), default=0.0)
    return "".join(BARS[max(1, round(8 * value / most))] if value else BARS[0] for value in values)
