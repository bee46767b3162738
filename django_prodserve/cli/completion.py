"""``prodserve completion bash|zsh|fish``: scripts generated from the option rows and the actions.

Runs in a command without a project. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..config.kinds import PATH
from ..config.options import option_fields
from ..config.row import Row
from ..errors import UsageError
from ..utils import manual
from .actions import ACTIONS
from .arguments import WORDS

SHELLS = ("bash", "zsh", "fish")
USE = {
    "bash": 'eval "$(prodserve completion bash)"            # in ~/.bashrc',
    "zsh": 'eval "$(prodserve completion zsh)"             # in ~/.zshrc, after compinit',
    "fish": "prodserve completion fish | source             # in ~/.config/fish/config.fish",
}


def script(words: Sequence[str]) -> str:
    """Return the script for the named shell; raise UsageError if the shell is missing or not supported."""
    shell = words[0] if len(words) == 1 else ""
    makers = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in makers:
        asked = f"not {' '.join(words)!r}" if words else "and it was not named"
        fix = f"For example: {USE['bash'].partition('  #')[0].strip()}"
        raise UsageError(f"The shell must be bash, zsh or fish, {asked}.", fix, topic="completion")
    return "\n".join([f"# prodserve completion for {shell}. {USE[shell]}", *makers[shell](), ""])


def _switches(row: Row) -> list[str]:
    return [row.flag, row.flag.replace("--", "--no-", 1)] if row.kind.is_switch else [row.flag]


def _choices(row: Row) -> list[str]:
    """Return the words that an option accepts, if it accepts only certain words."""
    return row.metavar.split("|") if "|" in row.metavar and row.metavar.islower() else []


def _flags() -> list[str]:
    return [*(flag for row in option_fields() for flag in _switches(row)), *WORDS, "--skip-checks", "--help"]


def _topics() -> list[str]:
    return sorted({*manual.topics(), *(row.name.replace("_", "-") for row in option_fields())})


def _bash() -> Iterator[str]:
    yield "_prodserve() {"
    yield '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield '  case "$prev" in'
    for row in option_fields():
        if choices := _choices(row):
            yield f'    {row.flag}) COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$cur")); return ;;'
    paths = "|".join(row.flag for row in option_fields() if row.kind is PATH)
    yield f'    {paths}) COMPREPLY=($(compgen -f -- "$cur")); return ;;'
    valued = "|".join(
        row.flag for row in option_fields() if not (row.kind.is_switch or _choices(row) or row.kind is PATH)
    )
    yield f"    {valued}) COMPREPLY=(); return ;;"
    yield f'    help|explain) COMPREPLY=($(compgen -W "{" ".join(_topics())}" -- "$cur")); return ;;'
    yield f'    completion) COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$cur")); return ;;'
    yield "  esac"
    yield '  if [[ "$cur" == -* ]]; then'
    yield f'    COMPREPLY=($(compgen -W "{" ".join(_flags())}" -- "$cur"))'
    yield "  else"
    yield f'    COMPREPLY=($(compgen -W "{" ".join(ACTIONS)}" -- "$cur"))'
    yield "  fi"
    yield "}"
    yield "complete -F _prodserve prodserve"


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh_text(text: str) -> str:
    return _quoted(text).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _zsh() -> Iterator[str]:
    yield "_prodserve() {"
    yield "  local -a actions"
    yield "  actions=("
    for name, text in ACTIONS.items():
        yield f"    '{name}:{_quoted(text)}'"
    yield "  )"
    yield "  if [[ ${words[CURRENT-1]} == (help|explain) ]]; then"
    yield f"    compadd -- {' '.join(_topics())}"
    yield "    return"
    yield "  fi"
    yield "  if [[ ${words[CURRENT-1]} == completion ]]; then"
    yield f"    compadd -- {' '.join(SHELLS)}"
    yield "    return"
    yield "  fi"
    yield "  _arguments -s \\"
    for row in option_fields():
        for flag in _switches(row):
            yield f"    '*{flag}[{_zsh_text(row.help)}]{_zsh_value(row)}' \\"
    for flag, text in WORDS.items():
        yield f"    '{flag}[{_zsh_text(text)}]' \\"
    yield "    '*:action:{_describe action actions}'"
    yield "}"
    yield "compdef _prodserve prodserve"


def _zsh_value(row: Row) -> str:
    if row.kind.is_switch:
        return ""
    if choices := _choices(row):
        return f":{row.name}:({' '.join(choices)})"
    return f":{row.name}:{'_files' if row.kind is PATH else ' '}"


def _fish() -> Iterator[str]:
    yield "complete -c prodserve -f"
    for name, text in ACTIONS.items():
        yield f"complete -c prodserve -n __fish_use_subcommand -a {name} -d '{_fish_text(text)}'"
    reading = "__fish_seen_subcommand_from help explain"
    yield f"complete -c prodserve -n '{reading}' -a '{' '.join(_topics())}'"
    yield f"complete -c prodserve -n '__fish_seen_subcommand_from completion' -a '{' '.join(SHELLS)}'"
    for row in option_fields():
        for flag in _switches(row):
            value = "" if row.kind.is_switch else " -r"
            value += f" -a '{' '.join(_choices(row))}'" if _choices(row) else ""
            value += " -F" if row.kind is PATH else ""
            yield f"complete -c prodserve -l {flag.removeprefix('--')} -d '{_fish_text(row.help)}'{value}"
    for flag, text in WORDS.items():
        yield f"complete -c prodserve -l {flag.removeprefix('--')} -d '{_fish_text(text)}'"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
