"""What stages find out about documents, and what follows: why each is dropped, if it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt3.corpus.pool import Report
from gpt3.curation.chunks import Chunk, chosen_texts, write_array

Array = np.ndarray[Any, Any]


class RowWriter:
    """Writes rows about chunks' documents; what one process does.

    Args:
        make: of texts their rows, (texts, …).
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


class ScoreWriter(RowWriter):
    """Writes the scores that a classifier gives, float64."""

    def __init__(self, folder: Path, model: Path, report: Report) -> None:
        from gpt3.curation.classifier import Classifier

        super().__init__(folder, Classifier.load(model).scores, report)


@dataclass
class Verdicts:
    """Why each document is dropped, if it is."""

    reasons: list[str]
    """Names; number 0 is kept."""
    codes: Array
    """(documents,) int16 through all chunks: the number of the reason."""
    key: str
    """A hash of what they depend on."""

    def drop(self, which: Array, reason: str) -> None:
        """Drop documents that are kept so far."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.codes[which & (self.codes == 0)] = self.reasons.index(reason)


def texts_of(chunks: Sequence[Chunk], rows: Array) -> Iterator[str]:
    """The texts of documents numbered through all chunks, in the order given."""
    ends = np.cumsum([c.documents for c in chunks])
    order = np.argsort(rows, kind="stable")
    found: list[str] = [""] * len(rows)
    ordered = rows[order]
    for chunk, end in zip(chunks, ends.tolist(), strict=True):
        low, high = np.searchsorted(ordered, [end - chunk.documents, end])
        if low < high:
            texts = chosen_texts(chunk, ordered[low:high] - (end - chunk.documents))
            for place_, text in zip(order[low:high].tolist(), texts, strict=True):
                found[place_] = text
    return iter(found)
