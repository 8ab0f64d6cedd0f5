"""What a document's text looks like, in counts, compiled by numba: the figures that the filters of web corpora compare.

A *line* is a longest run of characters without a line feed that is not blank; a *paragraph* what blank lines part. *Words* are
cut as tokenizers of treebanks do: at white space; each character of punctuation at the ends is a word of its own, but ``..`` is
one, and hyphens stay with the word; within a word so are dashes between letters and an ellipsis; ``'s``, ``n't`` and the like
are cut off; the full stop of ``Mr.`` and of initials is no word. A *symbol* is a word of punctuation.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from gpt3.corpus.ngram_kernels import FACTOR, ONE, START, mix
from gpt3.corpus.ngrams import TABLE_SIZE
from gpt3.curation.repeated_grams import clear, count_grams, slot_of

Array = np.ndarray[Any, Any]

VERSION = 4
"""Counts changes in what the figures are."""
FIELDS = (
    "characters", "words", "symbols", "word_characters", "letter_words", "stop_words", "hashes", "ellipses",
    "lines", "line_characters", "line_feeds", "bullet_lines", "ellipsis_lines", "ended_lines", "short_lines",
    "repeated_lines", "repeated_line_characters",
    "paragraphs", "repeated_paragraphs", "repeated_paragraph_characters",
    "top_2_gram_characters", "top_3_gram_characters", "top_4_gram_characters",
    "repeated_5_gram_characters", "repeated_6_gram_characters", "repeated_7_gram_characters",
    "repeated_8_gram_characters", "repeated_9_gram_characters", "repeated_10_gram_characters",
    "sentences", "braces", "lorem_ipsum",
)  # fmt: skip
"""In the order of a document's row. Repeated: those that came before in the document, without the spaces between words. Top: the
most frequent one, each time it occurs, the first one of several, with a space between words. symbols: words of punctuation alone.
word_characters: of all others. stop_words: how many of `STOP_WORDS` occur. short_lines: of at most 30 characters. ended_lines:
that end with one of `TERMINAL`. sentences: ends of sentences in lines of three words or more that end with one, as C4 has it."""
(
    CHARACTERS, WORDS, SYMBOLS, WORD_CHARACTERS, LETTER_WORDS, STOPS, HASHES, ELLIPSES, LINES, LINE_CHARACTERS, LINE_FEEDS,
    BULLETS, ELLIPSIS_LINES, ENDED, SHORT, REPEATED_LINES, REPEATED_LINE_CHARACTERS, PARAGRAPHS, REPEATED_PARAGRAPHS,
    REPEATED_PARAGRAPH_CHARACTERS, TOP, _, _, REPEATED_GRAMS, _, _, _, _, _, SENTENCES, BRACES, LOREM,
) = range(len(FIELDS))  # fmt: skip
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Rae et al. 2021, App. A.1.1."""
TERMINAL = ".!?\"”'’…。！？؟۔।"
"""Characters that end a line as prose ends it."""
SENTENCE_ENDS = ".!?"
SHORT_LINE = 30
SPACE, PUNCTUATION, LETTER, ENDS, FULL_STOP = (np.uint8(1 << bit) for bit in range(5))
BULLETS_AT = (ord("•"), ord("-"))
ELLIPSIS, DOT, HASH, FEED, BRACE = ord("…"), ord("."), ord("#"), ord("\n"), ord("{")
HYPHEN, EN_DASH, EM_DASH, TILDE = ord("-"), ord("–"), ord("—"), ord("~")
APOSTROPHE, QUOTE, CAPITAL_A, CAPITAL_Z = ord("'"), ord("’"), ord("A"), ord("Z")
LETTER_D, LETTER_E, LETTER_L, LETTER_M, LETTER_N, LETTER_R, LETTER_S, LETTER_T, LETTER_V = map(ord, "delmnrstv")
ABBREVIATIONS = (
    "Mr", "Mrs", "Ms", "Messrs", "Dr", "St", "Prof", "Rev", "Gen", "Gov", "Sen", "Rep", "Jr", "Inc", "Ltd", "Co", "Corp", "vs",
)  # fmt: skip
IPSUM = np.frombuffer("lorem ipsum".encode("utf-32-le"), dtype=np.uint32)


@functools.lru_cache(maxsize=1)
def kinds() -> Array:
    """(TABLE_SIZE,) uint8: what each character is, bits of SPACE, PUNCTUATION, LETTER, ENDS and FULL_STOP."""
    table = np.zeros(TABLE_SIZE, dtype=np.uint8)
    for number, c in enumerate(map(chr, range(TABLE_SIZE))):
        table[number] |= SPACE * c.isspace() | PUNCTUATION * (unicodedata.category(c)[0] in "PS") | LETTER * c.isalpha()
    table[[ord(c) for c in TERMINAL]] |= ENDS
    table[[ord(c) for c in SENTENCE_ENDS]] |= FULL_STOP
    return table


@functools.lru_cache(maxsize=2)
def _hashes_of(words: tuple[str, ...]) -> Array:
    return np.array([_hash(np.frombuffer(word.encode("utf-32-le"), np.uint32)) for word in words], dtype=np.uint64)


