"""Command-line arguments and YAML files to an options dataclass: the same names in ``--config``, as flags and in Python.

Names are typed with dashes; bare flags set booleans and ``--no-NAME`` clears them; list options take several values and may be
repeated; one argument may be positional. What does not convert stays a text, which gpt3.options then refuses by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from gpt3.cli.help import SHORT, command_help
from gpt3.errors import InputError, one_line
from gpt3.options import default_of, flag, is_a, is_required, value_errors, without_none

T = TypeVar("T")

OWN = ("config", "print_config", "help", "help_all")
"""Options that every command has."""


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


def parse(options: type[T], arguments: Sequence[str], *, command: str, positional: str | None = None) -> T:
    """An instance of the dataclass `options` from command-line `arguments`.

    Args:
        positional: the field that takes an argument without a name; all of them, where it is a list.

    Raises:
        InputError: an unknown option or a value of the wrong kind, in one line.
        SystemExit: after ``--help``, ``--help-all`` and ``--print_config``.
    """
    given = _Given(options, positional)
    rest = list(arguments)
    while rest:
        given.take(rest)
    if given.asked_help is not None:
        print(command_help(options, command, positional, everything=given.asked_help == "help_all"))
        raise SystemExit(0)
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    missing = [f.name for f in fields if f.name not in given.values and is_required(f)]
    if given.print_config:
        defaults = {f.name: None if is_required(f) else default_of(f) for f in fields}
        if not missing:
            defaults = dataclasses.asdict(_make(options, given.values))  # type: ignore[call-overload]
        print(yaml.safe_dump({**defaults, **given.values}, sort_keys=False, allow_unicode=True), end="")
        raise SystemExit(0)
    if missing:
        raise InputError(f"{', '.join(flag(name) for name in missing)} must be given")
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
        self.only_positional = False
        self.asked_help: str | None = None
        self.print_config = False

    def take(self, rest: list[str]) -> None:
        """Take the next argument, and its value where it is a separate one, from `rest`."""
        argument = rest.pop(0)
        if self.only_positional or argument == "-" or not argument.startswith("-"):
            return self._positional(argument)
        if argument == "--":
            self.only_positional = True
            return None
        written, equals, value = argument.partition("=")
        name = self._name(written, argument)
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
        return None

    def _name(self, written: str, argument: str) -> str:
        """The option that `written` (``--name`` or ``-n``) means; ``no_name`` for ``--no-name``."""
        if not written.startswith("--"):
            if written == "-h":
                return "help"
            for name in SHORT.get(written[1:], ()):
                if name in self.hints:
                    return name
            short = {letter: name for letter, names in SHORT.items() for name in names if name in self.hints}
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
            if name not in self.lists:
                self.lists.add(name)
                self.values[name] = []
            self.values[name] += [converted(item, typing.get_args(without_none(hint))[0]) for item in _items(text)]
        else:
            self.values[name] = converted(text, hint)

    def _positional(self, argument: str) -> None:
        name = self.positional
        if name is None:
            raise InputError(f"unexpected argument {argument!r}; every option of this command has a name, see --help")
        if is_a(list, self.hints[name]):  # gpt3 report A B C
            if name not in self.lists:
                self.lists.add(name)
                self.values[name] = []
            self.values[name].append(argument)
        elif name in self.values:
            raise InputError(f"unexpected second argument {argument!r}; put the {name} in quotes")
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
        except yaml.YAMLError as error:
            raise InputError(f"--config is not YAML: {one_line(error)}") from None
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
            except yaml.YAMLError:
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
        if inner is float:
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
