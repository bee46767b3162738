"""The actions of the command: their names, likely misspellings, and addresses given in place of an action.

Runs in the process of every command. Standard library alone.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from ..config.options import option_field, option_fields
from ..errors import Problem, UsageError

ACTIONS = {
    "serve": "serve the project (the default action)",
    "plan": "print every decision with its reason, or only the named ones; starts nothing",
    "check": "load the project, send the warm-up request and try the address; serves nothing",
    "export": "print files for another machine: a systemd unit, a proxy's configuration and others",
    "tune": "measure the project on a private server, and recommend profile, threads and replicas",
    "reload": "serve new code, settings and environment without losing a request",
    "stop": "let running requests finish, then stop the server",
    "status": "print the problems, workers and events of the running server",
    "dump": "print the stack of every thread of the running server, with its request",
    "help": "explain a topic, an option, a check or a message",
    "completion": "print the completion for bash, zsh or fish",
}
CONTROL_ACTIONS = ("reload", "stop")
STATUS_ACTIONS = ("status", "dump")
"""Actions on the running server. They need its directory, and no project."""
READING_ACTIONS = ("help", "completion")
"""Actions that need no project at all. They read the words behind them themselves."""
FLAGS = {
    "--json": ("plan", "check", "status", "tune"),
    "--watch": ("status",),
    "--gunicorn-conf": ("plan",),
    "--measure": ("plan",),
    "--output": ("export",),
    "--force": ("export", "tune"),
    "--check": ("export",),
    "--server": ("export",),
    "--from": ("tune",),
    "--seconds": ("tune",),
    "--html": ("tune",),
    "--yes": ("tune",),
}
"""The action that each flag belongs to."""
ALIASES = {"explain": "help"}

SERVE = "prodserve serves the project; prodserve --local tries it on this machine."
STATUS = "prodserve status"
ANSWERS = {
    **dict.fromkeys(("start", "run", "runserver", "up", "server", "gunicorn"), SERVE),
    **dict.fromkeys(
        ("restart", "upgrade", "deploy"),
        "prodserve reload serves new code without losing a request. "
        "For a full restart: prodserve stop, then start it again.",
    ),
    **dict.fromkeys(
        ("log", "logs", "tail"),
        "The log is the server's output: journalctl -u UNIT under systemd, docker logs NAME in Docker. "
        "Request lines: --access-log -",
    ),
    **dict.fromkeys(("kill", "shutdown", "halt", "quit", "down", "exit"), "prodserve stop"),
    **dict.fromkeys(("ps", "top", "info", "health"), STATUS),
    **dict.fromkeys(("watch", "monitor"), "prodserve status --watch"),
    **dict.fromkeys(("config", "settings", "show", "options", "print-config"), "prodserve plan"),
    **dict.fromkeys(("test", "doctor", "verify", "validate", "lint"), "prodserve check"),
    **dict.fromkeys(("bench", "benchmark", "load", "loadtest", "measure", "profile"), "prodserve tune"),
    **dict.fromkeys(("stacks", "threads", "trace", "backtrace"), "prodserve dump"),
    **dict.fromkeys(("man", "docs", "manual"), "prodserve help"),
    "version": "prodserve --version",
    "local": "prodserve --local",
    "migrate": "prodserve --migrate applies migrations before it serves.",
    "collectstatic": "prodserve --collectstatic collects static files before it serves.",
    "metrics": "Serve with --management-bind 9000, then open http://127.0.0.1:9000/metrics",
}
"""The replacement for each word that other servers know as an action."""

WINDOWS = (
    "prodserve runs on Linux and macOS: Gunicorn needs fork.",
    "On Windows use WSL, or a container (and runserver for development).",
)


def listed(words: Sequence[str]) -> str:
    """Write words as a list: ``plan, check and status``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


ADDRESS = re.compile(r"[\w.\[\]:*-]*:\d+|\d+|\d+(\.\d+){3}|localhost|\[[0-9a-fA-F:.]+\]|(unix:|/|fd://).*")


