"""The documents of a corpus while it is made, numbered through all chunks: where each is from, and why it is dropped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.mixture import NAME
from gpt3.corpus.pool import Report
from gpt3.corpus.skipped import Skipped
from gpt3.curation.chunks import Chunk, chosen_texts, over_chunks, write_array
from gpt3.curation.stages import Engine, digest, place
from gpt3.options import Options, option

Array = np.ndarray[Any, Any]


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
class Judgment:
    """What a stage finds out about all documents."""

    drops: Mapping[str, Array]
    """By reason: (documents,) bool. The first reason counts, and documents that are dropped already may be among them."""
    identity: Any
    """All that it depends on besides the documents that were kept before, ready for JSON."""
    report: Any = None
    """What report.json says of the stage, ready for JSON."""


class Documents:
    """The documents of a corpus, and the place of the work on them.

    Args:
        sources: in order.
        chunks: of all sources; each one's `source` is a number in `sources`.
        inputs: a hash of the documents.
        work: folder of the stages.
        out: folder of what is made.
        engine: shares the work.
        memory: bytes that comparing documents may take in one process.
        seed: of draws.
        skipped: of each source what its reader left out, by reason.

    Attributes:
        reasons: why documents are dropped; number 0 is kept.
        codes: (documents,) int16: the number of each one's reason.
        key: a hash of all that the codes depend on.
    """

    def __init__(
        self, sources: Sequence[SourceOptions], chunks: Sequence[Chunk], inputs: str, work: Path, out: Path,
        engine: Engine, memory: int, seed: int, skipped: Sequence[Mapping[str, Skipped]] = (),
    ) -> None:  # fmt: skip
        self.sources, self.chunks, self.inputs, self.work, self.out = sources, chunks, inputs, work, out
        self.engine, self.memory, self.seed, self.skipped = engine, memory, seed, skipped
        self.counts = [chunk.documents for chunk in chunks]
        self.reasons, self.key = ["kept"], digest({"inputs": inputs})
        self.codes = np.zeros(sum(self.counts), dtype=np.int16)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def kept(self) -> Array:
        """(documents,) bool: those that are not dropped so far."""
        return self.codes == 0

    @functools.cached_property
    def owners(self) -> Array:
        """(documents,) int64: the number of each one's source."""
        return np.repeat([chunk.source for chunk in self.chunks], self.counts).astype(np.int64)

    @functools.cached_property
    def keys(self) -> Array:
        """(documents,) uint64: see `Chunk.keys`."""
        return np.concatenate([np.zeros(0, np.uint64), *map(Chunk.keys, self.chunks)])

    @functools.cached_property
    def sizes(self) -> Array:
        """(documents,) uint64: bytes of each text."""
        return np.concatenate([np.zeros(0, np.uint64), *map(Chunk.sizes, self.chunks)])

    @functools.cached_property
    def places(self) -> Array:
        """(documents,) int64: the number of each document in its source."""
        first = np.searchsorted(self.owners, np.arange(len(self.sources)))  # sources are in order
        return np.arange(len(self)) - first[self.owners]

    @functools.cached_property
    def trusted(self) -> Array:
        """(documents,) bool: those of trusted sources."""
        return self.of(source.trusted for source in self.sources)

    def of(self, chosen: Iterable[bool]) -> Array:
        """(documents,) bool: those of chosen sources, given whether each source is chosen."""
        return np.array([*chosen], dtype=bool)[self.owners]

    def by_chunk(self, array: Array) -> list[Array]:
        """An array's rows of each chunk."""
        return np.split(array, np.cumsum(self.counts)[:-1]) if self.chunks else []

    def rows(self, stage: str, identity: Mapping[str, Any], make: Callable[[list[str]], Array]) -> Iterator[Array]:
        """What `make` gives of the texts, a row for each document: computed once, and kept on disk; a chunk's at a time.

        Args:
            stage: name of the work.
            identity: all that the rows depend on besides the documents, ready for JSON.
            make: of texts their rows, (texts, …), each text's for itself; picklable.
        """
        folder = place(self.work, stage, {"inputs": self.inputs, **identity})
        over_chunks(folder, RowWriter, (make,), self.chunks, [".npy"], self.engine, stage)
        return (np.load(folder / f"{chunk.name}.npy") for chunk in self.chunks)

    def sample(self, which: Array, most: int) -> Array:
        """At most `most` of the chosen documents, the same ones wherever they are: those of the smallest keys, in their order."""
        (rows,) = np.nonzero(which)
        return rows[np.argsort(self.keys[rows], kind="stable")[:most]]

    def texts(self, rows: Array) -> Iterator[str]:
        """The texts of some documents, in the order given."""
        order = np.argsort(rows, kind="stable")
        found: list[str] = [""] * len(rows)
        ordered, start = rows[order], 0
        for chunk in self.chunks:
            low, high = np.searchsorted(ordered, [start, start + chunk.documents])
            if low < high:
                texts = chosen_texts(chunk, ordered[low:high] - start)
                for number, text in zip(order[low:high].tolist(), texts, strict=True):
                    found[number] = text
            start += chunk.documents
        return iter(found)

    def funnel(self, source: int) -> dict[str, Any]:
        """Counts of a source's documents: all, kept ones, and those dropped by reason, the largest first."""
        counts = np.bincount(self.codes[self.owners == source], minlength=len(self.reasons)).tolist()
        dropped = sorted(zip(self.reasons[1:], counts[1:], strict=True), key=lambda pair: -pair[1])
        return {"documents": sum(counts), "kept": counts[0], "dropped": {name: n for name, n in dropped if n}}

    def follow(self, stage: str, judgment: Judgment, spared: Array | None = None) -> None:
        """Drop what a stage says.

        Args:
            spared: (documents,) bool: those that it does not judge.
        """
        for reason, which in judgment.drops.items():
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.codes[(which if spared is None else which & ~spared) & self.kept] = self.reasons.index(reason)
        self.key = digest({"before": self.key, stage: judgment.identity})


class RowWriter:
    """Writes rows about chunks' documents; what one process does.

    Args:
        make: see `Documents.rows`.
    """

    def __init__(self, folder: Path, make: Callable[[list[str]], Array], report: Report) -> None:
        self.folder, self.make, self.report = folder, make, report

    def __call__(self, chunk: Chunk) -> None:
        """One file, a row for each document."""
        rows = []
        for texts in chunk.texts():
            rows.append(self.make(texts))
            self.report(chunk.text_bytes * len(texts) / chunk.documents / 1e6)
        write_array(self.folder / f"{chunk.name}.npy", np.concatenate(rows))
