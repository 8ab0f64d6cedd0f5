"""From what --data names to the conversations a run reads: several sources mixed, filtered, some held out, all of it counted."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt3.corpus.wiki import articles, document
from gpt3.errors import InputError
from gpt3.finetuning import wiki_qa
from gpt3.finetuning.catalogue import CATALOGUE, WIKI_QA
from gpt3.finetuning.conversations import Conversation, Preference, RowError
from gpt3.finetuning.filters import FILTERS
from gpt3.finetuning.rows import file_rows, hub_rows
from gpt3.finetuning.shapes import to_conversation, to_preference

AMOUNT = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?)x|(?P<cap>\d+))")


@dataclass(frozen=True)
class Spec:
    """One source as it was asked for: ``NAME[@WEIGHTx][@CAP]``."""

    name: str
    weight: float = 1.0
    """How many times its conversations are read: 0.5: half of them, 3: each three times."""
    cap: int | None = None
    """Conversations at most, before the weight; of the hub's data sets the first ones, of others a draw."""


@dataclass
class SourceReport:
    """What became of one source's rows."""

    name: str
    licence: str = "not stated"
    read: int = 0
    """Rows seen."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    held_out: int = 0
    train: int = 0
    """Conversations to train on, after cap and weight."""
    malformed: str = ""
    """The first row that was no conversation, and why."""

    def drop(self, reason: str) -> None:
        """Count one row that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def line(self) -> str:
        """For people."""
        parts = [f"{self.name}: {self.read:,} rows, {self.train:,} to train on, {self.held_out:,} held out"]
        parts += [f"{count:,} dropped ({reason})" for reason, count in sorted(self.dropped.items())]
        parts += [f"first malformed: {self.malformed}"] if self.malformed else []
        return "; ".join([*parts, f"licence: {self.licence}"])


@dataclass(frozen=True)
class Collection:
    """What a run reads: Conversations, or for DPO Preferences."""

    train: list[Any]
    validation: list[Any]
    reports: list[SourceReport]


def parse_spec(text: str) -> Spec:
    """Cut ``NAME@0.5x@1000`` into its parts.

    Raises:
        InputError: a weight or cap of 0.
    """
    name, weight, cap = text, 1.0, None
    while match := re.fullmatch(rf"(?P<name>.+)@{AMOUNT.pattern}", name):
        name = match["name"]
        weight, cap = (float(match["weight"]), cap) if match["weight"] else (weight, int(match["cap"]))
    if weight <= 0 or cap == 0:
        raise InputError(f"--data {text}: a weight or cap of 0 leaves nothing; leave the source out")
    return Spec(name, weight, cap)


def gather(
    data: Sequence[str],
    *,
    val: Sequence[str] = (),
    preferences: bool = False,
    filters: Sequence[str] = ("duplicates",),
    validation_fraction: float = 0.05,
    skip_malformed: bool = False,
    seed: int = 0,
) -> Collection:
    """Read, filter, hold out and mix.

    What is held out depends on a conversation's group alone, so that it is the same in every run. Filters see the
    validation sources first, so that a duplicate of theirs is dropped from training, not from validation.

    Args:
        data: specs of what to train on.
        val: specs of what to validate on, in place of a fraction of `data`.
        preferences: gather Preferences.
        filters: names out of FILTERS, applied in this order.
        validation_fraction: share of the groups of `data` that is held out; not looked at when `val` is given.
        skip_malformed: count rows that are no conversations instead of refusing them.
        seed: of draws by weight and cap.

    Raises:
        InputError: an unknown name or file, a malformed row (named), nothing left to train on.
    """
    unknown = [name for name in filters if name not in FILTERS]
    if unknown:
        raise InputError(f"--filter {unknown[0]}: unknown; there are {', '.join(FILTERS)} and none")
    tests = {name: FILTERS[name]() for name in filters}
    reports: list[SourceReport] = []
    held: list[Any] = []
    train: list[Any] = []
    for spec in map(parse_spec, val):
        items, report = read(spec, tests, preferences, skip_malformed, seed)
        report.held_out = len(items)
        held += items
        reports.append(report)
    for spec in map(parse_spec, data):
        items, report = read(spec, tests, preferences, skip_malformed, seed)
        out = [] if val else [item for item in items if is_held_out(item.group, validation_fraction)]
        kept = items if val else [item for item in items if not is_held_out(item.group, validation_fraction)]
        kept = weighted(kept, spec.weight, seed)
        report.held_out, report.train = len(out), len(kept)
        held, train = held + out, train + kept
        reports.append(report)
    if not train:
        raise InputError(f"--data {' '.join(data)}: nothing is left to train on ({reports[-1].line()})")
    return Collection(train, held, reports)


