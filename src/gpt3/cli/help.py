"""The text of ``gpt3 COMMAND --help``, made from the fields of an options dataclass and the text below each."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Collection
from typing import Any

from gpt3.options import default_of, documentation, flag, is_a, is_required, option_of, without_none

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


def command_help(options: type[Any], command: str, positional: str | None, *, everything: bool) -> str:
    """The help text of a command, at most `WIDTH` columns wide.

    Args:
        positional: the field that takes an argument without a name.
        everything: explain all options; otherwise, of a command with many, the common ones, and name the rest.
    """
    hints = typing.get_type_hints(options)
    fields = list(dataclasses.fields(options))
    usage = f"usage: gpt3 {command} [OPTIONS]"
    if positional is not None:
        one = positional.upper() + (" ..." if is_a(list, hints[positional]) else "")
        required = next(is_required(field) for field in fields if field.name == positional)
        usage += f" {one}" if required else f" [{one}]"
    description = " ".join((options.__doc__ or "").strip().split("\n\n")[0].split())
    lines = [usage, "", *textwrap.wrap(description, WIDTH)]
    texts = documentation(options)
    groups = _groups(fields)
    common = [field for field in fields if option_of(field).common]
    brief = len(fields) > FEW and bool(common) and not everything
    if brief:
        groups = {"Most used": common}
    for name, members in groups.items():
        lines += ["", f"{name}:"]
        for field in members:
            lines += _entry(field, hints[field.name], texts.get(field.name, ""))
    lines += ["", "Every command:"]
    lines += _two_columns("--config FILE", "Read options from a YAML file, one `option: value` per line.")
    lines += _two_columns("--print_config", "Print all options as such a file and exit.")
    lines += _two_columns("-h, --help", "Show this help and exit.")
    if brief:
        lines += _two_columns("--help-all", f"Explain all {len(fields)} options:")
        for name, members in _groups(fields).items():
            rest = [flag(field.name) for field in members if field not in common]
            if rest:
                margin = " " * 4
                lines += [f"  {name}:"]
                lines += textwrap.wrap(
                    " ".join(rest), WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
                )
    return "\n".join(lines)


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
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if choices is not None:
        origin, arguments = typing.Literal, tuple(choices)
    if origin is list and typing.get_origin(arguments[0]) is typing.Literal:
        origin, arguments = typing.Literal, typing.get_args(arguments[0])
    if origin is typing.Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is list:
        return f"{name.upper()} ..."
    return {int: "N", float: "X"}.get(inner, name.upper())


def _two_columns(left: str, right: str) -> list[str]:
    """`left` at the margin and `right` wrapped to the right of it, or below where `left` is long."""
    body = textwrap.wrap(right, WIDTH - INDENT, break_on_hyphens=False) or [""]
    head = f"  {left}"
    if len(head) + 2 > INDENT:
        return [head, *(" " * INDENT + line for line in body)]
    return [f"{head:<{INDENT}}{body[0]}", *(" " * INDENT + line for line in body[1:])]
