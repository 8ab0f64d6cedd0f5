"""Documents as sets of hashed shingles: runs of a few words, by which near-duplicates are found (Broder 1997).

A word is as in `gpt3.corpus.ngrams`: a longest run of characters that are neither white space nor punctuation nor symbols, in
lower case. In scripts that put no spaces between words (Han, kana, Thai, Lao, Tibetan, Burmese, Khmer) each character is a word.
A document of fewer words than a shingle has is cut into runs of as many characters instead, a space between its words; one
without any word is a single shingle, its own bytes.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from gpt3.corpus.ngram_kernels import BASE, FACTOR, ONE, START, ZERO, mix
from gpt3.corpus.ngrams import TABLE_SIZE, word_characters

Array = np.ndarray[Any, Any]

ALONE = np.uint32(1 << 31)
"""Marks a character that is a word of its own."""
POINT = np.uint32(ALONE - 1)
BEYOND = np.uint32(0xFFFFFFFF)
"""The entry of a byte that begins a character of several bytes."""
CHARACTERS = np.uint64(0x5851F42D4C957F2D)
"""Sets shingles of characters apart from shingles of words."""
WITHOUT_SPACES = (
    (0x0E00, 0x1000), (0x1000, 0x10A0), (0x1780, 0x1800), (0x3005, 0x3008), (0x3040, 0x3100), (0x31F0, 0x3200),
    (0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00), (0xFF66, 0xFF9E),
)  # fmt: skip
"""Characters, from and below, of scripts that put no spaces between words; all from `TABLE_SIZE` on are, too."""


@functools.lru_cache(maxsize=1)
def character_table() -> Array:
    """What each byte and each character means, (256 + TABLE_SIZE,) uint32.

    0 for a character between words, else the character in lower case, marked `ALONE` if it is a word. The first 256 are bytes of
    UTF-8, those beyond ASCII marked `BEYOND`; character c is at 256 + c.
    """
    table = np.zeros(TABLE_SIZE, dtype=np.uint32)
    for number in np.flatnonzero(word_characters()).tolist():
        table[number] = ord(chr(number).lower()[0])  # İ alone becomes two characters, the first is i
    table[ord("ς")] = ord("σ")  # wherever it is in a word
    for start, stop in WITHOUT_SPACES:
        inside = table[start:stop]
        inside[inside > 0] |= ALONE
    return np.concatenate([table[:128], np.full(128, BEYOND, dtype=np.uint32), table])


def joined(texts: Sequence[str]) -> tuple[Array, Array]:
    """Texts in UTF-8, one after the other, as uint8, and where each begins and the last ends: (texts + 1,) int64."""
    data = [text.encode("utf-8", "surrogatepass") for text in texts]
    places = np.zeros(len(data) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, data), dtype=np.int64, count=len(data)), out=places[1:])
    return np.frombuffer(b"".join(data), dtype=np.uint8), places


@njit(cache=True, nogil=True)
def _point(data, i, stop):
    """The character at byte `i`, and the byte after it. Bytes that are no UTF-8 become some character."""
    c = np.uint32(data[i])
    if c < 0xC0:
        return c, i + 1
    more = 1 if c < 0xE0 else 2 if c < 0xF0 else 3
    point = c & (np.uint32(0x3F) >> np.uint32(more))
    for k in range(i + 1, min(stop, i + 1 + more)):
        point = (point << np.uint32(6)) | (np.uint32(data[k]) & np.uint32(0x3F))
    return point, min(stop, i + 1 + more)


@njit(cache=True, nogil=True)
def _entry(table, point):
    """The table's entry of a character."""
    return table[256 + point] if point < len(table) - 256 else point | ALONE


@njit(cache=True, nogil=True)
def cut(data, start, stop, table, tokens):
    """Write the hashes of the words of data[start:stop] into `tokens`, uint64; return how many there are."""
    count = 0
    i = np.uint64(start)
    end = np.uint64(stop)
    while i < end:
        entry = table[data[i]]
        if entry == 0:
            i += ONE
            continue
        h = START
        alone = np.uint32(0)
        while entry:  # a word
            if entry == BEYOND:
                point, after = _point(data, np.int64(i), stop)
                entry = _entry(table, point)
                if not entry or entry & ALONE:
                    alone = entry
                    i = np.uint64(after)
                    break
                i = np.uint64(after)
            else:
                i += ONE
            h = (h ^ np.uint64(entry)) * FACTOR
            if i >= end:
                break
            entry = table[data[i]]
        if h != START:
            tokens[count] = mix(h)
            count += 1
        if alone:
            tokens[count] = mix((START ^ np.uint64(alone & POINT)) * FACTOR)
            count += 1
    return count


@njit(cache=True, nogil=True)
def cut_characters(data, start, stop, table, tokens):
    """Write the hashes of the characters of words, with a space between the words, into `tokens`; return how many there are."""
    count = 0
    between = False
    i = start
    while i < stop:
        point, i = _point(data, i, stop)
        entry = _entry(table, point)
        if not entry:
            between = True
            continue
        if between and count:
            tokens[count] = mix(CHARACTERS ^ np.uint64(32))
            count += 1
        between = False
        tokens[count] = mix(CHARACTERS ^ np.uint64(entry & POINT))
        count += 1
    return count


@njit(cache=True, nogil=True)
def shingle_hashes(data, start, stop, table, size, tokens, out):
    """Write the hashes of a document's shingles, in order and repeated where they repeat, into `out`; return how many.

    Args:
        data, start, stop: the document's bytes, see `joined`.
        size: words in a shingle.
        tokens, out: uint64, as long as the document's bytes and one more.
    """
    power = ONE
    for _ in range(size):
        power *= BASE
    count = cut(data, start, stop, table, tokens)
    if count < size:
        count = cut_characters(data, start, stop, table, tokens)
    if count == 0:
        h = START ^ CHARACTERS
        for i in range(start, stop):
            h = (h ^ np.uint64(data[i])) * FACTOR
        out[0] = mix(h)
        return 1
    rolling = ZERO
    for i in range(count):
        rolling = rolling * BASE + tokens[i]
        if i >= size:
            rolling -= tokens[i - size] * power
        if i >= size - 1:
            out[i - size + 1] = mix(rolling)
    if count < size:
        out[0] = mix(rolling)
        return 1
    return count - size + 1


def shingle_sets(texts: Sequence[str], size: int) -> list[Array]:
    """The different shingles of each text, hashed and rising: (shingles,) uint64 each."""
    data, places = joined(texts)
    longest = int(np.diff(places).max(initial=0)) + 1
    tokens, out = np.empty(longest, dtype=np.uint64), np.empty(longest, dtype=np.uint64)
    table = character_table()
    return [
        np.unique(out[: shingle_hashes(data, start, stop, table, size, tokens, out)])
        for start, stop in zip(places[:-1].tolist(), places[1:].tolist(), strict=True)
    ]
