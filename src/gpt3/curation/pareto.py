"""The paper's rule of quality (App. A): keep a document if ``np.random.pareto(alpha) > 1 - score``.

NumPy's Pareto is Lomax's, P(X > x) = (1 + x)**-alpha, so a document is kept with probability (2 - score)**-alpha. Here the
draw is a hash of seed and text: it depends on neither the order of documents nor the number of workers.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_ALPHA = 1000.0


def draws(keys: Array, seed: int) -> Array:
    """A number in [0, 1) for each document: (documents,) float64.

    Args:
        keys: (documents,) uint64, hashes of their texts (`gpt3.corpus.segments.document_key`).
    """
    salt = seed.to_bytes(8, "little")
    raw = np.ascontiguousarray(keys, dtype="<u8").tobytes()
    digests = (
        hashlib.blake2b(raw[i : i + 8], digest_size=8, salt=salt, person=b"gpt3 pareto").digest()
        for i in range(0, len(raw), 8)
    )
    return (np.frombuffer(b"".join(digests), dtype="<u8") >> np.uint64(11)) * 2.0**-53


def kept(scores: Array, uniform: Array, alpha: float) -> Array:
    """Which documents are kept: (documents,) bool."""
    return uniform < (2.0 - scores) ** -alpha


def matching_alpha(raw: Array, good: Array) -> float:
    """The alpha with which what is kept of raw text has the mean score of good text; 0 where raw text has it already."""

    def mean(alpha: float) -> float:
        weights = (2.0 - raw) ** -alpha
        return float((weights * raw).sum() / weights.sum())

    low, high, wanted = 0.0, MOST_ALPHA, float(good.mean())
    if mean(low) >= wanted:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean(middle) < wanted else (low, middle)
    return (low + high) / 2
