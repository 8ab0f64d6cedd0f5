"""Options from typed dataclasses: the same names in YAML (``--config``, ``--print_config``), on the command line and in Python.

jsonargparse does the parsing. This page adds the habits of a command line: dashes in names, bare boolean flags with
their ``--no-`` form, list options that may be repeated, one positional argument, and errors of one line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

import jsonargparse

from gpt3.errors import InputError

T = TypeVar("T")

PARSER_OPTIONS = ("config", "print_config", "help")


class _Parser(jsonargparse.ArgumentParser):
    """Shows names with dashes, and raises InputError in place of printing a usage text of many lines."""

    hints: dict[str, Any]
    """Types of the options, for messages."""

    def format_help(self, *arguments: Any, **keywords: Any) -> str:
        text = super().format_help(*arguments, **keywords)
        return re.sub(r"--(?!print_config)([a-z0-9_]+)", lambda m: _shown(m[1]), text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(_one_line(message, self.hints))


def _one_line(message: str, hints: dict[str, Any]) -> str:
    """jsonargparse's message of several lines as one, in the words of a command line."""
    match = re.match(r'Parser key "(\w+)":.*(?:Got value|Given value): (.*)', message, re.DOTALL)
    if match and match[1] in hints:
        return f"{_shown(match[1])} {match[2]} must be {_kind(hints[match[1]])}"
    if match := re.match(r"Option '(\w+)' is not accepted", message):
        return f"--config: {_unknown(match[1], hints)}"
    if match := re.match(r"the following arguments are required: (.*)", message):
        return f"{', '.join(map(_shown, match[1].split(', ')))} must be given"
    if message.startswith("Unexpected config:"):
        return "--config must be a YAML file with a line `option: value` for each option"
    if match := re.match(r"Parser key \"config\": (?:File does not exist|Path is not a file): '(.*)'", message):
        return f"--config {match[1]}: no such file; give a YAML file"
    message = re.sub(r'Parser key "(\w+)":', lambda m: _shown(m[1]) + ":", message)
    message = message.replace("Problems parsing config:", "--config is not YAML:")
    return " ".join(part.strip().rstrip(".") for part in message.splitlines() if part.strip())


def _kind(hint: Any) -> str:
    """What values of a type are, in words."""
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        list: "a list",
        dict: "a mapping",
    }
    parts = [hint] if not _is_union(hint) else [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(parts[0]) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(parts[0])))
    return " or ".join(words.get(typing.get_origin(part) or part, str(part)) for part in parts)


def _shown(name: str) -> str:
    """An option as it is written: ``batch_tokens`` as ``--batch-tokens``."""
    return "--" + name.replace("_", "-")


def build_parser(options: type[Any], command: str) -> jsonargparse.ArgumentParser:
    """A parser for the dataclass `options`; the text below each field is its help."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    description = (options.__doc__ or "").strip().split("\n\n")[0]
    parser = _Parser(prog=f"gpt3 {command}", description=description, exit_on_error=True)
    parser.hints = typing.get_type_hints(options)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_class_arguments(options, nested_key=None)
    return parser


def parse(options: type[T], arguments: Sequence[str], *, command: str, positional: str | None = None) -> T:
    """An instance of the dataclass `options` from command-line `arguments`.

    Args:
        positional: the field that takes an argument without a name; all of them, where it is a list.

    Raises:
        InputError: an unknown option or a value of the wrong kind, in one line.
        SystemExit: after ``--help`` or ``--print_config``.
    """
    parser = build_parser(options, command)
    canonical, text = _canonical(options, arguments, positional)
    try:
        parsed = parser.parse_args(canonical)
    except UnicodeDecodeError as error:
        raise InputError(f"--config is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    values = {field.name: parsed[field.name] for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    if positional is not None and text is not None and _is(str, typing.get_type_hints(options)[positional]):
        values[positional] = text
    return options(**values)


def _canonical(options: type[Any], arguments: Sequence[str], positional: str | None) -> tuple[list[str], str | None]:
    """Rewrite `arguments` into jsonargparse's form: ``--name=value`` with underscores, lists as JSON.

    Returns:
        The arguments, and the text of a positional one that is no list: to the letter, for jsonargparse reads ``null`` as None.
    """
    hints = typing.get_type_hints(options)
    lists: dict[str, list[str]] = {}
    result: list[str] = []
    text: str | None = None
    rest = list(arguments)
    named = True  # until ``--``, behind which nothing is a name
    while rest:
        argument = rest.pop(0)
        if named and argument in ("-h", "--help"):
            result.append("--help")
            continue
        if named and argument == "--":
            named = False
            continue
        if not named or not argument.startswith("--"):
            if positional is None:
                raise InputError(
                    f"unexpected argument {argument!r}; every option of this command has a name, see --help"
                )
            if _is(list, hints[positional]):  # gpt3 report A B C
                lists.setdefault(positional, []).append(argument)
                continue
            if text is not None or any(item.startswith(f"--{positional}=") for item in result):
                raise InputError(f"unexpected second argument {argument!r}; put the {positional} in quotes")
            text = argument
            if argument != "--":  # which argparse would drop
                result.append(f"--{positional}={argument}")
            continue
        name, equals, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name not in hints and name.startswith("no_") and _is(bool, hints.get(name[3:])):
            if equals:
                raise InputError(f"{_shown(name)} takes no value; leave out {equals + value!r}")
            result.append(f"--{name[3:]}=false")
            continue
        if name not in hints:
            if name not in PARSER_OPTIONS:
                raise InputError(_unknown(name, hints))
            result.append(f"--{name}" + (equals + value if equals else ""))
            if name == "config" and not equals:
                result[-1] += "=" + _value_of(name, rest)
            continue
        if _is(bool, hints[name]) and not equals:
            value = rest.pop(0).lower() if rest and rest[0].lower() in ("true", "false") else "true"
        elif not equals:
            value = _value_of(name, rest)
        if _is(list, hints[name]):
            lists.setdefault(name, []).extend(_items(value))
            # --data a.txt b.txt; but of `generate --stop END "Once upon"` the second is the prompt
            while positional is None and rest and not rest[0].startswith("-") and not equals:
                lists[name].append(rest.pop(0))
        else:
            result.append(f"--{name}={value}")
    return result + [f"--{name}={json.dumps(values)}" for name, values in lists.items()], text


def _items(value: str) -> list[str]:
    """The values of a list option: a JSON list of strings, or any other text as it is (``[END]`` is one)."""
    if value.startswith("[") and value.endswith("]"):
        try:
            found = json.loads(value)
        except ValueError:
            return [value]
        if isinstance(found, list) and all(isinstance(item, str) for item in found):
            return found
    return [value]


def _value_of(name: str, rest: list[str]) -> str:
    """The argument that follows ``--name``. A negative number is a value, another option is not."""
    if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
        raise InputError(f"{_shown(name)} needs a value")
    return rest.pop(0)


def _is(kind: type, hint: Any) -> bool:
    """Whether a type hint is `kind`, or `kind` or None."""
    if _is_union(hint):
        return any(_is(kind, part) for part in typing.get_args(hint))
    return (typing.get_origin(hint) or hint) is kind


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _unknown(name: str, hints: dict[str, Any]) -> str:
    """The message for an unknown option, with the nearest known one."""
    near = difflib.get_close_matches(name, [*hints, *PARSER_OPTIONS], n=1)
    return f"unknown option {_shown(name)}; " + (
        f"did you mean {_shown(near[0])}?" if near else "--help lists them all"
    )
