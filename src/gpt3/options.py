"""Options of commands: frozen dataclasses whose fields state their ranges. All are checked at once when an instance is made.

    @dataclass(frozen=True)
    class SampleOptions(Options):
        top_p: float = option(1.0, above=0, most=1)
        '''Keep the fewest tokens with this total probability; 1 keeps all.'''

The type of a field gives its kind (whole number, number, one of a Literal's values) and `option` its range, its group in
``--help`` and whether it is among the few shown first. The command line, the HTTP API, the page and the docs read them here.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import itertools
import math
import textwrap
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from gpt3.errors import InputError

DType = Literal["auto", "fp32", "bf16", "fp16"]
"""Number format of weights or arithmetic."""
Quantize = Literal["none", "int8", "int4"]
"""Weights as they are, int8 with one scale per output channel, or int4 with one for 32 weights."""

PATHS = (
    "data_dir", "decontaminate", "draft", "evaluation", "files", "html", "init_from", "input", "json_schema", "load",
    "mixture", "out", "output", "prompt_file", "resume", "scores", "tls_ca", "tls_cert", "tls_key", "tokenizer",
)  # fmt: skip
"""Options that name a file or a folder, wherever they occur; ``~`` in them is the home directory."""
MOST_WHOLE = 2**63
"""Whole numbers are at most this."""

T = TypeVar("T")
_KEY = "gpt3"


@dataclass(frozen=True)
class Option:
    """What a field's declaration says besides its type and default. Bounds hold for each item of a list or value of a mapping."""

    least: float | None = None
    """The smallest value allowed."""
    above: float | None = None
    """Every value must be larger than this."""
    most: float | None = None
    """The largest value allowed."""
    below: float | None = None
    """Every value must be smaller than this."""
    known: str | None = None
    """A function, as ``MODULE:NAME``, whose text replaces ``{known}`` in the option's: what the value may be, of a registry."""
    choices: Collection[str] | None = None
    """The values allowed, such as the names of a registry; for a field of type str (or a list of them)."""
    group: str | None = None
    """Heading in ``--help``; it holds for the fields that follow, until the next one."""
    common: bool = False
    """Whether the option is among the few that ``--help`` shows first."""

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            (math.isfinite(value) if isinstance(value, float) else abs(value) <= MOST_WHOLE)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The range in words, such as ``above 0 and at most 1``; empty for any number."""
        bounds = (("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(
            f"{word} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for word, bound in bounds
            if bound is not None
        )


def option(default: T, **declared: Any) -> T:
    """A dataclass field with a default and an `Option`, whose fields are given by name.

    None as the default means that the option may be left out.
    """
    metadata = {_KEY: Option(**declared)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=metadata)  # type: ignore[return-value]
    return dataclasses.field(default=default, metadata=metadata)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """What the declaration of a dataclass field says; an empty `Option` for a plain field."""
    return field.metadata.get(_KEY, Option())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def flag(name: str) -> str:
    """An option as it is typed: ``batch_tokens`` as ``--batch-tokens``."""
    return "--" + name.replace("_", "-")


class Options:
    """Base of every options dataclass: checks types and ranges when made, and reports all errors together."""

    def __post_init__(self) -> None:
        found = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name not in PATHS or not isinstance(value, (str, list)):
                continue
            try:
                whole = [_at_home(each) for each in value] if isinstance(value, list) else _at_home(value)
                object.__setattr__(self, field.name, whole)
            except RuntimeError:
                found.append(f"{flag(field.name)} {value}: there is no such home directory; write the path without ~")
        found += range_errors(self)
        try:
            found += self.errors()
        except (TypeError, AttributeError):  # of a value of a wrong type, which is among the errors already
            if not found:
                raise
        if found:
            raise InputError("; ".join(found))

    def errors(self) -> Iterable[str]:
        """Further errors that the ranges cannot express, one clause each: option, value, fix."""
        return ()


def _at_home(path: Any) -> Any:
    """A path with the home directory for a ``~`` at its beginning, which no shell expands in --out=~/x."""
    return str(Path(path).expanduser()) if isinstance(path, str) and path.startswith("~") else path


def range_errors(options: Any, names: Iterable[str] | None = None) -> list[str]:
    """`value_errors` of an instance's fields, or of those called `names`."""
    wanted = [field.name for field in dataclasses.fields(options)] if names is None else names
    return value_errors(type(options), {name: getattr(options, name) for name in wanted})


