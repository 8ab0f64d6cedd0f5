"""How hard a text is to predict after another one: a model of byte n-grams, counted in a second.

Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1999, section 2.5): of a context seen n times, with d different
bytes after it, the longer context's counts have the weight n / (n + d), the shorter context's estimate the rest.
"""

from __future__ import annotations

import numpy as np

LONGEST = 5
"""Bytes of the longest context; a key of one and the byte after it must fit 64 bits."""


def bits_per_byte(train: bytes, test: bytes) -> float:
    """The mean bits per byte of `test` by the n-grams of `train`; neither may be empty.

    `test` begins in an unknown context of zeros.
    """
    known, asked = (np.frombuffer(text, np.uint8).astype(np.int64) for text in (train, test))
    chance = np.full(len(asked), 1 / 256)
    for length in range(LONGEST + 1):
        grams, times = np.unique(_keys(known, length), return_counts=True)
        starts = np.flatnonzero(np.diff(grams >> 8, prepend=-1))  # of each context's grams
        contexts, seen = grams[starts] >> 8, np.add.reduceat(times, starts)
        different = np.diff(starts, append=len(grams))
        wanted = _keys(asked, length)
        at = np.minimum(np.searchsorted(contexts, wanted >> 8), len(contexts) - 1)
        place = np.minimum(np.searchsorted(grams, wanted), len(grams) - 1)
        count = np.where(grams[place] == wanted, times[place], 0)
        mixed = (count + different[at] * chance) / (seen[at] + different[at])
        chance = np.where(contexts[at] == wanted >> 8, mixed, chance)
    return float(-np.log2(chance).mean())


def _keys(text: np.ndarray, length: int) -> np.ndarray:
    """Each byte with the `length` before it, as one number: (bytes,) int64."""
    padded = np.concatenate([np.zeros(length, np.int64), text])
    keys = np.zeros(len(text), np.int64)
    for offset in range(length + 1):
        keys = keys << 8 | padded[offset : offset + len(text)]
    return keys