def split(words: str | Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the words given as the action, and the addresses among them in the form of --bind."""
    words = [words] if isinstance(words, str) else list(words or ())
    if words and words[0] in (*READING_ACTIONS, *ALIASES):
        return words, []
    if words and words[0] == "tune":  # the words behind it are paths, which look like unix sockets
        return words, []
    addresses = [word for word in words if ADDRESS.fullmatch(word) and not _is_stray_number(word)]
    return [word for word in words if word not in addresses], [
        re.sub("^0:", "0.0.0.0:", address) for address in addresses
    ]


def _is_stray_number(word: str) -> bool:
    """Return whether a number is more likely a second value, as in ``--workers 2 3``, than a port."""
    return word.isdecimal() and int(word) < LEAST_BARE_PORT


LEAST_BARE_PORT = 80


def may_be_action(word: str) -> bool:
    """Return whether a word behind a switch may be meant as another part of the line, and not as a state."""
    if word.startswith("-") or ADDRESS.fullmatch(word) or option_field(word.replace("-", "_")):
        return True
    return bool(difflib.get_close_matches(word, {*ACTIONS, *ALIASES, *ANSWERS}, n=1))


def reading(words: Sequence[str]) -> list[str] | None:
    """Return an action that only reads, with the words behind it; None for any other action."""
    for number, word in enumerate(words):
        if word in (*READING_ACTIONS, *ALIASES):
            return [ALIASES.get(word, word), *words[number + 1 :]]
        if not word.startswith("-"):
            return None
    return None


def chosen(words: str | Sequence[str] | None) -> str:
    """Return the action, ``serve`` if none was given; raise UsageError with the word to use instead."""
    words = [words] if isinstance(words, str) else list(words or ["serve"])
    word = ALIASES.get(words[0], words[0])
    if word in READING_ACTIONS:
        return word
    if word == "plan" and all(names_a_decision(name) for name in words[1:]):
        return word
    if word in ("export", "tune"):  # the words behind it are kinds of files, or paths of the project
        return word
    unknown = [other for other in words if other not in ACTIONS]
    if unknown:
        raise UsageError.of(
            Problem(f"There is no action {name!r}.", _instead(name), code="unknown-action")
            for name in unknown
        )
    if len(words) > 1:
        named = " and ".join(words)
        raise UsageError(f"Only one action at a time: got {named}.", f"For example: prodserve {words[0]}")
    return word


def names_a_decision(word: str) -> bool:
    """Return whether a word behind ``plan`` is, or may be meant as, a decision; the plan knows them all."""
    return option_field(word.replace("-", "_")) is not None or word not in ACTIONS


def _instead(word: str) -> str:
    """Return the text to use in place of a word that is not an action."""
    if word in ANSWERS:
        return ANSWERS[word]
    close = difflib.get_close_matches(word, ACTIONS, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    if word.isdecimal():
        return f"An option takes one value. To serve on port {word}: --bind {word}"
    if word[:1].isdecimal():
        return "An address is HOST:PORT or PORT, such as 8000."
    near = difflib.get_close_matches(word, ANSWERS, n=1, cutoff=0.8)
    return ANSWERS[near[0]] if near else f"The actions are {', '.join(ACTIONS)}."


def of_gunicorn(flag: str) -> str:
    """Return the replacement for a flag of Gunicorn; empty if it is not such a flag."""
    from ..config.gunicorn import new_config  # late: only a wrong command line needs this import

    names = [name for name, setting in new_config().settings.items() if flag in (setting.cli or ())]
    if not names:
        return ""
    if ours := next((row.flag for row in option_fields() if row.gunicorn == names[0]), ""):
        return f"Here it is called {ours}."
    return f'It is Gunicorn\'s. In the settings: PRODSERVE = {{"GUNICORN": {{"{names[0]}": ...}}}}'


def serves(words: Sequence[str]) -> bool:
    """Return whether a command line starts a server, as far as its unparsed words show."""
    others = {*ACTIONS, *ALIASES, "--version", "--help", "-h"} - {"serve"}
    return not others & set(words)
