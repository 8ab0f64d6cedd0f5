"""From what --data names to the conversations a run reads: sources mixed, filtered, some held out, all of it counted."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gpt3.corpus.sources import open_rows
from gpt3.corpus.wiki import articles, document
from gpt3.errors import InputError
from gpt3.finetuning.catalogue import CATALOGUE, WIKI_QA, WIKI_QA_LICENCE, is_validation, wiki_questions
from gpt3.finetuning.conversations import FILTERS, Conversation, Filter, RowError, to_conversation, to_preference
from gpt3.finetuning.options import FinetuneOptions
from gpt3.tables import counted

AMOUNT = re.compile(r"(?P<name>.+)@(?:(?P<weight>\d+(?:\.\d+)?)x|(?P<cap>\d+))")


@dataclass
class SourceReport:
    """One source of --data, and what became of its rows."""

    name: str
    licence: str = "not stated"
    read: int = 0
    """Rows seen."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows left out, by reason."""
    held_out: int = 0
    train: int = 0
    """Conversations to train on, after cap and weight."""
    malformed: str = ""
    """The first row that is not a conversation, and why."""

    def line(self) -> str:
        """A summary to print."""
        parts = [f"{self.name}: {counted(self.read, 'row')}, {self.train:,} to train on, {self.held_out:,} held out"]
        parts += [f"{count:,} dropped ({reason})" for reason, count in sorted(self.dropped.items())]
        parts += [f"first malformed: {self.malformed}"] if self.malformed else []
        return "; ".join([*parts, f"licence: {self.licence}"])


@dataclass(frozen=True)
class Collection:
    """What a run reads."""

    train: list[Conversation]
    validation: list[Conversation]
    reports: list[SourceReport]


def parse_spec(text: str) -> tuple[str, float, int | None]:
    """Name, weight and cap of ``NAME[@WEIGHTx][@CAP]``.

    Of the weight 0.5 half of the conversations are read, of 3 each three times. The cap is the most conversations before that: of
    the hub's data sets the first ones, of others a draw.

    Raises:
        InputError: a weight or cap of 0.
    """
    name, weight, cap = text, 1.0, None
    while match := AMOUNT.fullmatch(name):
        name = match["name"]
        weight, cap = (float(match["weight"]), cap) if match["weight"] else (weight, int(match["cap"]))
    if weight <= 0 or cap == 0:
        raise InputError(f"--data {text}: a weight or cap of 0 leaves nothing. Leave the source out.")
    return name, weight, cap


def gather(options: FinetuneOptions) -> Collection:
    """Read the data that the options name, filter it, hold some out and mix.

    What is held out depends on a conversation's group alone, so that it is the same in every run. Filters see the
    validation sources first, so that a duplicate of theirs is dropped from training, not from validation.

    Raises:
        InputError: an unknown file, a malformed row (named), nothing left to train on.
    """
    tests = {name: FILTERS[name]() for name in options.filter}
    result = Collection([], [], [])
    for text in (*options.val, *options.data):
        name, weight, cap = parse_spec(text)
        report = SourceReport(name)
        items = read(report, cap, tests, options)
        fraction = options.validation_fraction
        if options.val:
            fraction = 1.0 if len(result.reports) < len(options.val) else 0.0
        held_out = [item for item in items if is_held_out(item.group, fraction)]
        kept = [item for item in items if not is_held_out(item.group, fraction)]
        kept = weighted(kept, weight, options.seed)
        report.held_out, report.train = len(held_out), len(kept)
        result.validation.extend(held_out)
        result.train.extend(kept)
        result.reports.append(report)
    if not result.train:
        raise InputError(f"--data {' '.join(options.data)}: nothing is left to train on ({result.reports[-1].line()})")
    return result


def read(
    report: SourceReport, cap: int | None, tests: dict[str, Filter], options: FinetuneOptions
) -> list[Conversation]:
    """A source's conversations that pass the tests; the others are counted in `report`."""
    found: Iterable[Conversation] = convert(report, options.method == "dpo", options.skip_malformed)
    from_hub = report.name in CATALOGUE or report.name.startswith("hf:")
    if cap is not None and not from_hub:  # drawn before the tests, which then know of no more than what is read
        found = list(found)
        if len(found) > cap:
            report.dropped["over the cap"] = len(found) - cap
            found = draw(found, cap, options.seed)
    items: list[Conversation] = []
    for item in found:
        failed = next((name for name, passes in tests.items() if not passes(item)), None)
        if failed is None:
            items.append(item)
        else:
            report.dropped[failed] += 1
        if from_hub and len(items) == cap:  # the rest of a stream need not be read
            break
    return items


def convert(report: SourceReport, preferences: bool, skip_malformed: bool) -> Iterator[Conversation]:
    """A source's rows as conversations or preferences; counted in `report`."""
    name = report.name
    make: Callable[[Any], Conversation] = to_preference if preferences else to_conversation
    rows: Iterable[tuple[str, Any]]
    if name == WIKI_QA:
        if preferences:
            raise InputError("--data wiki-qa holds questions and answers, no preferences. Give chosen/rejected pairs.")
        report.licence, make = WIKI_QA_LICENCE, lambda item: item  # they are conversations already
        rows = ((name, item) for item in wiki_questions())
    elif name in CATALOGUE:
        known, skip_malformed = CATALOGUE[name], True
        report.licence = known.licence
        theirs = known.convert(row for _, row in open_rows(f"hf:{known.repository}::{known.split}"))
        rows = ((f"{name}: row {number}", row) for number, row in enumerate(theirs, 1))
    else:
        rows = open_rows(name, [WIKI_QA, *CATALOGUE])
    for place, row in rows:
        report.read += 1
        try:
            yield make(row)
        except RowError as error:
            if not skip_malformed:
                raise InputError(f"{place}: {error}. Fix it or give --skip-malformed.") from None
            report.malformed = report.malformed or f"{place}: {error}"
            report.dropped["malformed"] += 1


def is_held_out(group: str, fraction: float) -> bool:
    """Whether a group is among the `fraction` that is held out: by its hash alone."""
    digest = hashlib.sha256(f"held out\n{group}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def replay_texts(validation_fraction: float, seed: int) -> list[str]:
    """The texts of embedded Wikipedia articles that are not held out, neither here nor by `gpt3 train`, shuffled."""
    kept = (a for a in articles() if not is_validation(a) and not is_held_out(a.title, validation_fraction))
    texts = [document(article) for article in kept]
    random.Random(seed).shuffle(texts)
    return texts


def weighted(items: list[Any], weight: float, seed: int) -> list[Any]:
    """Each item floor(weight) times, and a draw of them once more for the rest of the weight."""
    whole = int(weight)
    return items * whole + draw(items, round((weight - whole) * len(items)), seed)


def draw(items: list[Any], count: int, seed: int) -> list[Any]:
    """`count` of the items by chance, in their order."""
    return [items[number] for number in sorted(random.Random(seed).sample(range(len(items)), count))]
