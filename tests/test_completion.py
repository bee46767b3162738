"""``prodserve completion``: what bash, zsh and fish offer. Each shell itself completes the line."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_prodserve.cli import completion
from django_prodserve.cli.actions import ACTIONS
from django_prodserve.config.options import option_fields
from django_prodserve.errors import UsageError

from .e2e.needs import need_program

PATIENCE = 30


LINES = {
    "prodserve pl": ["plan"],
    "prodserve --keep": ["--keep-alive"],
    "prodserve --profile ": ["cpu", "io"],
    "prodserve --profile=i": ["io"],
    "prodserve --no-sup": ["--no-supervisor"],
    "prodserve completion f": ["fish"],
    "prodserve help worker-cl": ["worker-class"],
    "prodserve plan worker-cl": ["worker-class"],
    "prodserve plan --js": ["--json"],
    "prodserve export systemd-": ["systemd-socket"],
    "prodserve --skip-c": ["--skip-checks"],
    "prodserve --setti": ["--settings"],
    "prodserve --workers 2 re": ["reload"],
    "prodserve -w ": [],
    "prodserve --workers ": [],
    "prodserve --settings ": [],
    "prodserve -c ./gunicorn.c": ["gunicorn.conf.py"],
    "prodserve --env-file ./a": ["a file.env"],
}
Offers = dict[str, list[str]]


def in_bash(place: Path) -> Offers:
    """Return what bash offers at the end of each line. Readline splits words at ``=``, so this does, too."""
    ask = completion.script(["bash"])
    for line in LINES:
        words = [word for part in line.split(" ") for word in re.split("(=)", part) if word]
        words += [""] * line.endswith(" ")
        ask += (
            f"COMPREPLY=(); COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _prodserve\n"
            "printf '%s\\n' \"${COMPREPLY[@]}\" %%\n"
        )
    return _by_line(_run(["bash", "-c", ask], place))


def in_fish(place: Path) -> Offers:
    """Return what fish offers at the end of each line; it describes an offer behind a tab."""
    ask = completion.script(["fish"])
    for line in LINES:
        ask += f"complete -C {shlex.quote(line)}\necho %%\n"
    found = re.sub("\t.*", "", _run(["fish", "-c", ask], place))
    return _by_line(found.replace("--profile=", ""))


def _run(command: list[str], place: Path) -> str:
    environ = {**os.environ, "HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    ended = subprocess.run(
        command, cwd=place, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def in_zsh(place: Path) -> Offers:
    """Return what zsh offers at the end of each line, typed on a terminal: its widgets work nowhere else."""
    (place / "prodserve.zsh").write_text(completion.script(["zsh"]))
    (place / ".zshrc").write_text(ZSHRC)
    environ = {**os.environ, "ZDOTDIR": str(place), "HOME": str(place), "TERM": "xterm"}
    child, terminal = pty.fork()
    if not child:
        os.chdir(place)
        os.execvpe("zsh", ["zsh", "-i"], environ)
    offered = place / "offered"
    try:
        for number, line in enumerate(LINES):
            _read_until(lambda number=number: offered.exists() and _count(offered) > number, terminal)
            os.write(terminal, f"\x15{line}\t".encode())
        _read_until(lambda: _count(offered) > len(LINES), terminal)
    finally:
        os.close(terminal)  # zsh ends with its terminal
        os.waitpid(child, 0)
    return _by_line(offered.read_text().removeprefix("%%\n"))


ZSHRC = """\
autoload -Uz compinit; compinit -D -u; source ./prodserve.zsh
compadd_noted() {
  local -a ours
  builtin compadd -O ours "$@"
  print -rl -- $ours >> offered
  builtin compadd "$@"
}
offered() {
  functions[compadd]=$functions[compadd_noted]
  _main_complete
  unfunction compadd
  compstate[insert]= compstate[list]=
  print %% >> offered
}
zle -C offered complete-word offered
bindkey '^I' offered
bindkey '^U' kill-whole-line
print %% > offered
"""


def _count(offered: Path) -> int:
    return offered.read_text().splitlines().count("%%")


def _read_until(is_done: Callable[[], bool], terminal: int) -> None:
    """Read the terminal, so that zsh can write to it."""
    shown, deadline = b"", time.monotonic() + PATIENCE
    while not is_done():
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.02)[0]:
            shown += os.read(terminal, 65536)


def _by_line(text: str) -> Offers:
    """Return the offers of each line: they end with a line of two per cent signs."""
    parts = re.split("^%%$", text, flags=re.MULTILINE)[: len(LINES)]
    return dict(zip(LINES, ([*filter(None, part.split("\n"))] for part in parts), strict=True))


SHELLS = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    need_program(shell)
    (tmp_path / "gunicorn.conf.py").touch()
    (tmp_path / "a file.env").touch()
    found = SHELLS[shell](tmp_path)
    assert {line: sorted({*map(_plain, names)}) for line, names in found.items()} == LINES


def _plain(name: str) -> str:
    """Return a name without its directory, which zsh adds later, and without the quotes of a shell."""
    return name.removeprefix("./").replace("\\ ", " ")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_action_and_option_is_completed(shell: str) -> None:
    script = completion.script([shell])
    assert all(re.search(rf"\b{name}\b", script) for name in ACTIONS)
    written = [row.flag.removeprefix("--") if shell == "fish" else row.flag for row in option_fields()]
    assert all(re.search(rf"(?<![\w]){flag}(?![\w-])", script) for flag in written)
    if shutil.which(shell):
        checked = subprocess.run(
            [shell, "-n"], input=script, text=True, capture_output=True, timeout=PATIENCE
        )
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_told_which_there_are(words: list[str]) -> None:
    with pytest.raises(UsageError, match="bash, zsh or fish"):
        completion.script(words)