def value_errors(options: type[Any], values: Mapping[str, Any], *, ranges: bool = True) -> list[str]:
    """A clause for each value of the wrong type or out of its range: ``--top-p 1.5 must be a number above 0 and at most 1``.

    Args:
        options: a dataclass.
        values: by name of the field.
        ranges: whether to check the ranges, too.
    """
    hints = typing.get_type_hints(options)
    declared = {field.name: option_of(field) for field in dataclasses.fields(options)}
    checks = ((name, _fault(hints[name], value, declared[name], ranges)) for name, value in values.items())
    return [f"{flag(name)} {fault}" for name, fault in checks if fault]


def documentation(options: type[Any]) -> dict[str, str]:
    """The text below each field of a dataclass, its bases' fields included, by the field's name."""
    texts: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    for each in dataclasses.fields(options):
        if known := option_of(each).known:
            module, _, function = known.partition(":")
            text = getattr(importlib.import_module(module), function)()
            texts[each.name] = texts[each.name].replace("{known}", text)
    return texts


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Whether a dataclass field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a dataclass field that has one."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def is_a(kind: type, hint: Any) -> bool:
    """Whether a type hint is `kind`, or `kind` or None."""
    inner = without_none(hint)
    return (typing.get_origin(inner) or inner) is kind


def without_none(hint: Any) -> Any:
    """``X`` of the hint ``X | None``; other hints as they are."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return parts[0] if len(parts) == 1 else hint
    return hint


def _shown(value: Any) -> str:
    """A value as a person typed it; texts that could be misread are quoted."""
    return value if isinstance(value, str) and value.split() == [value] else repr(value)


def _fault(hint: Any, value: Any, declared: Option, ranges: bool) -> str | None:
    """What is wrong with a value of type `hint`, or None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        faults = [_fault(one, value, declared, ranges) for one in arguments]
        first = next(fault for one, fault in zip(arguments, faults, strict=True) if one is not types.NoneType)
        return None if None in faults else first
    if hint is types.NoneType:
        return None if value is None else "must be empty"
    if origin is Literal:
        return None if value in arguments else f"{_shown(value)} must be one of {', '.join(map(str, arguments))}"
    if origin in (list, tuple, dict):
        if not isinstance(value, dict if origin is dict else (list, tuple)):
            return f"{_shown(value)} must be {'a mapping' if origin is dict else 'a list'}"
        kind, items = arguments[1 if origin is dict else 0], value.values() if isinstance(value, dict) else value
        return next((fault for item in items if (fault := _fault(kind, item, declared, ranges))), None)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool)
        if good and (not ranges or declared.holds(value)):
            return None
        what, bounds = "a whole number" if hint is int else "a number", str(declared)
        return f"{_shown(value)} must be {what}{' of' if bounds.startswith('at') else ''} {bounds}".rstrip()
    if hint is str and ranges and declared.choices is not None and value not in declared.choices:
        return f"{_shown(value)} must be one of {', '.join(declared.choices)}"
    if hint in (str, bool) and not isinstance(value, hint):
        return f"{_shown(value)} must be {'a text' if hint is str else 'true or false'}"
    return None


def check_names(options: type[Any], names: Iterable[str]) -> None:
    """Check keyword arguments that become fields of the dataclass `options`.

    Raises:
        TypeError: a name that is no field, with the nearest one.
    """
    known = [field.name for field in dataclasses.fields(options)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(known)}"
            raise TypeError(f"unknown option {name}; {hint}")