@njit(cache=True, nogil=True)
def _hash(points):
    h = START
    for c in points:
        h = (h ^ np.uint64(c)) * FACTOR
    return mix(h)


@njit(cache=True, nogil=True)
def _kind(table, point):
    return table[point] if point < len(table) else LETTER


@njit(cache=True, nogil=True)
def _run(points, k, stop):
    """The end of the symbol that begins at `k`: full stops or hyphens that follow one another are one."""
    run = k + 1
    if points[k] == DOT or points[k] == HYPHEN:
        while run < stop and points[run] == points[k]:
            run += 1
    return run


@njit(cache=True, nogil=True)
def _inner_symbol(points, table, k, first, stop):
    """The end of the symbol at `k` within a word that parts it; `k` if there is none."""
    c = points[k]
    if c == ELLIPSIS:
        return k + 1
    if c == DOT:
        run = _run(points, k, stop)
        return run if run > k + 1 else k
    if c in (HYPHEN, EN_DASH, EM_DASH, TILDE):
        run = _run(points, k, stop)
        if k > first and run < stop and _kind(table, points[k - 1]) & _kind(table, points[run]) & LETTER:
            return run
    return k


@njit(cache=True, nogil=True)
def _suffix(points, first, last):
    """Where ``'s``, ``n't``, ``'ll`` or the like begins at the end of a word; `last` if it has none."""
    for size in range(2, 4):
        place = last - size
        if place <= first or points[place] not in (APOSTROPHE, QUOTE):
            continue
        end = points[last - 1] | np.uint32(32)
        if size == 2 and end in (LETTER_S, LETTER_M, LETTER_D):
            return place
        if size == 2 and end == LETTER_T and place - 1 > first and points[place - 1] | np.uint32(32) == LETTER_N:
            return place - 1
        before = points[last - 2] | np.uint32(32)
        if size == 3 and (
            (before == LETTER_L and end == LETTER_L)
            or (before == LETTER_R and end == LETTER_E)
            or (before == LETTER_V and end == LETTER_E)
        ):
            return place
    return last


@njit(cache=True, nogil=True)
def _is_abbreviated(points, first, last, stop, abbreviations):
    """Whether the full stop at `last` belongs to the word before it."""
    if last >= stop or points[last] != DOT or (last + 1 < stop and points[last + 1] == DOT):
        return False
    if last == first + 1 and CAPITAL_A <= points[first] <= CAPITAL_Z:
        return True
    h = _hash(points[first:last])
    found = False
    for abbreviation in abbreviations:
        found |= abbreviation == h
    return found


@njit(cache=True, nogil=True)
def _stop_word(h, stops):
    """A bit for the stop word with this hash, or 0."""
    for s in range(len(stops)):
        if h == stops[s]:
            return 1 << s
    return 0


@njit(cache=True, nogil=True)
def _words(points, table, stops, abbreviations, hashes, lengths, row):
    """Cut words; their hashes and lengths. Counts of words are added to `row`."""
    count, i, seen = 0, 0, 0
    while i < len(points):
        if _kind(table, points[i]) & SPACE:
            i += 1
            continue
        stop, h = i, START
        while stop < len(points) and _kind(table, points[stop]) == LETTER:
            h = (h ^ np.uint64(points[stop])) * FACTOR
            stop += 1
        if stop == len(points) or _kind(table, points[stop]) & SPACE:  # letters between spaces
            row[WORD_CHARACTERS] += stop - i
            row[LETTER_WORDS] += 1
            hashes[count], lengths[count] = mix(h), stop - i
            seen |= _stop_word(hashes[count], stops)
            count += 1
            i = stop
            continue
        while stop < len(points) and not _kind(table, points[stop]) & SPACE:
            stop += 1
        first = i
        while first < stop and _kind(table, points[first]) & PUNCTUATION and points[first] != HYPHEN:
            first += 1
        last = stop
        while last > first and _kind(table, points[last - 1]) & PUNCTUATION and points[last - 1] != HYPHEN:
            last -= 1
        suffix = _suffix(points, first, last)
        if _is_abbreviated(points, first, last, stop, abbreviations):
            last += 1
            suffix = last
        k = i
        while k < stop:
            inside = first <= k < last
            end = (
                _inner_symbol(points, table, k, first, last)
                if inside
                else _run(points, k, first if k < first else stop)
            )
            if end == k:
                end = k + 1
                while end < last and end != suffix:
                    mark = _kind(table, points[end]) & PUNCTUATION
                    if mark and _inner_symbol(points, table, end, first, last) > end:
                        break
                    end += 1
            h, letters, plain = START, False, False
            for j in range(k, end):
                h = (h ^ np.uint64(points[j])) * FACTOR
                kind = _kind(table, points[j])
                letters |= (kind & LETTER) != 0
                plain |= not kind & PUNCTUATION
            h = mix(h)
            if not plain:
                row[SYMBOLS] += 1
            else:
                row[WORD_CHARACTERS] += end - k
                row[LETTER_WORDS] += letters
                seen |= _stop_word(h, stops)
            hashes[count], lengths[count] = h, end - k
            count += 1
            k = end
        i = stop
    for s in range(len(stops)):
        row[STOPS] += (seen >> s) & 1
    row[WORDS] = count
    return count


