"""Command-line arguments and YAML files to an options dataclass: the same names in ``--config``, as flags and in Python; and
the text of ``gpt3 COMMAND --help``, made from the dataclass's fields and the text below each.

Names are typed with dashes; bare flags set booleans and ``--no-NAME`` clears them; list options take several values and may be
repeated; one argument may be positional. What does not convert stays a text, which gpt3.options then refuses by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import textwrap
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gpt3.errors import InputError, yaml_fault
from gpt3.options import (
    MOST_WHOLE,
    default_of,
    documentation,
    flag,
    is_a,
    is_required,
    option_of,
    value_errors,
    without_none,
)

T = TypeVar("T")

OWN = ("config", "print_config", "help", "help_all")
"""Options that every command has."""
SHORT = {
    "m": ("model",),
    "o": ("out", "output"),
    "n": ("max_new_tokens", "new_tokens", "steps"),
    "p": ("prompt", "port"),
}
"""Short flags: the first of these options that a command has."""
WIDTH = 80
INDENT = 26
FEW = 20
"""A command with more options than this shows its common ones first, and all only after ``--help-all``."""


class _Loader(yaml.SafeLoader):
    """YAML in which ``1e-3`` is a number, as people write it, and dates are texts."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


def parse(options: type[T], arguments: Sequence[str], *, command: str, positional: str | None = None) -> T | None:
    """An instance of the dataclass `options` from command-line `arguments`; None after --help, --help-all and --print_config.

    Args:
        positional: the field that takes an argument without a name; all of them, where it is a list.

    Raises:
        InputError: an unknown option or a value of the wrong kind, in one line.
    """
    given = _Given(options, positional)
    rest = list(arguments)
    while rest:
        given.take(rest)
    if given.asked_help is not None:
        print(command_help(options, command, positional, everything=given.asked_help == "help_all"))
        return None
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    missing = [f.name for f in fields if f.name not in given.values and is_required(f)]
    if given.print_config:
        defaults = {f.name: None if is_required(f) else default_of(f) for f in fields}
        if not missing:
            defaults = dataclasses.asdict(_make(options, given.values))  # type: ignore[call-overload]
        print(config_file(options, {**defaults, **given.values}), end="")
        return None
    if missing:
        told = [(flag(name), ", ".join(value_choices(given.hints[name], None))) for name in missing]
        raise InputError(f"{', '.join(f'{n} ({values})' if values else n for n, values in told)} must be given")
    return _make(options, given.values)


def _make(options: type[T], values: dict[str, Any]) -> T:
    """The instance; types are checked first, so that a dataclass's own checks meet no text where they expect a number."""
    if found := value_errors(options, values, ranges=False):
        raise InputError("; ".join(found))
    return options(**values)


