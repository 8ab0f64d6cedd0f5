"""Near-duplicates: what counts as one, and which documents are dropped.

The rule has a witness: a document is dropped only if an earlier document that is *kept* is verified to be similar. Which of two
copies is kept is decided by their order alone.

`NearDuplicates` applies it to texts one by one, in memory; `gpt3.curation.clusters` to a corpus on disk. Both drop the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gpt3.options import Options, option

Array = np.ndarray[Any, Any]

KEPT = -1
"""In place of a witness: the document is kept."""


@dataclass(frozen=True)
class NearDuplicateOptions(Options):
    """Which documents are near-duplicates."""

    rule: Literal["bands", "paper"] = "bands"
    """bands: one of --bands of --rows hashes must agree; paper: one of 10 single hashes of words (App. A)."""
    shingle: int | None = option(None, least=1, most=100)
    """Words in a shingle. Default: 5; of the paper's rule 1."""
    bands: int | None = option(None, least=1, most=1000)
    """Bands, of which one must agree whole. Default: 14; of the paper's rule 10."""
    rows: int | None = option(None, least=1, most=100)
    """Hashes in a band. Default: 8; of the paper's rule 1."""
    at_least: float = option(0.7, above=0, most=1)
    """Jaccard similarity from which a document is a near-duplicate."""
    across: bool = True
    """Compare documents of different sources, too; an earlier source's document is kept."""
    verify: Literal["signatures", "exact"] | None = None
    """Similarity by signatures, or exactly by the shingles themselves. Default: signatures; of the paper's rule exact."""

    def __post_init__(self) -> None:
        super().__post_init__()
        paper = self.rule == "paper"
        filled = {"shingle": 1 if paper else 5, "bands": 10 if paper else 14, "rows": 1 if paper else 8}
        filled["verify"] = "exact" if paper else "signatures"  # type: ignore[assignment]
        for name, value in filled.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def errors(self) -> Iterator[str]:
        """More than the paper's rule has."""
        if self.rule == "paper" and (self.bands or self.rows or self.shingle):
            yield "--rule paper has a shingle, bands and rows of its own; leave yours out"

    @property
    def hashes(self) -> int:
        """Of a signature."""
        return int(self.bands or 0) * int(self.rows or 0)

    def shape(self) -> dict[str, Any]:
        """What signatures and keys depend on."""
        return {"shingle": self.shingle, "bands": self.bands, "rows": self.rows}

    def signatures(self, texts: list[str]) -> Array:
        """(texts, hashes) uint32."""
        from gpt3.curation.minhash import signatures

        return signatures(texts, int(self.shingle or 0), self.hashes)

    def keys(self, signatures: Array, group: int = 0) -> Array:
        """(bands, texts) uint64; texts of different groups share none."""
        from gpt3.curation.minhash import band_keys

        return band_keys(signatures, int(self.bands or 0), int(self.rows or 0), group)


@dataclass
class Duplicates:
    """Which documents are dropped. They are numbered through the whole corpus."""

    witnesses: Array
    """(documents,) int64: the kept document of which this one is a near-duplicate; KEPT for a document that is kept."""
    similarities: Array
    """(documents,) float32: to the witness."""
    sizes: Array
    """(clusters,) int64: documents of each cluster that share bands, of two or more."""
    left_out: int
    """Comparisons left out in huge clusters, see `gpt3.curation.clusters.MOST_COMPARED`."""
    key: str = ""
    """A hash of all that they depend on, where they are kept on disk."""

    @property
    def dropped(self) -> Array:
        """(documents,) bool."""
        return self.witnesses != KEPT


class NearDuplicates:
    """Texts one by one: is each new, or a near-duplicate of an earlier one that was new?

    Args:
        options: what a near-duplicate is.
    """

    def __init__(self, options: NearDuplicateOptions) -> None:
        self.options = options
        self._buckets: dict[tuple[int, int], list[int]] = {}
        self._kept: list[tuple[int, Array]] = []  # number and signature or shingles of each kept text
        self._seen = 0

    def __call__(self, text: str, group: int = 0) -> int | None:
        """Remember a text; the number of its witness, counted from 0 through all texts, or None if it is new.

        Args:
            group: only texts of the same group are compared.
        """
        from gpt3.curation.shingles import shingle_sets

        number, self._seen = self._seen, self._seen + 1
        signature = self.options.signatures([text])
        places = [*enumerate(self.options.keys(signature, group)[:, 0].tolist())]
        exact = self.options.verify == "exact"
        mine = shingle_sets([text], int(self.options.shingle or 0))[0] if exact else signature[0]
        candidates = sorted({other for place in places for other in self._buckets.get(place, ())})
        for other in candidates:
            witness, theirs = self._kept[other]
            if (jaccard(mine, theirs) if exact else agreement(mine, theirs)) >= np.float32(self.options.at_least):
                return witness
        for place in places:
            self._buckets.setdefault(place, []).append(len(self._kept))
        self._kept.append((number, mine))
        return None


def agreement(a: Array, b: Array) -> np.float32:
    """The share of equal places of two signatures, which estimates the similarity."""
    return np.float32((a == b).mean())


def jaccard(a: Array, b: Array) -> np.float32:
    """The similarity of two sets of shingles, each without repeats."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return np.float32(both / max(1, len(a) + len(b) - both))
