"""Benchmark text removed from training text (Brown et al. 2020, App. C).

A 13-gram of a benchmark is cut out of a document with 200 characters on each side, which splits the document into pieces.
Pieces under 200 characters are dropped, and a document of more than 10 pieces is dropped whole. A 13-gram that more than 10
documents hold is a common phrase and stays.

The paper says "a 200 character window around it" and not whether that is 200 in all; 200 on each side removes more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt3 import durable
from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import Array, NgramIndex, scan_parts

GRAM = 13
"""Words of a colliding N-gram."""
WINDOW = 200
"""Characters removed on each side of it."""
SHORTEST_PIECE = 200
"""Characters of a piece that is kept, at least."""
MOST_PIECES = 10
"""A document of more pieces is dropped."""
MOST_DOCUMENTS = 10
"""An N-gram in more documents is ignored."""
IGNORED = "ignored.npy"
COMPLETE = "complete"


def index_benchmarks(texts: Iterable[str]) -> NgramIndex:
    """The 13-grams of benchmark examples; shorter examples have none."""
    return NgramIndex.of((text, GRAM) for text in texts)


def clean(text: str, index: NgramIndex, ignored: Array | None = None) -> list[str]:
    """What is kept of a document: itself where nothing collides, else its pieces.

    Args:
        text: the document.
        index: 13-grams of the benchmarks.
        ignored: (grams,) bool, those that may stay.

    Returns:
        The pieces in order; none where the document is dropped.
    """
    numbers, starts, stops = index.find(text)
    if ignored is not None and len(numbers):
        counted = ~ignored[numbers]
        starts, stops = starts[counted], stops[counted]
    if not len(starts):
        return [text]
    pieces = cut_out(text, sorted(zip(starts.tolist(), stops.tolist(), strict=True)))
    if len(pieces) > MOST_PIECES:
        return []
    return [piece for piece in pieces if len(piece) >= SHORTEST_PIECE and not piece.isspace()]


def cut_out(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The pieces of `text` left when each span, in rising order, is removed with `WINDOW` characters on each side."""
    pieces = []
    kept = 0  # from where on text is not yet known to be removed
    for start, stop in spans:
        if start - WINDOW > kept:
            pieces.append(text[kept : start - WINDOW])
        kept = max(kept, stop + WINDOW)
    if kept < len(text):
        pieces.append(text[kept:])
    return pieces


def prepare_folder(folder: Path, index: NgramIndex, parts: Sequence[Part], workers: int) -> None:
    """Write to `folder` what `CleanPart`s need: the index, and which grams are in more than `MOST_DOCUMENTS` of the documents.

    Reads all parts once. A folder that is complete is left as it is.

    Raises:
        InputError: a part cannot be read.
    """
    if (folder / COMPLETE).exists():
        return
    durable.discard(folder)
    folder.mkdir(parents=True)
    index.save(folder)
    found = scan_parts(index, parts, folder, workers, label="looking for benchmark text")
    ignored = np.zeros(len(index), dtype=bool)
    ignored[[s.gram for s in found.sightings if s.documents > MOST_DOCUMENTS]] = True
    np.save(folder / IGNORED, ignored)
    durable.write_text(folder / COMPLETE, "")


@dataclass(frozen=True)
class CleanPart(Part):
    """A part without the benchmark text in it; a document that falls into pieces is several.

    Attributes:
        part: what is read.
        folder: see `prepare_folder`.
    """

    name: str
    size: int | None
    part: Part
    folder: Path

    def documents(self) -> Iterator[str]:
        """Yield what is kept of each document."""
        index, ignored = NgramIndex.load(self.folder), np.load(self.folder / IGNORED)
        for text in self.part.documents():
            yield from clean(text, index, ignored)


def fingerprint(index: NgramIndex) -> str:
    """sha256 in hex of the texts indexed and of these rules."""
    rules = (1, GRAM, WINDOW, SHORTEST_PIECE, MOST_PIECES, MOST_DOCUMENTS)
    return hashlib.sha256(repr(rules).encode() + index.points.tobytes()).hexdigest()