class _Given:
    """What the arguments say, taken one after another; a later one replaces an earlier one."""

    def __init__(self, options: type[Any], positional: str | None) -> None:
        self.hints = typing.get_type_hints(options)
        self.positional = positional
        self.values: dict[str, Any] = {}
        self.lists: set[str] = set()  # list options whose items came as arguments; further ones are added
        self.asked_help: str | None = None
        self.print_config = False
        self.last: str | None = None  # the option taken last, if it takes one value

    def take(self, rest: list[str]) -> None:
        """Take the next argument, and its value where it is a separate one, from `rest`."""
        argument = rest.pop(0)
        if argument == "--":
            while rest:
                self._positional(rest.pop(0))
            return
        if argument == "-" or not argument.startswith("-"):
            self._positional(argument)
            return
        written, equals, value = argument.partition("=")
        name = self._name(written, argument)
        self.last = (
            name if name in self.hints and not any(is_a(kind, self.hints[name]) for kind in (bool, list)) else None
        )
        if name in ("help", "help_all"):
            self.asked_help = name
        elif name == "print_config":
            self.print_config = True
        elif name == "config":
            self._config(value if equals else _value_of(written, rest))
        elif name not in self.hints:  # --no-NAME
            if equals:
                raise InputError(f"{written} takes no value; leave out {equals + value!r}")
            self.values[name[3:]] = False
        elif is_a(bool, self.hints[name]):
            if not equals:
                value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "true"
            self.values[name] = converted(value, self.hints[name])
        else:
            self._value(name, value if equals else _value_of(written, rest))
            # --data a.txt b.txt; but of `generate --stop END "Once upon"` the second is the prompt
            while (
                name in self.lists and self.positional is None and not equals and rest and not rest[0].startswith("-")
            ):
                self._value(name, rest.pop(0))

    def _name(self, written: str, argument: str) -> str:
        """The option that `written` (``--name`` or ``-n``) means; ``no_name`` for ``--no-name``."""
        if not written.startswith("--"):
            short = {letter: name for letter, names in SHORT.items() for name in names[::-1] if name in self.hints}
            if found := {**short, "h": "help"}.get(written[1:]):
                return found
            known = ", ".join(f"-{letter} ({flag(name)})" for letter, name in short.items())
            as_value = f"; write -- {argument} for the {self.positional}" if self.positional else ""
            raise InputError(f"unknown option {argument}; known short options are {known or 'none but'}, -h{as_value}")
        name = written[2:].replace("-", "_")
        if name in self.hints or name in OWN:
            return name
        if name.startswith("no_") and is_a(bool, self.hints.get(name[3:])):
            return name
        raise InputError(_unknown(name, self.hints))

    def _value(self, name: str, text: str) -> None:
        hint = self.hints[name]
        if is_a(list, hint):
            self._add(name, [converted(item, typing.get_args(without_none(hint))[0]) for item in _items(text)])
        else:
            self.values[name] = converted(text, hint)

    def _add(self, name: str, items: list[Any]) -> None:
        self.values[name] = [*(self.values[name] if name in self.lists else ()), *items]
        self.lists.add(name)

    def _positional(self, argument: str) -> None:
        name = self.positional
        if name is None:
            meant = [f"{flag(n)} {argument}" for n in ("data", "model") if n in self.hints and argument[:1] != "-"]
            why = f"{flag(self.last)} takes a single value" if self.last else "every option of this command has a name"
            did = f"did you mean {' or '.join(meant)}?" if meant and not self.last else f"{why}, see --help"
            raise InputError(f"unexpected argument {argument!r}; {did}")
        if is_a(list, self.hints[name]):  # gpt3 report A B C
            self._add(name, [argument])
        elif name in self.values:
            again = "".join(f", or give {flag(option)} before each of its values" for option in sorted(self.lists))
            if typing.get_origin(self.hints[name]) is typing.Literal:
                raise InputError(f"unexpected second argument {argument!r}; give one {name}")
            raise InputError(f"unexpected second argument {argument!r}; put the {name} in quotes{again}")
        else:
            self.values[name] = argument

    def _config(self, name: str) -> None:
        """Take the options of a YAML file."""
        path = Path(name).expanduser()
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except OSError:
            raise InputError(f"--config {name}: no such file; give a YAML file") from None
        except UnicodeDecodeError as error:
            raise InputError(f"--config is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or a number that Python does not have
            raise InputError(f"--config {name}{yaml_fault(error)}") from None
        if content is None:
            return
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise InputError("--config must be a YAML file with a line `option: value` for each option")
        for key, value in content.items():
            if key not in self.hints:
                raise InputError(f"--config: {_unknown(key, self.hints)}")
            self.lists.discard(key)
            self.values[key] = converted(value, self.hints[key])


def converted(value: Any, hint: Any) -> Any:
    """`value`, a text or what YAML read, as `hint` asks for; unchanged where it cannot be."""
    inner = without_none(hint)
    if isinstance(value, str):
        if inner is not hint and value == "null":
            return None
        if inner in (int, float):
            try:
                return inner(value)
            except ValueError:
                return value
        if inner is bool:
            return {"true": True, "false": False}.get(value.lower(), value)
        if typing.get_origin(inner) is dict:
            try:
                content = yaml.load(value, _Loader)
            except (yaml.YAMLError, ValueError):
                return value
            return value if isinstance(content, str) else converted(content, hint)
        return value
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if origin is list and isinstance(value, list):
        return [converted(item, arguments[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {converted(key, arguments[0]): converted(item, arguments[1]) for key, item in value.items()}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if inner is str:  # tokens: 2500000
            return str(value)
        if inner is float and abs(value) < MOST_WHOLE:
            return float(value)
    return value


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


def _value_of(written: str, rest: list[str]) -> str:
    """The argument that follows an option. A negative number is a value, another option is not."""
    if not rest or re.match(r"--.|-[a-z]$", rest[0]):
        raise InputError(f"{written} needs a value")
    return rest.pop(0)


def _unknown(name: str, hints: dict[str, Any]) -> str:
    """The message for an unknown option, with the nearest known one."""
    near = difflib.get_close_matches(name, [*hints, *OWN], n=1)
    return f"unknown option {flag(name)}; " + (f"did you mean {flag(near[0])}?" if near else "--help lists them all")


def command_help(options: type[Any], command: str, positional: str | None, *, everything: bool) -> str:
    """The help text of a command, at most `WIDTH` columns wide.

    Args:
        positional: the field that takes an argument without a name.
        everything: explain all options; otherwise, of a command with many, the common ones, and name the rest.
    """
    hints, texts = typing.get_type_hints(options), documentation(options)
    fields = list(dataclasses.fields(options))
    usage = f"usage: gpt3 {command} [OPTIONS]"
    if positional is not None:
        one = positional.upper() + (" ..." if is_a(list, hints[positional]) else "")
        required = next(is_required(field) for field in fields if field.name == positional)
        usage += f" {one}" if required else f" [{one}]"
    description = " ".join((options.__doc__ or "").strip().split("\n\n")[0].split())
    lines = [usage, "", *textwrap.wrap(description, WIDTH)]
    common = [field for field in fields if option_of(field).common]
    brief = len(fields) > FEW and bool(common) and not everything
    groups = _groups(fields)
    for name, members in ({"Most used": common} if brief else groups).items():
        lines += ["", f"{name}:"]
        for field in members:
            lines += _entry(field, hints[field.name], texts.get(field.name, ""))
    lines += ["", "Every command:"]
    lines += _two_columns("--config FILE", "Read options from a YAML file, one `option: value` per line.")
    lines += _two_columns("--print_config", "Print all options as such a file and exit.")
    lines += _two_columns("-h, --help", "Show this help and exit.")
    if brief:
        lines += _two_columns("--help-all", f"Explain all {len(fields)} options:")
        margin: dict[str, Any] = {"initial_indent": " " * 4, "subsequent_indent": " " * 4}
        for name, members in groups.items():
            if rest := [flag(field.name) for field in members if field not in common]:
                lines += [f"  {name}:", *textwrap.wrap(" ".join(rest), WIDTH, break_on_hyphens=False, **margin)]
    return "\n".join(lines)


def config_file(options: type[Any], values: dict[str, Any]) -> str:
    """A YAML file for ``--config`` with these values: each below a comment that explains it."""
    fields, texts = {field.name: field for field in dataclasses.fields(options)}, documentation(options)
    lines = []
    for name, value in values.items():
        if group := option_of(fields[name]).group:
            lines.append(f"\n# {group}\n")
        lines += [f"# {line}" for line in textwrap.wrap(texts.get(name, ""), WIDTH - 2, break_on_hyphens=False)]
        lines.append(yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True).rstrip("\n"))
    return "\n".join(lines).lstrip("\n") + "\n"


def _groups(fields: list[dataclasses.Field[Any]]) -> dict[str, list[dataclasses.Field[Any]]]:
    """The fields under their headings, in order; a heading holds until the next one."""
    groups: dict[str, list[dataclasses.Field[Any]]] = {}
    heading = "Options"
    for field in fields:
        heading = option_of(field).group or heading
        groups.setdefault(heading, []).append(field)
    return groups


def _entry(field: dataclasses.Field[Any], hint: Any, text: str) -> list[str]:
    """One option: its flags, and what it does with its default."""
    name = flag(field.name)
    negative = f"--no-{name[2:]}"
    if is_a(bool, hint):
        name = name if field.default is False else f"{name}, {negative}"
    else:
        name += f" {_value_name(field.name, hint, option_of(field).choices)}"
    short = next((letter for letter, names in SHORT.items() if field.name in names), None)
    text = " ".join(text.split())
    if not is_required(field) and "default:" not in text.lower():
        default = default_of(field)
        if isinstance(default, (list, tuple)):
            default = " ".join(map(str, default))
        default = "on" if default is True else default
        if default not in (None, "", {}, False):
            text = f"{text.rstrip('.')}. Default: {default}." if text else f"Default: {default}."
    return _two_columns(f"-{short}, {name}" if short else name, text)


def _value_name(name: str, hint: Any, choices: Collection[str] | None) -> str:
    """What stands for an option's value in the help: its choices, N for a whole number, X for a number, else its name."""
    inner = without_none(hint)
    if found := value_choices(hint, choices):
        return "{" + ",".join(found) + "}"
    if typing.get_origin(inner) is list:
        return f"{name.upper()} ..."
    return {int: "N", float: "X"}.get(inner, name.upper())


def value_choices(hint: Any, choices: Collection[str] | None) -> list[str]:
    """The values that an option of type `hint` takes; empty where they are not listed."""
    if choices is None:
        inner = without_none(hint)
        if typing.get_origin(inner) is list:
            inner = typing.get_args(inner)[0]
        choices = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
    return [str(choice) for choice in choices]


def _two_columns(left: str, right: str) -> list[str]:
    """`left` at the margin and `right` wrapped to the right of it, or below where `left` is long."""
    body = textwrap.wrap(right, WIDTH - INDENT, break_on_hyphens=False) or [""]
    head = f"  {left}"
    if len(head) + 2 > INDENT:
        return [head, *(" " * INDENT + line for line in body)]
    return [f"{head:<{INDENT}}{body[0]}", *(" " * INDENT + line for line in body[1:])]