def read(
    spec: Spec, tests: dict[str, Callable[[Any], bool]], preferences: bool, skip_malformed: bool, seed: int
) -> tuple[list[Any], SourceReport]:
    """One source's conversations that pass the tests, and the count of the others."""
    report = SourceReport(spec.name)
    known = CATALOGUE.get(spec.name)
    from_hub = known is not None or spec.name.startswith("hf:")
    found: Iterable[Any] = convert(spec.name, report, preferences, skip_malformed or known is not None)
    if spec.cap is not None and not from_hub:  # drawn before the tests, which then know of no more than what is read
        everything = list(found)
        if len(everything) > spec.cap:
            report.dropped["over the cap"] = len(everything) - spec.cap
            drawn = sorted(random.Random(seed).sample(range(len(everything)), spec.cap))
            everything = [everything[number] for number in drawn]
        found = everything
    items: list[Any] = []
    for item in found:
        failed = next((name for name, passes in tests.items() if not passes(item)), None)
        if failed is not None:
            report.drop(failed)
            continue
        items.append(item)
        if from_hub and len(items) == spec.cap:  # the rest of a stream need not be read
            break
    return items, report


def convert(
    name: str, report: SourceReport, preferences: bool, skip_malformed: bool
) -> Iterator[Conversation | Preference]:
    """A source's rows as conversations or preferences; counted in `report`."""
    if name == WIKI_QA:
        if preferences:
            raise InputError("--data wiki-qa holds questions and answers, no preferences; give chosen/rejected pairs")
        report.licence = wiki_qa.LICENCE
        for item in wiki_qa.conversations():
            report.read += 1
            yield item
        return
    make: Callable[..., Conversation | Preference] = to_preference if preferences else to_conversation
    for place, row in open_rows(name, report):
        report.read += 1
        try:
            yield make(row, name)
        except RowError as error:
            if not skip_malformed:
                raise InputError(f"{place}: {error}; mend it or give --skip-malformed") from None
            report.malformed = report.malformed or f"{place}: {error}"
            report.drop("malformed")


def open_rows(name: str, report: SourceReport) -> Iterable[tuple[str, Any]]:
    """(place, row) of files, of a data set of the hub, or of one in the catalogue, its rows in a known shape."""
    known = CATALOGUE.get(name)
    if known is not None:
        report.licence = known.licence
        rows = known.rows(row for _, row in hub_rows(f"hf:{known.repository}::{known.split}"))
        return ((f"{name}: row {number}", row) for number, row in enumerate(rows, 1))
    return hub_rows(name) if name.startswith("hf:") else file_rows(name)


def is_held_out(group: str, fraction: float) -> bool:
    """Whether a group is among the `fraction` that is held out: by its hash alone."""
    digest = hashlib.sha256(f"held out\n{group}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def rehearsal(validation_fraction: float, seed: int) -> list[str]:
    """The texts of embedded Wikipedia articles that are not held out, neither here nor by `gpt3 train`, shuffled."""
    kept = (a for a in articles() if not wiki_qa.is_validation(a) and not is_held_out(a.title, validation_fraction))
    texts = [document(article) for article in kept]
    random.Random(seed).shuffle(texts)
    return texts


def weighted(items: list[Any], weight: float, seed: int) -> list[Any]:
    """Each item floor(weight) times, and a draw of them once more for the rest of the weight."""
    whole = int(weight)
    rest = round((weight - whole) * len(items))
    drawn = sorted(random.Random(seed).sample(range(len(items)), rest))
    return items * whole + [items[number] for number in drawn]
