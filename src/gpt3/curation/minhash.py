"""MinHash signatures (Broder 1997) of word shingles, compiled by numba, and the keys of their bands (Indyk and Motwani 1998).

Two documents of Jaccard similarity s, which is the share of the shingles of both that they have in common, agree in each place
of their signatures with probability s. Of b bands of r places each, one agrees whole with probability 1 - (1 - s**r)**b.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from gpt3.corpus.ngram_kernels import BASE, START, mix
from gpt3.curation.shingles import character_table, joined, shingle_hashes

Array = np.ndarray[Any, Any]

VERSION = 1
"""Counts changes in what a signature is."""
TOGETHER = 4
"""Hash functions whose minima are found in one loop."""
HIGH = np.uint64(32)


@functools.lru_cache(maxsize=8)
def _multipliers(count: int) -> tuple[Array, Array]:
    """Factors, odd, and offsets of `count` hashes modulo 2**32, rounded up to whole groups of `TOGETHER`."""
    generator = np.random.Generator(np.random.PCG64(20200522))
    numbers = generator.integers(0, 2**32, (-(-count // TOGETHER) * TOGETHER, 2), dtype=np.uint32)
    return numbers[:, 0] | np.uint32(1), numbers[:, 1].copy()


@njit(cache=True, nogil=True)
def _minima(hashes, factors, offsets, out):
    """The least value of each hash function over `hashes` (shingles,) uint32; four functions in one loop, which has vectors."""
    for k in range(0, len(factors), TOGETHER):
        a0, a1, a2, a3 = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        b0, b1, b2, b3 = offsets[k], offsets[k + 1], offsets[k + 2], offsets[k + 3]
        least0 = least1 = least2 = least3 = np.uint32(0xFFFFFFFF)
        for i in range(len(hashes)):
            x = hashes[i]
            least0 = min(least0, np.uint32(a0 * x + b0))
            least1 = min(least1, np.uint32(a1 * x + b1))
            least2 = min(least2, np.uint32(a2 * x + b2))
            least3 = min(least3, np.uint32(a3 * x + b3))
        out[k], out[k + 1], out[k + 2], out[k + 3] = least0, least1, least2, least3


@njit(cache=True, nogil=True)
def _sign(data, places, table, size, factors, offsets, tokens, hashes, short, out):
    row = np.empty(len(factors), dtype=np.uint32)
    for d in range(len(places) - 1):
        count = shingle_hashes(data, places[d], places[d + 1], table, size, tokens, hashes)
        for i in range(count):
            short[i] = np.uint32(hashes[i] >> HIGH)
        _minima(short[:count], factors, offsets, row)
        for k in range(out.shape[1]):  # an assignment of slices takes a second to compile
            out[d, k] = row[k]


def signatures(texts: Sequence[str], size: int, count: int) -> Array:
    """The signature of each text: (texts, count) uint32.

    Args:
        size: words in a shingle.
        count: hashes.
    """
    data, places = joined(texts)
    longest = int(np.diff(places).max(initial=0)) + 1
    out = np.empty((len(texts), count), dtype=np.uint32)
    factors, offsets = _multipliers(count)
    tokens, hashes = np.empty(longest, dtype=np.uint64), np.empty(longest, dtype=np.uint64)
    _sign(
        data, places, character_table(), size, factors, offsets, tokens, hashes, np.empty(longest, dtype=np.uint32), out
    )
    return out


@njit(cache=True, nogil=True)
def _keys(signatures, rows, salt, out):
    for band in range(len(out)):
        start = mix(START ^ salt ^ np.uint64(band))
        for d in range(len(signatures)):
            h = start
            for r in range(band * rows, band * rows + rows):
                h = h * BASE + np.uint64(signatures[d, r])
            out[band, d] = mix(h)


def band_keys(signatures: Array, bands: int, rows: int, group: int = 0) -> Array:
    """A hash of each band of each signature: (bands, texts) uint64.

    Args:
        signatures: (texts, at least bands x rows) uint32.
        group: only texts of the same group have equal keys.
    """
    out = np.empty((bands, len(signatures)), dtype=np.uint64)
    _keys(signatures, rows, np.uint64(group), out)
    return out
