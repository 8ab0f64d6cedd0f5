"""A recipe: the YAML file of `gpt3 corpus`, checked whole before the work begins."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpt3.corpus.page_parser import PARSERS
from gpt3.curation.documents import Documents, Judgment, SourceOptions
from gpt3.errors import InputError, yaml_fault
from gpt3.options import Options, option


@dataclass(frozen=True)
class Stage:
    """A step that drops documents: a key of a recipe."""

    module: str
    """In this package. Its ``judge(documents, settings)`` returns a `gpt3.curation.documents.Judgment`."""
    settings: str
    """The name in it of the options that the key takes; or of a function that makes settings of the key's value."""
    trusted: bool = False
    """Whether it judges trusted sources, too."""
    default: bool = False
    """Whether it is part of a recipe that does not name it."""
    makes: str = ""
    """The name of what it writes into the corpus folder."""

    def read(self, value: Any) -> Any:
        """The settings that a key's value states.

        Raises:
            InputError: it is wrong.
        """
        kind = self._named(self.settings)
        return _options(kind, {} if value is True else value) if isinstance(kind, type) else kind(value)

    def check(self, settings: Any, sources: Sequence[SourceOptions]) -> Iterable[str]:
        """What is wrong with the recipe's sources for it, if its module has a ``check(settings, sources)``."""
        check = self._named("check")
        return check(settings, sources) if check else ()

    def judge(self, documents: Documents, settings: Any) -> Judgment:
        """What it says of all documents."""
        found: Judgment = self._named("judge")(documents, settings)
        return found

    def _named(self, name: str) -> Any:
        return getattr(importlib.import_module(f"gpt3.curation.{self.module}"), name, None)


STAGES = {
    "language": Stage("language", "LanguageOptions"),
    "heuristics": Stage("heuristics", "rules_of"),
    "quality": Stage("quality", "QualityOptions", makes="classifier"),
    "near_duplicates": Stage(
        "deduplication", "NearDuplicateOptions", trusted=True, default=True, makes="duplicates.parquet"
    ),
}
"""By key, in the order in which they judge."""


@dataclass(frozen=True)
class Recipe:
    """What to do with which sources."""

    sources: tuple[SourceOptions, ...]
    stages: Mapping[str, Any]
    """What each key of `STAGES` says, of those that take part, in their order."""
    decontaminate: tuple[str, ...] = ()
    html: str = "resiliparse"
    tokenizer: str = "gpt2"
    validation_fraction: float = 0.005
    seed: int = 0


@dataclass(frozen=True)
class PlainKeys(Options):
    """Keys of a recipe with one value."""

    html: str = option("resiliparse", choices=PARSERS)
    tokenizer: str = "gpt2"
    validation_fraction: float = option(0.005, least=0, below=1)
    seed: int = option(0, least=0)
    decontaminate: list[str] = option([])


KEYS = ("sources", *STAGES, *(field.name for field in dataclasses.fields(PlainKeys)))


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        InputError: it cannot be read, or some of it is wrong: all of that, in one line.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}{yaml_fault(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping with the key sources")
    problems: list[str] = []

    def attempt(what: str, make: Any, *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except InputError as error:
            problems.append(f"{what}: {error}".replace(f"{what}: {what}", what).replace("--", ""))
            return None

    problems += [f"unknown key {key!r}{_near(str(key), KEYS)}" for key in content if key not in KEYS]
    given = content.get("sources", [])
    listed = given if isinstance(given, list) else []
    if not listed:
        problems.append("sources must be a list such as [{name: web, data: web/*.jsonl}]")
    sources = [attempt(f"source {n}", _source, entry) for n, entry in enumerate(listed, 1)]
    names = [source.name for source in sources if source]
    problems += [f"source {name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    stages: dict[str, Any] = {}
    for name, stage in STAGES.items():
        value = content.get(name, stage.default)
        if value not in (None, False):
            stages[name] = attempt(name, stage.read, value)
    plain = {key: value for key, value in content.items() if key in {f.name for f in dataclasses.fields(PlainKeys)}}
    if isinstance(plain.get("decontaminate"), str):
        plain["decontaminate"] = [plain["decontaminate"]]
    values = attempt("recipe", _options, PlainKeys, plain)
    for name, settings in stages.items():
        if not problems:
            problems += [f"{name}: {problem}" for problem in STAGES[name].check(settings, sources)]
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    stages = {name: settings for name, settings in stages.items() if settings}  # heuristics may be no rules
    return Recipe(tuple(sources), stages, **dataclasses.asdict(values) | {"decontaminate": tuple(values.decontaminate)})


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known are {', '.join(known)})"


def _options(kind: type[Any], values: Any) -> Any:
    """An options dataclass from a mapping."""
    if not isinstance(values, Mapping):
        raise InputError(f"must be a mapping of {', '.join(f.name for f in dataclasses.fields(kind))}, not {values!r}")
    known = [f.name for f in dataclasses.fields(kind)]
    if unknown := [str(key) for key in values if key not in known]:
        raise InputError("; ".join(f"unknown key {key!r}{_near(key, known)}" for key in unknown))
    return kind(**values)


def _source(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        if missing := [key for key in ("name", "data") if key not in entry]:
            raise InputError(f"has no {' and no '.join(missing)}")
        if isinstance(entry["data"], str):
            entry = {**entry, "data": [entry["data"]]}
    return _options(SourceOptions, entry)
