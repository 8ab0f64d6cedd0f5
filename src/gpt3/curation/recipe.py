"""A recipe: the YAML file of `gpt3 corpus`, checked whole before the work begins."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gpt3.corpus.mixture import NAME
from gpt3.curation.heuristics import Rule, rules_of
from gpt3.curation.near_duplicates import NearDuplicateOptions
from gpt3.errors import InputError, yaml_fault
from gpt3.options import Options, option

TRUSTED = "trusted"


@dataclass(frozen=True)
class SourceOptions(Options):
    """One source of a corpus."""

    name: str
    """Of its folder of shards, and in the mixture."""
    data: list[str]
    """What ``--data`` takes."""
    weight: float = option(1.0, above=0)
    """Of its tokens in training, relative to the other sources'."""
    trusted: bool = False
    """Good text: neither language, heuristics nor quality filter it, and the classifier learns what is good from it."""

    def errors(self) -> Iterable[str]:
        """Of the name."""
        if not NAME.fullmatch(self.name):
            yield f"name {self.name!r} may hold a-z, 0-9, _ and - only"
        if not self.data:
            yield f"data of {self.name} is empty"


@dataclass(frozen=True)
class LanguageOptions(Options):
    """Languages to keep, by fastText's lid.176."""

    keep: list[str] = option(["en"])
    """ISO codes."""
    at_least: float = option(0.65, least=0, most=1)
    """Probability of the language from which a document is kept."""


@dataclass(frozen=True)
class QualityOptions(Options):
    """The paper's quality filter (App. A): a classifier of good against raw text, and a rule that draws by its score."""

    good: str = TRUSTED
    """The source of good text; trusted: all trusted sources."""
    raw: str = ""
    """The source of raw text. Default: all sources that are not trusted."""
    rule: Literal["pareto", "threshold"] = "pareto"
    """pareto: keep with probability (2 - score)^-alpha; threshold: keep from --at-least on."""
    alpha: float | Literal["match"] = option(9.0, above=0)
    """Of the Pareto rule; match: so that the mean score of what is kept is that of good text."""
    at_least: float = option(0.5, least=0, most=1)
    """Score from which the threshold keeps a document."""
    samples: int = option(20_000, least=10)
    """Documents of each kind to learn from, at most."""


@dataclass(frozen=True)
class Recipe:
    """What to do with which sources."""

    sources: tuple[SourceOptions, ...]
    language: LanguageOptions | None = None
    heuristics: tuple[Rule, ...] = ()
    quality: QualityOptions | None = None
    near_duplicates: NearDuplicateOptions | None = field(default_factory=NearDuplicateOptions)
    decontaminate: tuple[str, ...] = ()
    tokenizer: str = "gpt2"
    validation_fraction: float = 0.005
    seed: int = 0


@dataclass(frozen=True)
class PlainKeys(Options):
    """Keys of a recipe with one value."""

    tokenizer: str = "gpt2"
    validation_fraction: float = option(0.005, least=0, below=1)
    seed: int = option(0, least=0)
    decontaminate: list[str] = option([])


KEYS = (
    "sources",
    "language",
    "heuristics",
    "quality",
    "near_duplicates",
    *(f.name for f in dataclasses.fields(PlainKeys)),
)


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
    parts: dict[str, Any] = {}
    for name, kind in (("language", LanguageOptions), ("quality", QualityOptions)):
        if content.get(name) not in (None, False):
            parts[name] = attempt(name, _options, kind, content[name])
    if content.get("near_duplicates") in (None, False) and "near_duplicates" in content:
        parts["near_duplicates"] = None
    elif content.get("near_duplicates", True) is not True:
        parts["near_duplicates"] = attempt(
            "near_duplicates", _options, NearDuplicateOptions, content["near_duplicates"]
        )
    if content.get("heuristics") is not None:
        parts["heuristics"] = attempt("heuristics", _rules, content["heuristics"])
    plain = {key: value for key, value in content.items() if key in {f.name for f in dataclasses.fields(PlainKeys)}}
    if isinstance(plain.get("decontaminate"), str):
        plain["decontaminate"] = [plain["decontaminate"]]
    values = attempt("recipe", _options, PlainKeys, plain)
    quality = parts.get("quality")
    if quality and not problems:
        problems += _quality_problems(quality, [source for source in sources if source])
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    return Recipe(
        tuple(sources), **parts, **dataclasses.asdict(values) | {"decontaminate": tuple(values.decontaminate)}
    )


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


def _rules(given: Any) -> tuple[Rule, ...]:
    if not isinstance(given, (str, Mapping)):
        raise InputError(f"must name a set of rules, or figures with their bounds, not {given!r}")
    return rules_of(given)


def _quality_problems(quality: QualityOptions, sources: list[SourceOptions]) -> Iterable[str]:
    names = [source.name for source in sources]
    if quality.good == TRUSTED and not any(source.trusted for source in sources):
        yield "quality: no source is trusted; mark one with `trusted: true`, or name it with `good`"
    if quality.good not in (TRUSTED, *names):
        yield f"quality: good {quality.good!r} is no source{_near(quality.good, names)}"
    if quality.raw and quality.raw not in names:
        yield f"quality: raw {quality.raw!r} is no source{_near(quality.raw, names)}"
    if not quality.raw and all(source.trusted for source in sources):
        yield "quality: all sources are trusted, so there is no raw text"
