"""A source's documents that a rule selects, as they are read: those that break no heuristic, or a share of all."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.corpus.documents import Part, Source
from gpt3.corpus.segments import document_key
from gpt3.curation.heuristics import SETS, broken
from gpt3.curation.stages import digest
from gpt3.curation.statistics import VERSION, measure

BATCH = 256
"""Documents judged at a time."""


class Selection(ABC):
    """A rule. Picklable."""

    @abstractmethod
    def selects(self, texts: Sequence[str]) -> list[bool]:
        """Of each document, whether it is selected. Each is judged alone."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """All that the choice depends on, ready for JSON."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a manifest says of it."""

    def size(self, total: int) -> int:
        """Bytes that are selected of `total`, at most."""
        return total


@dataclass(frozen=True)
class ByRules(Selection):
    """Documents that break no heuristic of a set."""

    name: str
    """In `gpt3.curation.heuristics.SETS`."""

    def selects(self, texts: Sequence[str]) -> list[bool]:
        """Those without a broken rule."""
        return [number < 0 for number in broken(SETS[self.name], measure(texts)).tolist()]

    def identity(self) -> dict[str, Any]:
        """The rules and the version of their figures."""
        return {"rules": [[rule.figure, rule.name] for rule in SETS[self.name]], "version": VERSION}

    def describe(self) -> dict[str, Any]:
        """The set's name."""
        return {"filter": self.name}


@dataclass(frozen=True)
class ByShare(Selection):
    """A share of the documents, chosen by a hash of their text: equal texts are in it together or not at all."""

    share: float

    def selects(self, texts: Sequence[str]) -> list[bool]:
        """Those of a low hash."""
        below = int(self.share * 2**64)
        return [int.from_bytes(document_key(text.encode("utf-8")), "big") < below for text in texts]

    def identity(self) -> dict[str, Any]:
        """The share."""
        return {"share": self.share}

    def describe(self) -> dict[str, Any]:
        """The share."""
        return {"sample": self.share}

    def size(self, total: int) -> int:
        """The share."""
        return int(total * self.share)


@dataclass(frozen=True)
class SelectedPart(Part):
    """The selected documents of a part."""

    name: str
    size: int | None
    part: Part
    selection: Selection

    def documents(self) -> Iterator[str]:
        """Yield them in order."""
        texts = self.part.documents()
        while batch := list(itertools.islice(texts, BATCH)):
            yield from itertools.compress(batch, self.selection.selects(batch))


@dataclass(frozen=True)
class SelectedSource(Source):
    """The selected documents of a source."""

    name: str
    inner: Source
    selection: Selection

    def parts(self) -> list[Part]:
        """The source's own, each with the documents that are selected."""
        sized = [(part, None if part.size is None else self.selection.size(part.size)) for part in self.inner.parts()]
        return [SelectedPart(part.name, size, part, self.selection) for part, size in sized]

    def fingerprint(self) -> str:
        """Of the source and the rule."""
        return digest({"inner": self.inner.fingerprint(), **self.selection.identity()})

    def describe(self) -> dict[str, Any]:
        """The source's, with the rule."""
        return {**self.inner.describe(), **self.selection.describe()}
