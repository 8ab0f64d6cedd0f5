"""fastText's supervised models in their quantized form (.ftz), read and evaluated: a text's likeliest label.

A text is the mean of the vectors of its words and of their character n-grams (Joulin et al. 2016, arXiv 1607.01759), those that
the model was pruned to (Joulin et al. 2016, arXiv 1612.03651); labels are the leaves of a binary tree. What fastText's `predict`
does, several times as fast: vectors are decoded once, numba compiles the loop over texts, and words that come again are known.
"""

# numba compiles some of these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, misc"
from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from gpt3.errors import InputError

Array = np.ndarray[Any, Any]

MAGIC, FORMAT, HIERARCHICAL = 793712314, 12, 1
CENTROIDS = 256
LABEL, END = "__label__", b"</s>"
KNOWN = 1 << 16
"""Words that a call keeps with the sums of their vectors: most of a text's words came before."""
EPSILON = 1e-5
"""What fastText adds before it takes a logarithm."""
FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
WIDE_START, WIDE_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
ZERO, ONE = np.uint64(0), np.uint64(1)
BEGIN, FINISH = np.uint8(ord("<")), np.uint8(ord(">"))


@dataclass(frozen=True)
class FastText:
    """A model.

    Attributes:
        labels: without their prefix.
        vectors: (words + n-grams, size) float32.
        words: (a power of two, 2) uint64: a hash table of the words, each with its vector's number.
        grams: (buckets,) int32: the vector of each n-gram's hash, or -1.
        lengths: characters of the shortest and the longest n-gram.
        tree: (labels - 1, 2) int32: the children of each inner node, the root last; leaves are the labels' numbers.
        nodes: (labels - 1, size) float32: the vectors of the inner nodes.
    """

    labels: list[str]
    vectors: Array
    words: Array
    grams: Array
    lengths: tuple[int, int]
    tree: Array
    nodes: Array

    def predict(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The number of each text's likeliest label, or -1 for a text of no known word, and its probability.

        Words are what spaces part; other white space does, too, as in fastText, and a line feed must not occur.

        Returns:
            (texts,) int64 and (texts,) float32.
        """
        data = [text.encode("utf-8", "surrogatepass") for text in texts]
        places = np.concatenate([[0], np.cumsum([len(each) for each in data], dtype=np.int64)]).astype(np.int64)
        best, scores = np.full(len(texts), -1, dtype=np.int64), np.zeros(len(texts), dtype=np.float32)
        model = (self.vectors, self.words, self.grams, *self.lengths)
        totals = np.zeros((KNOWN, self.vectors.shape[1]), dtype=np.float32)
        known = (
            np.zeros(KNOWN, dtype=np.uint64),
            totals,
            np.zeros(KNOWN, dtype=np.int64),
        )  # of this call: threads share a model
        joined = np.frombuffer(b"".join(data), dtype=np.uint8)
        label, end = (np.frombuffer(word, dtype=np.uint8) for word in (LABEL.encode(), END))
        last = np.uint64(_wide(end, 0, len(end)))
        _predict(joined, places, model, self.tree, self.nodes, known, label, last, best, scores)
        return best, scores


def read_model(path: Path) -> FastText:
    """The model of a file.

    Raises:
        InputError: it is no such file, or of a kind that is not read here.
    """
    try:
        return _read(path)
    except InputError:  # a ValueError, too
        raise
    except (struct.error, ValueError, IndexError):
        raise InputError(f"{path}: a damaged model; install its package again") from None


def _read(path: Path) -> FastText:
    with open(path, "rb") as file:
        if _numbers(file, "2i") != (MAGIC, FORMAT):
            raise InputError(f"{path}: no model of fastText's format {FORMAT}")
        size, *_, ngrams, loss, _, bucket, shortest, longest, _ = _numbers(file, "12i")
        _numbers(file, "d")
        entries, words, labels, _ = _numbers(file, "3iq")
        (pruned,) = _numbers(file, "q")
        names, counts = [], []
        for _ in range(entries):
            names.append(b"".join(iter(lambda: file.read(1), b"\0")))
            counts.append(_numbers(file, "qb")[0])
        pairs = np.fromfile(file, np.int32, 2 * max(0, pruned)).reshape(-1, 2)
        if loss != HIERARCHICAL or ngrams != 1 or pruned <= 0 or _numbers(file, "?") != (True,):
            raise InputError(f"{path}: only quantized, pruned models with a tree of labels and single words are read")
        vectors = _quantized(file)
        if _numbers(file, "?") != (False,):
            raise InputError(f"{path}: only models whose labels' vectors are not quantized are read")
        rows, width = _numbers(file, "2q")
        nodes = np.fromfile(file, np.float32, rows * width).reshape(rows, width)
    grams = np.full(bucket, -1, dtype=np.int32)
    grams[pairs[:, 0]] = words + pairs[:, 1]
    return FastText(
        [name.decode().removeprefix(LABEL) for name in names[words:]], np.ascontiguousarray(vectors[:, :size]),
        _table(names[:words]), grams, (shortest, longest), _tree(counts[words : words + labels]), nodes[: labels - 1],
    )  # fmt: skip


def _numbers(file: io.BufferedReader, kinds: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{kinds}", file.read(struct.calcsize(f"<{kinds}")))


def _quantized(file: io.BufferedReader) -> Array:
    """A matrix of product-quantized rows, decoded: float32."""
    with_norm, rows, _, size = _numbers(file, "?2qi")
    codes = np.fromfile(file, np.uint8, size).reshape(rows, -1)
    decoded = _decoded(file, codes)
    if with_norm:
        norms = np.fromfile(file, np.uint8, rows)
        decoded *= _decoded(file, norms[:, None])
    return decoded


def _decoded(file: io.BufferedReader, codes: Array) -> Array:
    """The rows of these codes, (rows, parts) uint8, by the centroids that follow in the file."""
    size, parts, each, last = _numbers(file, "4i")
    centroids = np.fromfile(file, np.float32, size * CENTROIDS)
    found, start = [], 0
    for part in range(parts):
        width = each if part < parts - 1 else last
        stop = start + CENTROIDS * width
        found.append(centroids[start:stop].reshape(CENTROIDS, width)[codes[:, part]])
        start = stop
    return np.concatenate(found, axis=1)


def _table(words: Sequence[bytes]) -> Array:
    """See `FastText.words`."""
    table = np.zeros((1 << max(4, (4 * len(words)).bit_length()), 2), dtype=np.uint64)
    for number, word in enumerate(words):
        h = np.uint64(_wide(np.frombuffer(word, dtype=np.uint8), 0, len(word)))
        table[_slot(table, h)] = h, number
    return table


def _tree(counts: Sequence[int]) -> Array:
    """Huffman's tree of labels that are sorted by their counts; see `FastText.tree`."""
    leaves = len(counts)
    weights = [*counts, *[10**15] * (leaves - 1)]
    tree = np.zeros((leaves - 1, 2), dtype=np.int32)
    leaf, node = leaves - 1, leaves
    for inner in range(leaves - 1):
        for side in range(2):
            if leaf >= 0 and weights[leaf] < weights[node]:
                tree[inner, side] = leaf
                leaf -= 1
            else:
                tree[inner, side] = node
                node += 1
        weights[leaves + inner] = weights[tree[inner, 0]] + weights[tree[inner, 1]]
    return tree


@njit(cache=True, nogil=True)
def _wide(data, start, stop):
    """A hash of 64 bits of some bytes, never 0."""
    h = WIDE_START
    for i in range(start, stop):
        h = (h ^ np.uint64(data[i])) * WIDE_PRIME
    return h | ONE


@njit(cache=True, nogil=True)
def _slot(table, h):
    """Where a hash is in a table, or would be."""
    mask = np.uint64(len(table) - 1)
    slot = (h >> np.uint64(32)) & mask
    while table[slot, 0] != ZERO and table[slot, 0] != h:
        slot = (slot + ONE) & mask
    return slot


@njit(cache=True, nogil=True)
def _is_space(c):
    return c == 32 or (9 <= c <= 13) or c == 0


@njit(cache=True, nogil=True)
def _starts_with(data, start, stop, prefix):
    if stop - start < len(prefix):
        return False
    same = True
    for k in range(len(prefix)):
        same &= data[start + k] == prefix[k]
    return same


@njit(cache=True, nogil=True)
def _clear(total):
    for k in range(len(total)):  # numba compiles loops faster than assignments of slices
        total[k] = 0


@njit(cache=True, nogil=True, fastmath=False)
def _add(hidden, vector):
    for k in range(len(hidden)):
        hidden[k] += vector[k]


@njit(cache=True, nogil=True, fastmath=False)
def _add_grams(hidden, data, start, stop, vectors, grams, shortest, longest):
    """Add the vectors of the n-grams of ``<word>``; how many there are."""
    count = 0
    size = stop - start + 2
    for i in range(size):
        first = BEGIN if i == 0 else FINISH if i == size - 1 else data[start + i - 1]
        if first & 0xC0 == 0x80:
            continue
        h, n, j = FNV_START, 0, i
        while j < size and n < longest:
            while True:  # a character
                c = BEGIN if j == 0 else FINISH if j == size - 1 else data[start + j - 1]
                h = np.uint32((h ^ np.uint32(np.int8(c))) * FNV_PRIME)  # numba widens products
                j += 1
                if j >= size - 1 or data[start + j - 1] & 0xC0 != 0x80:
                    break
            n += 1
            if n >= shortest and not (n == 1 and (i == 0 or j == size)):
                row = grams[h % np.uint32(len(grams))]
                if row >= 0:
                    _add(hidden, vectors[row])
                    count += 1
    return count


@njit(cache=True, nogil=True, fastmath=False)
def _add_word(total, data, start, stop, h, model, label):
    """Add the vectors of a word and of its n-grams; how many there are."""
    vectors, words, grams, shortest, longest = model
    count, slot = 0, _slot(words, h)
    if words[slot, 0] == h:
        _add(total, vectors[np.int64(words[slot, 1])])
        count = 1
    if not _starts_with(data, start, stop, label):
        count += _add_grams(total, data, start, stop, vectors, grams, shortest, longest)
    return count


@njit(cache=True, nogil=True, fastmath=False)
def _predict(data, places, model, tree, nodes, known, label, last, best, scores):
    """`FastText.predict` of the texts data[places[d] : places[d + 1]], into `best` and `scores`.

    Args:
        known: hashes of words, the sums of their vectors, and of how many: each at one place, where another may replace it.
        label: the prefix of labels, which are no words.
        last: the hash of the token that ends a line.
    """
    keys, totals, counts = known
    mask = np.uint64(len(keys) - 1)
    hidden = np.zeros(totals.shape[1], dtype=np.float32)
    sums = np.zeros(2 * len(tree) + 1, dtype=np.float64)
    for d in range(len(places) - 1):
        _clear(hidden)
        count, i, stop = 0, places[d], places[d + 1]
        while True:
            while i < stop and _is_space(data[i]):
                i += 1
            start, h = i, WIDE_START
            while i < stop and not _is_space(data[i]):
                h = (h ^ np.uint64(data[i])) * WIDE_PRIME
                i += 1
            h |= ONE
            if i == start or h == last:  # fastText ends each line with it, and a line ends where it occurs
                break
            slot = (h >> np.uint64(32)) & mask
            if keys[slot] != h:
                _clear(totals[slot])
                counts[slot] = _add_word(totals[slot], data, start, i, h, model, label)
                keys[slot] = h
            _add(hidden, totals[slot])
            count += counts[slot]
        slot = _slot(model[1], last)
        if model[1][slot, 0] == last:
            _add(hidden, model[0][np.int64(model[1][slot, 1])])
            count += 1
        if count == 0:
            continue
        for k in range(len(hidden)):
            hidden[k] *= np.float32(1.0 / count)
        leaves = len(tree) + 1
        sums[2 * len(tree)] = 0.0
        for node in range(len(tree) - 1, -1, -1):
            x = np.float32(0)
            for k in range(len(hidden)):
                x += hidden[k] * nodes[node, k]
            right = 1.0 / (1.0 + math.exp(-x))
            sums[tree[node, 0]] = sums[leaves + node] + math.log(1.0 - right + EPSILON)
            sums[tree[node, 1]] = sums[leaves + node] + math.log(right + EPSILON)
        found = 0
        for leaf in range(leaves):
            if sums[leaf] > sums[found]:
                found = leaf
        best[d], scores[d] = found, math.exp(sums[found])
