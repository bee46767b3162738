"""``prodserve completion bash|zsh|fish``: scripts generated from the option rows and the actions.

Runs in a command without a project. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..config.kinds import PATH
from ..config.options import option_fields
from ..config.row import Row
from ..errors import UsageError
from ..export.kinds import KINDS
from ..utils import manual
from .actions import ACTIONS
from .arguments import OTHER_FLAGS

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


def _spellings(row: Row) -> list[str]:
    return [row.flag, row.short] if row.short else [row.flag]


def _choices(row: Row) -> list[str]:
    """Return the words that an option accepts, if it accepts only certain words."""
    return row.metavar.split("|") if "|" in row.metavar and row.metavar.islower() else []


def _flags() -> list[str]:
    return [*(flag for row in option_fields() for flag in _switches(row)), *OTHER_FLAGS]


def _names() -> list[str]:
    """Return the names of options: ``plan`` and ``help`` take them."""
    return [row.topic for row in option_fields()]


def _topics() -> list[str]:
    return sorted({*manual.topics(), *_names()})


def _valued() -> list[str]:
    """Return the flags whose value cannot be completed."""
    rows = [row for row in option_fields() if not (row.kind.is_switch or _choices(row) or row.kind is PATH)]
    return [*(flag for row in rows for flag in _spellings(row)), *_others(is_path=False)]


def _others(*, is_path: bool) -> list[str]:
    """Return the flags without a row whose value is a path, or any other value."""
    return [flag for flag, other in OTHER_FLAGS.items() if other.value and other.is_path == is_path]


def _bash() -> Iterator[str]:
    yield "_prodserve() {"
    yield '  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"'
    yield "  # bash splits --flag=value into three words."
    yield '  if [[ "$cur" == "=" ]]; then cur=""'
    yield '  elif [[ "$prev" == "=" ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi'
    yield '  case "$prev" in'
    for row in option_fields():
        if choices := _choices(row):
            yield f"    {'|'.join(_spellings(row))}) {_bash_words(choices)}; return ;;"
    paths = "|".join(flag for row in option_fields() if row.kind is PATH for flag in _spellings(row))
    paths = "|".join([paths, *_others(is_path=True)])
    yield f"    {paths}) local IFS=$'\\n'; compopt -o filenames 2>/dev/null"
    yield '      COMPREPLY=($(compgen -f -- "$cur")); return ;;'
    yield f"    {'|'.join(_valued())}) COMPREPLY=(); return ;;"
    yield f"    help|explain) {_bash_words(_topics())}; return ;;"
    yield f"    completion) {_bash_words(SHELLS)}; return ;;"
    yield "  esac"
    yield f'  if [[ "$cur" == -* ]]; then {_bash_words(_flags())}'
    yield f'  elif [[ " ${{COMP_WORDS[*]:0:COMP_CWORD}} " == *" plan "* ]]; then {_bash_words(_names())}'
    yield f'  elif [[ " ${{COMP_WORDS[*]:0:COMP_CWORD}} " == *" export "* ]]; then {_bash_words(KINDS)}'
    yield f"  else {_bash_words(ACTIONS)}; fi"
    yield "}"
    yield "complete -F _prodserve prodserve"


def _bash_words(words: Iterable[str]) -> str:
    return f'COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$cur"))'


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh_text(text: str) -> str:
    return _quoted(text).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _zsh() -> Iterator[str]:
    yield "_prodserve() {"
    yield "  local -a actions state line"
    yield "  actions=("
    for name, text in ACTIONS.items():
        yield f"    '{name}:{_quoted(text)}'"
    yield "  )"
    for words, offered in (
        ("${words[CURRENT-1]} == (help|explain)", _topics()),
        ("${words[CURRENT-1]} == completion", SHELLS),
        ("${words[CURRENT-1]} == plan && ${words[CURRENT]} != -*", _names()),
        ("${words[CURRENT-1]} == export && ${words[CURRENT]} != -*", KINDS),
    ):
        yield f"  if [[ {words} ]]; then"
        yield f"    compadd -- {' '.join(offered)}"
        yield "    return"
        yield "  fi"
    yield "  _arguments \\"
    for row in option_fields():
        for flag in (*_switches(row), *_spellings(row)[1:]):
            equals = "" if row.kind.is_switch or flag == row.short else "="
            yield f"    '*{flag}{equals}[{_zsh_text(row.help)}]{_zsh_value(row)}' \\"
    for flag, other in OTHER_FLAGS.items():
        value = ":file:_files" if other.is_path else f":{flag[2:]}: " if other.value else ""
        yield f"    '{'*' * other.is_repeated}{flag}[{_zsh_text(other.about)}]{value}' \\"
    yield "    '*:action:->action'"
    yield "  if [[ $state == action ]]; then _describe action actions; fi"
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
    first = f"not __fish_seen_subcommand_from {' '.join(ACTIONS)}"
    for name, text in ACTIONS.items():
        yield f"complete -c prodserve -n '{first}' -a {name} -d '{_fish_text(text)}'"
    for seen, words in (
        ("help explain", _topics()),
        ("completion", SHELLS),
        ("plan", _names()),
        ("export", KINDS),
    ):
        yield f"complete -c prodserve -n '__fish_seen_subcommand_from {seen}' -a '{' '.join(words)}'"
    for row in option_fields():
        for flag in _switches(row):
            value = "" if row.kind.is_switch else " -r -F" if row.kind is PATH else " -x"
            value += f" -a '{' '.join(_choices(row))}'" if _choices(row) else ""
            value += f" -s {row.short[1:]}" if row.short else ""
            yield f"complete -c prodserve -l {flag[2:]} -d '{_fish_text(row.help)}'{value}"
    for flag, other in OTHER_FLAGS.items():
        value = " -r -F" if other.is_path else " -x" if other.value else ""
        yield f"complete -c prodserve -l {flag[2:]} -d '{_fish_text(other.about)}'{value}"


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
