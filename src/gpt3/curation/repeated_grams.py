"""n-grams of a document's words: how much of it the most frequent ones take up, and those that came before.

Hashes of words roll over n-grams. An n-gram can only occur twice where the n-gram of one word less does, so that in prose few are
looked up from the third length on.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit

from gpt3.corpus.ngram_kernels import BASE, ONE, mix

SHORTEST, REPEATED, LONGEST = 2, 5, 10
"""Words of n-grams whose most frequent one counts; from which on those that came before do."""


@njit(cache=True, nogil=True)
def clear(table):
    """Empty a hash table."""
    for slot in range(len(table)):  # numba compiles loops faster than assignments of slices
        table[slot] = 0


@njit(cache=True, nogil=True)
def slot_of(table, h):
    """Where a hash is in a table, or would be; 0 marks an empty entry."""
    mask = np.uint64(len(table) - 1)
    slot = h & mask
    while table[slot] != 0 and table[slot] != h:
        slot = (slot + ONE) & mask
    return slot


@njit(cache=True, nogil=True)
def count_grams(hashes, lengths, seen, counts, rows, row):
    """Characters in the most frequent n-grams, and in those that came before.

    Args:
        hashes, lengths: of the words, (words,) uint64 and int64 characters.
        seen, counts: to work in: hash tables of a power of two of entries, more than words, uint64 and int64.
        rows: to work in: (2, words) int64.
        row: the results, 9 integers: characters in the most frequent grams of 2, 3 and 4 words, each time it occurs, with the
            spaces between words; in the grams of 5 to 10 words that came before, without.
    """
    places, slots = rows[0], rows[1]
    prefix, characters = np.empty(len(hashes) + 1, np.uint64), np.empty(len(hashes) + 1, np.int64)
    prefix[0], characters[0] = 0, 0
    for i in range(len(hashes)):
        prefix[i + 1] = prefix[i] * BASE + hashes[i]
        characters[i + 1] = characters[i] + lengths[i]
        places[i] = i
    several, power = len(hashes), BASE
    for n in range(SHORTEST, LONGEST + 1):
        power *= BASE
        clear(seen)
        if n < REPEATED:  # only a gram whose words but the last occur twice can itself
            best, most, left = 0, 1, 0
            for p in range(several):
                i = places[p]
                slots[p] = -1
                if i + n > len(hashes):
                    continue
                h = mix(prefix[i + n] - prefix[i] * power) | ONE
                slot = slot_of(seen, h)
                counts[slot] = counts[slot] + 1 if seen[slot] == h else 1
                seen[slot] = h
                slots[p] = slot
            for p in range(several):
                if slots[p] >= 0 and counts[slots[p]] > 1:
                    if counts[slots[p]] > most:
                        best, most = places[p], counts[slots[p]]
                    places[left] = places[p]
                    left += 1
            several = left
            if n <= len(hashes):
                row[n - SHORTEST] = most * (characters[best + n] - characters[best] + n - 1)
            continue
        free = 0
        for p in range(several):  # those whose first four words occur twice
            i = places[p]
            if i < free or i + n > len(hashes):
                continue
            h = mix(prefix[i + n] - prefix[i] * power) | ONE
            slot = slot_of(seen, h)
            if seen[slot] == h:
                row[n - SHORTEST] += characters[i + n] - characters[i]
                free = i + n
            seen[slot] = h
