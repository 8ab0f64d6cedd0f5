"""A source without the documents that break the rules of a set of heuristics, filtered as it is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.documents import Part, Source
from gpt3.curation.heuristics import SETS, broken
from gpt3.curation.stages import digest
from gpt3.curation.statistics import VERSION, measure

BATCH = 256
"""Documents measured at a time."""


@dataclass(frozen=True)
class FilteredPart(Part):
    """A part's documents that break no rule."""

    name: str
    size: int | None
    part: Part
    rules: str

    def documents(self) -> Iterator[str]:
        """Yield them in order."""
        texts = self.part.documents()
        while batch := list(itertools.islice(texts, BATCH)):
            verdicts = broken(SETS[self.rules], measure(batch))
            yield from (text for text, verdict in zip(batch, verdicts.tolist(), strict=True) if verdict < 0)


@dataclass(frozen=True)
class FilteredSource(Source):
    """A source's documents that break no rule."""

    name: str
    inner: Source
    rules: str
    """A name in `gpt3.curation.heuristics.SETS`."""

    def parts(self) -> list[Part]:
        """The source's own, filtered."""
        return [FilteredPart(part.name, part.size, part, self.rules) for part in self.inner.parts()]

    def fingerprint(self) -> str:
        """Of the source and the rules."""
        rules = [[rule.figure, rule.name] for rule in SETS[self.rules]]
        return digest({"inner": self.inner.fingerprint(), "rules": rules, "version": VERSION})

    def describe(self) -> dict[str, Any]:
        """The source's, with the rules' name."""
        return {**self.inner.describe(), "filter": self.rules}
