"""Options of commands: frozen dataclasses whose fields state their ranges. All are checked at once when an instance is made.

    @dataclass(frozen=True)
    class SampleOptions(Options):
        top_p: float = option(1.0, above=0, most=1)
        '''Keep the fewest tokens with this total probability; 1 keeps all.'''

The type of a field gives its kind (whole number, number, one of a Literal's values) and `option` its range, its group in
``--help`` and whether it is among the few shown first. The command line, the HTTP API, the page and the docs read them here.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from gpt3.errors import InputError

DType = Literal["auto", "fp32", "bf16", "fp16"]
"""Number format of weights or arithmetic."""
Quantize = Literal["none", "int8"]
"""Weights as they are, or int8 with one scale per output channel."""

T = TypeVar("T")
_KEY = "gpt3"


@dataclass(frozen=True)
class Option:
    """What a field's declaration says beside its type and default. Bounds hold for each item of a list or value of a mapping."""

    least: float | None = None
    """The smallest value allowed."""
    above: float | None = None
    """Every value must be larger than this."""
    most: float | None = None
    """The largest value allowed."""
    below: float | None = None
    """Every value must be smaller than this."""
    choices: Collection[str] | None = None
    """The values allowed, such as the names of a registry; for a field of type str (or a list of them)."""
    group: str | None = None
    """Heading in ``--help``; it holds for the fields that follow, until the next one."""
    common: bool = False
    """Whether the option is among the few that ``--help`` shows first."""

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The range in words, such as ``above 0 and at most 1``; empty for any number."""
        bounds = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def option(
    default: T,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Collection[str] | None = None,
    group: str | None = None,
    common: bool = False,
) -> T:
    """A dataclass field with a default and an `Option`. None as the default means that the option may be left out."""
    metadata = {_KEY: Option(least, above, most, below, choices, group, common)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)  # type: ignore[return-value]
    return dataclasses.field(default=default, metadata=metadata)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """What the declaration of a dataclass field says; an empty `Option` for a plain field."""
    return field.metadata.get(_KEY, Option())


def flag(name: str) -> str:
    """An option as it is typed: ``batch_tokens`` as ``--batch-tokens``."""
    return "--" + name.replace("_", "-")


class Options:
    """Base of every options dataclass: checks types and ranges when made, and reports all errors together."""

    def __post_init__(self) -> None:
        found = [*range_errors(self), *self.errors()]
        if found:
            raise InputError("; ".join(found))

    def errors(self) -> Iterable[str]:
        """Further errors that the ranges cannot express, one clause each: option, value, fix."""
        return ()


def range_errors(options: Any, names: Iterable[str] | None = None) -> list[str]:
    """A clause for each field whose value has the wrong type or lies outside its range: ``--top-p 1.5 must be …``.

    Args:
        options: an instance of a dataclass.
        names: the fields to check. Default: all.
    """
    hints = typing.get_type_hints(type(options))
    wanted = None if names is None else set(names)
    found = []
    for field in dataclasses.fields(options):
        if wanted is not None and field.name not in wanted:
            continue
        value = getattr(options, field.name)
        if fault := _fault(hints[field.name], value, option_of(field)):
            found.append(f"{flag(field.name)} {fault}")
    return found


def _fault(hint: Any, value: Any, declared: Option) -> str | None:
    """What is wrong with a value of type `hint`, or None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        faults = [_fault(one, value, declared) for one in arguments]
        first = next(fault for one, fault in zip(arguments, faults, strict=True) if one is not types.NoneType)
        return None if None in faults else first
    if hint is types.NoneType:
        return None if value is None else "must be empty"
    if origin is Literal:
        return None if value in arguments else f"{value!r} must be one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return f"{value!r} must be a list"
        return next((fault for item in value if (fault := _fault(arguments[0], item, declared))), None)
    if origin is dict:
        if not isinstance(value, dict):
            return f"{value!r} must be a mapping"
        return next((fault for item in value.values() if (fault := _fault(arguments[1], item, declared))), None)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool)
        if good and declared.holds(value):
            return None
        kind, bounds = "a whole number" if hint is int else "a number", str(declared)
        return f"{value!r} must be {kind}{' of' if bounds.startswith('at') else ''} {bounds}".rstrip()
    if hint is str and declared.choices is not None and value not in declared.choices:
        return f"{value!r} must be one of {', '.join(declared.choices)}"
    if hint in (str, bool):
        return None if isinstance(value, hint) else f"{value!r} must be {'a text' if hint is str else 'true or false'}"
    return None
