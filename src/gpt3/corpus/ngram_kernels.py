"""The loops of `gpt3.corpus.ngrams`, compiled by numba: text cut into hashed words, N-grams hashed and looked up."""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Odd: the polynomial hash of a gram rolls over words modulo 2**64."""
FACTOR = np.uint64(0x100000001B3)
"""FNV's prime, for the characters of a word."""
START = np.uint64(0xCBF29CE484222325)
M1, M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
ZERO, ONE, SHIFT, BYTE, SEVEN, HIGH = (np.uint64(x) for x in (0, 1, 33, 3, 7, 29))


@njit(cache=True, nogil=True, inline="always")
def mix(h):
    """Spread a hash over all 64 bits (the finaliser of MurmurHash3)."""
    h ^= h >> SHIFT
    h *= M1
    h ^= h >> SHIFT
    h *= M2
    return h ^ (h >> SHIFT)


@njit(cache=True, nogil=True)
def cut_words(points, table, seed) -> tuple[Array, Array, Array]:
    """Hashes (words,) uint64 of the words in `points` (characters,) uint32, and where each starts and stops, int64."""
    most = (len(points) + 1) // 2
    hashes = np.empty(most, dtype=np.uint64)
    starts = np.empty(most, dtype=np.int64)
    stops = np.empty(most, dtype=np.int64)
    begin = START ^ mix(np.uint64(seed))
    count = 0
    inside = False
    h = begin
    for i in range(len(points)):
        c = points[i]
        if c >= len(table) or table[c]:
            if not inside:
                inside = True
                h = begin
                starts[count] = i
            h = (h ^ np.uint64(c)) * FACTOR
        elif inside:
            inside = False
            hashes[count] = mix(h)
            stops[count] = i
            count += 1
    if inside:
        hashes[count] = mix(h)
        stops[count] = len(points)
        count += 1
    return hashes[:count], starts[:count], stops[:count]


@njit(cache=True, nogil=True)
def gram_hashes(hashes, size) -> Array:
    """Hashes of all runs of `size` words: (words - size + 1,) uint64."""
    power = ONE
    for _ in range(size):
        power *= BASE
    out = np.empty(max(0, len(hashes) - size + 1), dtype=np.uint64)
    rolling = ZERO
    for i in range(len(hashes)):
        rolling = rolling * BASE + hashes[i]
        if i >= size:
            rolling -= hashes[i - size] * power
        if i >= size - 1:
            out[i - size + 1] = mix(rolling + np.uint64(size))
    return out


@njit(cache=True, nogil=True)
def fill(unique, bits, keys, values) -> None:
    """Enter the hashes `unique` into the filter and the table; gram g has hash unique[g]."""
    mask = np.uint64(len(keys) - 1)
    bit_mask = np.uint64(len(bits) * 8 - 1)
    for g in range(len(unique)):
        h = unique[g]
        bit = (h >> HIGH) & bit_mask
        bits[bit >> BYTE] |= np.uint8(1) << np.uint8(bit & SEVEN)
        slot = h & mask
        while values[slot] >= 0:
            slot = (slot + ONE) & mask
        keys[slot] = h
        values[slot] = g


@njit(cache=True, nogil=True)
def same(points, starts, stops, first, size, blob, place) -> bool:
    """Whether the `size` words from word `first` on are those in `blob` at `place`, one space between."""
    p = place
    for w in range(first, first + size):
        for i in range(starts[w], stops[w]):
            if p >= len(blob) or blob[p] != points[i]:
                return False
            p += 1
        if p >= len(blob) or blob[p] != 32:
            return False
        p += 1
    return True


@njit(cache=True, nogil=True)
def look_up(points, hashes, starts, stops, lengths, bits, keys, values, blob, places, sizes, found) -> int:
    """Write gram, start and stop of every hit into `found` (3, room) int64, as far as there is room; returns all hits."""
    mask = np.uint64(len(keys) - 1)
    bit_mask = np.uint64(len(bits) * 8 - 1)
    count = 0
    for k in range(len(lengths)):
        size = lengths[k]
        power = ONE
        for _ in range(size):
            power *= BASE
        rolling = ZERO
        for i in range(len(hashes)):
            rolling = rolling * BASE + hashes[i]
            if i >= size:
                rolling -= hashes[i - size] * power
            if i < size - 1:
                continue
            h = mix(rolling + np.uint64(size))
            bit = (h >> HIGH) & bit_mask
            if not (bits[bit >> BYTE] >> np.uint8(bit & SEVEN)) & 1:
                continue
            slot = h & mask
            while values[slot] >= 0:
                if keys[slot] == h:
                    g = values[slot]
                    first = i - size + 1
                    if sizes[g] == size and same(points, starts, stops, first, size, blob, places[g]):
                        if count < found.shape[1]:
                            found[0, count] = g
                            found[1, count] = starts[first]
                            found[2, count] = stops[i]
                        count += 1
                    break
                slot = (slot + ONE) & mask
    return count
