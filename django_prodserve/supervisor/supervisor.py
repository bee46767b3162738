"""The supervisor: the small process whose pid stays, while generations of the server come and go.

A separate process, one thread: the command's process becomes it by exec, so nothing of Django stays in it. It
holds the listening sockets, starts generations, forwards signals, and notifies systemd. It uses the standard
library alone, with all imports at the top, because its release may be removed while it runs. protocol.py
describes the states of a generation, and the messages between a generation and its supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config import env_file
from ..utils import log_lines
from . import run_directory
from .generation import GenerationProcess, Orphans, ending, exit_code
from .protocol import LaunchSpec, Message, MessageKind, ServingFacts
from .sd_notify import Notifier

SIGNALS = ("HUP", "TERM", "INT", "QUIT", "CHLD", "USR1", "USR2", "TTIN", "TTOU", "WINCH")
# Seconds before a generation that died is started again.
BACK_OFF_SECONDS = (0.0, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
MAX_FAILED_STARTS = 8  # failed starts in a row that end the server: an orchestrator must see it
STOP_ACCEPTING_SECONDS = 2.0  # seconds until the old generation is assumed to accept no more
STABLE_AFTER = 10.0  # seconds of service after which the next death counts as the first


class Supervisor:
    """The running server and pending requests. ``spec`` is the command's data (launch.py)."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.spec = spec
        self.record = spec["record"]
        self.place = spec["place"]
        self.notifier = Notifier(spec["notify"], spec["watchdog"])
        self.terminal = os.isatty(0)
        self.booting: GenerationProcess | None = None
        self.serving: GenerationProcess | None = None
        self.retiring: GenerationProcess | None = None
        self.orphans = Orphans()
        self.number = 0
        self.extra_workers = 0
        self.reload_wanted = self.reopen_wanted = False
        self.reload_started = 0.0  # monotonic; 0 if the generation that boots is not a reload
        self.finish_at = 0.0  # monotonic; 0 if no generation is about to stop
        self.stop_deadline = 0.0  # monotonic; 0 while no stop was requested
        self.exit_code = 0
        self.ended_early = self.lost_lines = 0
        self.start_at = 0.0
        if spec["first"]:
            self.number = 1
            self.booting = GenerationProcess.forked(spec["first"]["pid"], spec["first"]["channel"])

    def run(self) -> int:
        """Run until there is no generation left; return the exit code."""
        wake = _listen_to_signals()
        while True:
            self._start_next()
            if self._is_done():
                self._clean_up()
                return self.exit_code
            _wait(wake, [child.channel for child in self._children()], self._seconds())
            for number in _drain(wake):
                self._signal(number)
            for child in self._children():
                for message in child.messages():
                    self._on_message(child, message)
            self._reap()
            self._enforce_deadlines()

    def _children(self) -> list[GenerationProcess]:
        return [child for child in (self.booting, self.serving, self.retiring) if child is not None]

    def _seconds(self) -> float:
        """Return how long the supervisor may sleep: until the next deadline, or the next start."""
        moments = [child.deadline for child in self._children() if child.deadline]
        if self.finish_at:
            moments.append(self.finish_at)
        if self.orphans:
            moments.append(time.monotonic() + 1)
        if not self.stop_deadline and not self.serving and not self.booting:
            moments.append(self.start_at)
        return max(0.0, min([60.0, *(moment - time.monotonic() for moment in moments)]))

    # Requests

    def _signal(self, number: int) -> None:
        if number in {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}:
            self._stop(number)
        elif number == signal.SIGHUP and self._terminal_is_gone():
            self._stop(signal.SIGTERM)
        elif number == signal.SIGHUP and not self.stop_deadline:
            self.reload_wanted = True
        elif number == signal.SIGUSR2:
            self.say(
                "SIGUSR2 has no effect: to serve new code, send SIGHUP or run prodserve reload.", "WARNING"
            )
        elif number in {signal.SIGTTIN, signal.SIGTTOU}:
            wanted = self.extra_workers + (1 if number == signal.SIGTTIN else -1)
            self.extra_workers = max(wanted, 1 - self.record.get("workers", 1))
            self._tell_workers()
        elif number == signal.SIGUSR1:
            self.reopen_wanted = self.booting is not None  # it would end a generation that still boots
            for child in (self.serving, self.retiring):
                if child is not None:
                    child.kill(number)

    def _tell_workers(self) -> None:
        """Forward a change in the number of workers; it would stop a generation that still boots."""
        while self.serving and (missing := self.extra_workers - self.serving.extra_workers):
            step = 1 if missing > 0 else -1
            self.serving.kill(signal.SIGTTIN if step > 0 else signal.SIGTTOU)
            self.serving.extra_workers += step

    def _terminal_is_gone(self) -> bool:
        """Return whether SIGHUP has its original meaning: the terminal that we were started in was closed."""
        if self.terminal:
            try:
                os.tcgetpgrp(0)
            except OSError:
                return True
        return False

    def _stop(self, number: int) -> None:
        """Stop all generations; a second Ctrl-C or SIGQUIT stops them immediately."""
        again = bool(self.stop_deadline)
        if again and number != signal.SIGTERM:
            for child in self._children():
                child.kill(signal.SIGINT)
                child.deadline = min(child.deadline, time.monotonic() + 2)
        if again:
            return
        self.notifier.stopping()
        self.reload_wanted = False
        now = time.monotonic()
        for child in self._children():
            child.kill(signal.SIGTERM)
            if child is not self.retiring:
                child.deadline = now + child.seconds_to_stop + 0.8
        self.stop_deadline = max([now, *(child.deadline for child in self._children())])
        self._close_listeners()  # the workers' copies stay open until each of them stops

    # Messages of generations

    def _on_message(self, child: GenerationProcess, message: Message) -> None:
        """Handle a message; one of a newer release without a required field must not end the server."""
        try:
            self._act_on(child, message)
        except (KeyError, TypeError) as error:
            self.say(f"Generation {child.number} sent a message without {error}: it is ignored.", "ERROR")

    def _act_on(self, child: GenerationProcess, message: Message) -> None:
        if message["kind"] is MessageKind.FAILED:
            child.reason, child.problems = message["reason"], message.get("problems", ())
        elif message["kind"] is MessageKind.READY:
            if child is self.booting:
                self._on_ready(child, message["facts"])
        elif message["kind"] is MessageKind.CHANGED:
            if child is self.serving and not self.stop_deadline:
                self.say(f"{message['file']} changed: reloading")
                self.reload_wanted = True
        elif message["kind"] is MessageKind.BEAT and child is self.serving:
            self.notifier.alive()
        elif message["kind"] is MessageKind.STOPPED_ACCEPTING and child is self.retiring:
            self._finish_reload("")

    def _on_ready(self, child: GenerationProcess, facts: ServingFacts) -> None:
        """A generation answers: it serves from now on, and the one before may stop."""
        child.mark_ready()
        child.deadline = 0.0
        child.served_since = time.monotonic()
        child.seconds_to_stop = facts["seconds_to_stop"]
        self.booting, self.retiring, self.serving = None, self.serving, child
        if self.retiring:
            self.retiring.retire()
        self.record.update({**self.record, **facts, "generation": child.number, "ready": True})
        self._save()
        self._tell_workers()
        if self.reopen_wanted:
            self.reopen_wanted = False
            child.kill(signal.SIGUSR1)
        if self.retiring:
            self.finish_at = (
                time.monotonic() + STOP_ACCEPTING_SECONDS
            )  # or sooner, when it reports that it accepts no more
        else:
            self.notifier.ready(f"serving, generation {child.number}")
            self._finish_reload("")

    # Ended processes

    def _reap(self) -> None:
        """Reap children that ended; PID 1 adopts foreign processes, which are only reaped."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = next((candidate for candidate in self._children() if candidate.pid == pid), None)
            if child is not None:
                for message in child.messages():
                    self._on_message(child, message)
                self._ended(child, status)

    def _ended(self, child: GenerationProcess, status: int) -> None:
        was_booting, was_serving = child is self.booting, child is self.serving
        self.booting, self.serving, self.retiring = (
            None if other is child else other for other in (self.booting, self.serving, self.retiring)
        )
        if (was_booting or was_serving) and not self.stop_deadline:
            self.orphans.adopt(child)
        if was_booting and not self.stop_deadline:
            self._failed_to_boot(child, status)
        elif was_booting and not self.record["ready"]:  # stopped before it served: it knows its own progress
            self.exit_code = exit_code(status)
        elif was_serving and not self.stop_deadline:
            self.say(f"Generation {child.number} {ending(status)}; starting another.", "ERROR")
            if time.monotonic() - child.served_since >= STABLE_AFTER:
                self.ended_early = 0
            self._start_later()
        elif not was_booting and not was_serving:
            self._finish_reload("")
        child.end()

    def _failed_to_boot(self, child: GenerationProcess, status: int) -> None:
        otherwise = f"it {ending(status)} before it was ready"
        reason = child.why_it_ended(otherwise, self.spec["log_format"])
        if self.serving:
            self._fail_reload(self.serving, reason, child.problems)
        elif not self.record["ready"]:
            if os.WIFSIGNALED(status):  # otherwise it has reported the reason itself
                self.say(f"The server {ending(status)} before all workers were ready.", "ERROR")
            self._give_up(exit_code(status) or 1)
        else:
            self.say(f"Generation {child.number} cannot start: {reason}", "ERROR")
            self._start_later()

    def _start_later(self) -> None:
        self.start_at = time.monotonic() + BACK_OFF_SECONDS[min(self.ended_early, len(BACK_OFF_SECONDS) - 1)]
        self.ended_early += 1
        if self.ended_early > MAX_FAILED_STARTS:
            self.say(f"{MAX_FAILED_STARTS} starts in a row have failed: giving up.", "ERROR")
            self._give_up(1)

    def _give_up(self, code: int) -> None:
        """End with this code when no generation is left."""
        self.exit_code = code
        self.stop_deadline = time.monotonic()

    def _enforce_deadlines(self) -> None:
        now = time.monotonic()
        if self.finish_at and now >= self.finish_at:
            self._finish_reload("")
        self.orphans.tick(now)
        for child in self._children():
            if child.deadline and now >= child.deadline:
                if child is self.booting:
                    child.reason = f"it was not ready within {self.spec['boot_seconds']:g} s"
                elif not child.killed:
                    child.killed = True
                    self.say(f"Generation {child.number} did not stop in time: it is killed.", "ERROR")
                child.kill_all()

    # Next steps

    def _start_next(self) -> None:
        if self.stop_deadline or self.booting or self.retiring:
            return
        if not self.serving and time.monotonic() >= self.start_at:
            self._start_generation()
        elif self.serving and self.reload_wanted:
            self.reload_wanted = False
            self.record["attempts"] += 1
            self.reload_started = time.monotonic()
            self.notifier.reloading()
            self._save()
            self._start_generation()

    def _start_generation(self) -> None:
        self.number += 1
        try:
            self.booting = GenerationProcess.spawned(
                self.number, self.extra_workers, self.spec, self._environment()
            )
        except (OSError, ValueError) as error:
            reason = str(error)
            if self.serving:
                self._fail_reload(self.serving, reason)
            else:
                self.say(f"Generation {self.number} cannot start: {reason}", "ERROR")
                self._start_later()
        else:
            if self.record["ready"]:
                self.booting.deadline = time.monotonic() + self.spec["boot_seconds"]

    def _environment(self) -> dict[str, str]:
        """Return the environment from before settings ran, with the current values of --env-file."""
        environ = {name: value for name, value in os.environ.items() if name not in self.spec["hidden"]}
        if self.spec["env_file"]:
            try:
                env_file.apply(self.spec["env_file"], environ)
            except (OSError, ValueError) as error:
                refused = env_file.refusal(self.spec["env_file"], error)
                raise ValueError(" ".join(problem.message for problem in refused.problems)) from error
        return environ

    def _fail_reload(
        self, serving: GenerationProcess, reason: str, problems: Sequence[Sequence[str]] = ()
    ) -> None:
        self.say(f"Reload failed; generation {serving.number} keeps serving: {reason}", "ERROR")
        serving.report_failed_reload(self.number, reason)
        self._finish_reload(reason, problems)

    def _finish_reload(self, reason: str, problems: Sequence[Sequence[str]] = ()) -> None:
        """End a reload: the commands that wait for it may rely on the record."""
        self.finish_at = 0.0
        if not self.reload_started:
            return
        seconds = time.monotonic() - self.reload_started
        self.reload_started = 0.0
        self.record["done"] = self.record["attempts"]
        self.record["outcome"] = {
            "ok": not reason,
            "reason": reason,
            "problems": problems,
            "seconds": round(seconds, 2),
        }
        if reason:
            keeps = f"generation {self.record['generation']} keeps serving"
            self.notifier.ready(f"reload failed, {keeps}: {reason}")
        else:
            self.notifier.ready(f"serving, generation {self.number}")
            self.say(f"Reloaded in {seconds:.1f} s: generation {self.number} serves.")
        self._save()

    # Run directory, log, exit

    def _save(self) -> None:
        if self.place:
            try:
                run_directory.write(Path(self.place), self.record)
            except OSError as error:
                self.say(f"{self.place} cannot be written: {error.strerror}", "ERROR")

    def say(self, line: str, level: str = "INFO") -> None:
        """Write one line in the same form as the generations."""
        if self.lost_lines:
            told = (
                f"Standard error could not be written: {self.lost_lines} lines of the supervisor's are lost."
            )
            if self._write(told, "WARNING"):
                self.lost_lines = 0
        self.lost_lines += not self._write(line, level)

    def _write(self, line: str, level: str) -> bool:
        text = log_lines.server_line(self.spec["log_format"], 2, level, line)
        return log_lines.write_if_read(2, f"{text}\n".encode(errors="replace"))

    def _is_done(self) -> bool:
        return bool(self.stop_deadline) and not self._children()

    def _close_listeners(self) -> None:
        for _, descriptor, _ in self.spec["listeners"]:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _clean_up(self) -> None:
        self.orphans.kill()
        self._close_listeners()
        for _, _, path in self.spec["listeners"]:
            _unlink_socket(path)
        with contextlib.suppress(OSError):
            if self.spec["pidfile"]:
                os.unlink(self.spec["pidfile"])
        with contextlib.suppress(OSError):
            if self.place:
                run_directory.remove(Path(self.place))


def _unlink_socket(path: str) -> None:
    """Remove a unix socket's path, unless another process's socket has replaced it by now."""
    if path:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path):  # no process answers: ours is closed
                os.unlink(path)


def _listen_to_signals() -> int:
    """Turn signals into bytes of a pipe, then unblock those that are pending since before the exec."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    numbers = [getattr(signal, f"SIG{name}") for name in SIGNALS]
    handler: Callable[..., None] = lambda number, frame: None  # noqa: E731, the pipe reports
    for number in numbers:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return read


def _drain(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def _wait(wake: int, channels: list[socket.socket], seconds: float) -> None:
    poll = select.poll()
    for descriptor in (wake, *(channel.fileno() for channel in channels)):
        poll.register(descriptor, select.POLLIN)
    poll.poll(seconds * 1000 + 1)


def main(descriptor: int) -> int:
    """Read the data of the command's process from this descriptor, and run the supervisor."""
    with open(descriptor, encoding="utf-8") as file:
        spec = json.load(file)
    return Supervisor(spec).run()
