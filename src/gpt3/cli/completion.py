"""``gpt3 completion``: a script that completes commands, options, values and files in bash, zsh or fish.

The scripts are static, made from the options of every command, so that a key press starts no Python.
"""

from __future__ import annotations

import dataclasses
import shlex
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gpt3.cli.parsing import SHORT, value_choices
from gpt3.options import Options, documentation, flag, is_a, option_of


@dataclass(frozen=True)
class CompletionOptions(Options):
    """Print a script that completes gpt3's commands, options, values and files in your shell (docs/machine.md)."""

    shell: Literal["bash", "zsh", "fish"]
    """The shell that the script is for."""


class Flag(NamedTuple):
    """An option as it is typed."""

    names: list[str]
    """``--model`` and, if it has one, ``-m``."""
    choices: list[str]
    """The values it takes, where they are listed."""
    takes_value: bool
    """Whether a value follows."""
    text: str
    """What it does, in one sentence."""


OWN = [
    Flag(["--config"], [], True, "Read options from a YAML file"),
    Flag(["--print_config"], [], False, "Print all options as such a file"),
    Flag(["--help", "-h"], [], False, "Show the help"),
]
"""What every command has."""

BASH = """# bash completion of gpt3; made by: gpt3 completion bash
_gpt3() {
    local current=$2 previous=$3 command=${COMP_WORDS[1]} first=1 words='' options='' values=''
    if [[ $current == '=' ]]; then current=''; elif [[ $previous == '=' ]]; then previous=${COMP_WORDS[COMP_CWORD-2]}; fi
    case "$command ${COMP_WORDS[2]}" in
        @TWO@) command="$command ${COMP_WORDS[2]}"; first=2 ;;
    esac
    case $COMP_CWORD in
        1) words='@COMMANDS@' ;;
        2) case $command in
@SECOND@
        esac ;;
    esac
    if ((COMP_CWORD > first)); then
        case $command in
@OPTIONS@
        esac
        case "$command $previous" in
@VALUES@
        esac
    fi
    [[ $current == -* ]] && words=$options
    COMPREPLY=($(compgen -W "${values:-$words}" -- "$current"))
}
complete -o default -F _gpt3 gpt3
"""
ZSH = "#compdef gpt3\nautoload -U +X compinit bashcompinit\n(( $+functions[compdef] )) || compinit\nbashcompinit\n"
FISH = """# fish completion of gpt3; made by: gpt3 completion fish
function __gpt3_is
    set -l words (commandline -opc)
    test "$words[2..3]" = "$argv[1]"; or test "$words[2]" = "$argv[1]"
end
function __gpt3_at
    set -l words (commandline -opc)
    test "$words[2..]" = "$argv[1]"
end
"""


def run(options: CompletionOptions) -> None:
    """Print the script."""
    from gpt3.cli.main import COMMANDS

    flags = {name: flags_of(command.load()[0]) for name, command in COMMANDS.items()}
    summaries = {name: command.summary for name, command in COMMANDS.items()}
    if options.shell == "fish":
        print(fish(flags, summaries), end="")
    else:
        print((ZSH if options.shell == "zsh" else "") + bash(flags), end="")


def flags_of(options: type) -> list[Flag]:
    """The options of a command, as they are typed."""
    hints, texts = typing.get_type_hints(options), documentation(options)
    fields = dataclasses.fields(options)
    short = {names[0]: f"-{letter}" for letter, all_names in SHORT.items()
             if (names := [name for name in all_names if name in hints])}  # fmt: skip
    found = []
    for field in fields:
        switch = is_a(bool, hints[field.name])
        names = [flag(field.name), *([short[field.name]] if field.name in short else [])]
        if switch and field.default is not False:
            names.append(f"--no-{names[0][2:]}")
        choices = [] if switch else value_choices(hints[field.name], option_of(field).choices)
        text = " ".join(texts.get(field.name, "").split()).partition(". ")[0].rstrip(".")
        found.append(Flag(names, choices, not switch, text))
    return [*found, *OWN]


def bash(flags: Mapping[str, list[Flag]]) -> str:
    """The script for bash."""
    pairs = [name for name in flags if " " in name]
    second: dict[str, list[str]] = {}
    for first, word in map(str.split, pairs):
        second.setdefault(first, []).append(word)
    parts = {
        "TWO": "|".join(f"'{name}'" for name in pairs),
        "COMMANDS": " ".join(dict.fromkeys(name.split()[0] for name in flags)),
        "SECOND": [f"{first}) words='{' '.join(words)}' ;;" for first, words in second.items()],
        "OPTIONS": [
            f"'{name}') options='{' '.join(word for each in found for word in each.names)}' ;;" for name, found in flags.items()
        ],
        "VALUES": [
            f"{'|'.join(shlex.quote(f'{name} {word}') for word in each.names)}) values={shlex.quote(' '.join(each.choices))} ;;"
            for name, found in flags.items() for each in found if each.choices
        ],
    }  # fmt: skip
    script = BASH
    for key, lines in parts.items():
        script = script.replace(
            f"@{key}@", lines if isinstance(lines, str) else "\n".join(" " * 12 + line for line in lines)
        )
    return script


def fish(flags: Mapping[str, list[Flag]], summaries: Mapping[str, str]) -> str:
    """The script for fish, with what every command and option does."""
    lines = []
    for first in dict.fromkeys(name.split()[0] for name in flags if name.split()[0] not in flags):  # bench, tokenizer
        lines.append(f"-n \"__gpt3_at ''\" -f -a {first}")
    for name, found in flags.items():
        before, _, word = name.rpartition(" ")
        lines.append(f"-n {_quoted(f'__gpt3_at {_quoted(before)}')} -f -a {word} -d {_quoted(summaries[name])}")
        for each in found:
            spelled = " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in each.names)
            values = f" -x -a {_quoted(' '.join(each.choices))}" if each.choices else " -r" if each.takes_value else ""
            lines.append(f"-n {_quoted(f'__gpt3_is {_quoted(name)}')} {spelled}{values} -d {_quoted(each.text)}")
    return FISH + "".join(f"complete -c gpt3 {line}\n" for line in lines)


def _quoted(text: str) -> str:
    """A text in fish's single quotes, in which only these two characters are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
