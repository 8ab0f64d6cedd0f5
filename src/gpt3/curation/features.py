"""The features of the paper's quality classifier: Spark's standard Tokenizer and HashingTF (App. A), compiled by numba.

Text in lower case is split at each white-space character; two in a row make an empty word, and empty words at the end are left
out. A word's feature is the MurmurHash3 of its UTF-8 bytes, seed 42, modulo the number of features; its value is how often it
occurs. (spark.ml's `Tokenizer` and `HashingTF`)
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from gpt3.curation.shingles import joined

Array = np.ndarray[Any, Any]

VERSION = 1
"""Counts changes in what a feature is."""
FEATURES = 1 << 18
"""HashingTF's default."""
SEED = np.uint32(42)
C1, C2, C3, C4 = (np.uint32(x) for x in (0xCC9E2D51, 0x1B873593, 0x85EBCA6B, 0xC2B2AE35))
N = np.uint32(0xE6546B64)


@njit(cache=True, nogil=True)
def _rotated(x, bits):
    return np.uint32(np.uint32(x << np.uint32(bits)) | np.uint32(x >> np.uint32(32 - bits)))


@njit(cache=True, nogil=True)
def _scrambled(k):
    return np.uint32(_rotated(np.uint32(k * C1), 15) * C2)


@njit(cache=True, nogil=True)
def feature(data, start, stop, features):
    """The feature of the word data[start:stop]."""
    h, i = SEED, start
    while i + 4 <= stop:
        k = np.uint32(data[i]) | np.uint32(data[i + 1]) << np.uint32(8)
        k |= np.uint32(data[i + 2]) << np.uint32(16) | np.uint32(data[i + 3]) << np.uint32(24)
        h = np.uint32(_rotated(h ^ _scrambled(np.uint32(k)), 13) * np.uint32(5) + N)
        i += 4
    if i < stop:
        k = np.uint32(0)
        for j in range(stop - 1, i - 1, -1):
            k = np.uint32(k << np.uint32(8)) | np.uint32(data[j])
        h ^= _scrambled(np.uint32(k))
    h = np.uint32(h ^ np.uint32(stop - start))
    h = np.uint32((h ^ (h >> np.uint32(16))) * C3)
    h = np.uint32((h ^ (h >> np.uint32(13))) * C4)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return np.int64(np.int32(h)) % features


@njit(cache=True, nogil=True)
def _features(data, start, stop, features, out, places):
    """Write the features of a document's words, and where each word begins; return how many, empty words at the end left out."""
    count = kept = 0
    begin = start
    for i in range(start, stop + 1):
        c = data[i] if i < stop else np.uint8(32)
        if c == 32 or 9 <= c <= 13:
            if i < stop or i > begin:
                out[count], places[count] = feature(data, begin, i, features), begin
                count += 1
                if i > begin:
                    kept = count
            begin = i + 1
    if stop == start:
        out[0], places[0] = feature(data, start, stop, features), start
        return 1
    return kept


@njit(cache=True, nogil=True)
def _all(data, places, features, out, starts, ends):
    count = 0
    for d in range(len(places) - 1):
        count += _features(data, places[d], places[d + 1], features, out[count:], starts[count:])
        ends[d + 1] = count


@njit(cache=True, nogil=True, fastmath=False)
def _scores(data, places, weights, bias, out):
    longest = 0
    for d in range(len(places) - 1):
        longest = max(longest, places[d + 1] - places[d])
    found, starts = np.empty(longest + 1, dtype=np.int64), np.empty(longest + 1, dtype=np.int64)
    for d in range(len(places) - 1):
        z = bias
        for k in range(_features(data, places[d], places[d + 1], len(weights), found, starts)):
            z += weights[found[k]]
        out[d] = 1 / (1 + np.exp(-z))


def _hashed(texts: Sequence[str], features: int) -> tuple[Array, Array, Array, Array, Array]:
    """The texts in lower case, see `joined`; of their words the features and first bytes, and where each text's begin."""
    data, places = joined([text.lower() for text in texts])
    out, starts = np.empty(len(data) + len(texts), dtype=np.int64), np.empty(len(data) + len(texts), dtype=np.int64)
    ends = np.zeros(len(texts) + 1, dtype=np.int64)
    _all(data, places, features, out, starts, ends)
    return data, places, out[: ends[-1]], starts[: ends[-1]], ends


def words_of(texts: Sequence[str], features: int = FEATURES) -> tuple[Array, Array, list[bytes]]:
    """The features of each text's words, one text's after the other's: int64.

    Returns:
        The features; where each text's begin and the last one's end, (texts + 1,) int64; the words in UTF-8.
    """
    data, places, out, starts, ends = _hashed(texts, features)
    raw, words = data.tobytes(), []
    for d in range(len(texts)):
        begins = starts[ends[d] : ends[d + 1]].tolist()
        words += [raw[begin : after - 1] for begin, after in itertools.pairwise(begins)]
        words += [b"".join(raw[begins[-1] : places[d + 1]].split()[:1])] if begins else []
    return out, ends, words


def frequencies(texts: Sequence[str], features: int = FEATURES) -> Any:
    """What HashingTF gives: a scipy CSR matrix (texts, features) float64."""
    from scipy.sparse import csr_matrix

    _, _, found, _, ends = _hashed(texts, features)
    made = csr_matrix((np.ones(len(found)), found, ends), shape=(len(texts), features))
    made.sum_duplicates()
    return made


def scores(texts: Sequence[str], weights: Array, bias: float) -> Array:
    """The probability of being good, (texts,) float64, by logistic regression of the frequencies."""
    data, places = joined([text.lower() for text in texts])
    out = np.empty(len(texts))
    _scores(data, places, weights, bias, out)
    return out