@njit(cache=True, nogil=True)
def _pieces(points, table, feeds, seen, row, lines):
    """Lines, or paragraphs, which `feeds` line feeds or more part: how many there are, and which came before."""
    clear(seen)
    i = 0
    while i < len(points):
        while i < len(points) and points[i] == FEED:
            i += 1
        stop, end = i, i
        while stop < len(points):
            if points[stop] == FEED:
                run = stop
                while run < len(points) and points[run] == FEED:
                    run += 1
                if run - stop >= feeds:
                    break
                stop = run
            else:
                stop += 1
        end = stop
        while end > i and points[end - 1] == FEED:
            end -= 1
        blank = True
        for k in range(i, end):
            if not _kind(table, points[k]) & SPACE:
                blank = False
                break
        if not blank:
            row[LINES if lines else PARAGRAPHS] += 1
            h = _hash(points[i:end]) | ONE
            slot = slot_of(seen, h)
            if seen[slot]:
                row[REPEATED_LINES if lines else REPEATED_PARAGRAPHS] += 1
                row[REPEATED_LINE_CHARACTERS if lines else REPEATED_PARAGRAPH_CHARACTERS] += end - i
            seen[slot] = h
            if lines:
                _line(points[i:end], table, row)
        i = stop


@njit(cache=True, nogil=True)
def _line(points, table, row):
    """Count what a line is like."""
    row[LINE_CHARACTERS] += len(points)
    row[SHORT] += len(points) <= SHORT_LINE
    row[ENDED] += (_kind(table, points[-1]) & ENDS) != 0
    start, stop = 0, len(points)
    while _kind(table, points[start]) & SPACE:
        start += 1
    while _kind(table, points[stop - 1]) & SPACE:
        stop -= 1
    row[BULLETS] += points[start] == BULLETS_AT[0] or points[start] == BULLETS_AT[1]
    last = points[stop - 1]
    dots = stop - start >= 3 and last == DOT and points[stop - 2] == DOT and points[stop - 3] == DOT
    row[ELLIPSIS_LINES] += dots or last == ELLIPSIS
    if dots or not (_kind(table, last) & FULL_STOP or last == ord('"') or last == ord("'")):
        return
    words, ends = 0, 0
    for k in range(start, stop):
        kind = _kind(table, points[k])
        after = k + 1 == stop or _kind(table, points[k + 1]) & SPACE
        words += after and not kind & SPACE
        ends += (kind & FULL_STOP) != 0 and (k + 1 == stop or not _kind(table, points[k + 1]) & (LETTER | FULL_STOP))
    if words >= 3:
        row[SENTENCES] += max(1, ends)


@njit(cache=True, nogil=True)
def _measure(points, places, table, stops, abbreviations, ipsum, out):
    for d in range(len(places) - 1):
        text, row = points[places[d] : places[d + 1]], out[d]
        row[CHARACTERS] = len(text)
        k = 0
        while k < len(text):
            c = text[k]
            row[LINE_FEEDS] += c == FEED
            row[HASHES] += c == HASH
            row[BRACES] += c == BRACE
            row[ELLIPSES] += c == ELLIPSIS
            if c == DOT and k + 2 < len(text) and text[k + 1] == DOT and text[k + 2] == DOT:
                row[ELLIPSES] += 1
                k += 2
            elif (c | 32) == ipsum[0] and k + len(ipsum) <= len(text):
                same = True
                for j in range(len(ipsum)):
                    lower = text[k + j] | 32 if j != 5 else text[k + j]
                    same &= lower == ipsum[j]
                row[LOREM] += same
            k += 1
        hashes, lengths = np.empty(len(text), dtype=np.uint64), np.empty(len(text), dtype=np.int64)
        count = _words(text, table, stops, abbreviations, hashes, lengths, row)
        size = 16
        while size < 2 * count:
            size *= 2
        seen, counts = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.int64)
        rows = np.empty((2, count), dtype=np.int64)
        _pieces(text, table, 1, seen, row, True)
        _pieces(text, table, 2, seen, row, False)
        found = row[TOP:SENTENCES]
        count_grams(hashes[:count], lengths[:count], seen, counts, rows, found)


def measure(texts: Sequence[str]) -> Array:
    """The figures of each text: (texts, FIELDS) int32."""
    data = [text.encode("utf-32-le", "surrogatepass") for text in texts]
    places = np.zeros(len(data) + 1, dtype=np.int64)
    np.cumsum(np.fromiter((len(each) // 4 for each in data), dtype=np.int64, count=len(data)), out=places[1:])
    out = np.zeros((len(texts), len(FIELDS)), dtype=np.int32)
    words = _hashes_of(STOP_WORDS), _hashes_of(ABBREVIATIONS)
    _measure(np.frombuffer(b"".join(data), dtype=np.uint32), places, kinds(), *words, IPSUM, out)
    return out
