"""Attention of the CPU engine's compiled loops, of single tokens and of prompts alike, made of microkernel.py's tiles.

Keys are stored in blocks of LANES positions, (blocks, D, LANES), values as (places, W), W being D rounded up to vectors: a
vector's lanes are keys in a query's scores, and dimensions in its result. Scores sum over dimensions in order, results over keys
in order, and a row's softmax is that row's alone. So a query's numbers do not depend on the queries computed with it, nor on how
the text was cut into runs.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from gpt3.inference.activations import exponential
from gpt3.inference.microkernel import LANES, address, tile

TOGETHER = 8
"""Queries of the larger tile: as many sums as two multiply-add units need to be busy."""
QUERIES = 2 * TOGETHER
"""Queries of one task at most: more would need more room for their scores."""
_several, _single = tile(TOGETHER, 1, chain=True), tile(1, 1, chain=True)
_wide = tile(1, 1, panels=4, chain=True)  # a single query, and four blocks of keys or four vectors of dimensions


@njit(fastmath=False, nogil=True, error_model="numpy")
def _rows(like, a, a_row, count, b, b_step, b_panel, panels, c, c_row, depth, onto):
    """c[t, p] = the sums over k of a[t, k] b[p, k], for t below `count`, p below `panels`; as `tile` has them."""
    t = 0
    while t < count:
        left, result = a + 4 * t * a_row, c + 4 * t * c_row
        p = 0
        if t + TOGETHER <= count:
            for p in range(panels):
                right = b + 4 * p * b_panel
                _several(like, left, a_row, right, b_step, 0, result + 4 * p * LANES, c_row, depth, onto)
            t += TOGETHER
            continue
        while p + 4 <= panels:
            _wide(like, left, a_row, b + 4 * p * b_panel, b_step, b_panel, result + 4 * p * LANES, c_row, depth, onto)
            p += 4
        while p < panels:
            _single(like, left, a_row, b + 4 * p * b_panel, b_step, 0, result + 4 * p * LANES, c_row, depth, onto)
            p += 1
        t += 1


@njit(fastmath=True, nogil=True, error_model="numpy")
def _softmax(line, scale):
    """line (keys,) becomes the softmax of scale times line."""
    largest = line[0]
    for j in range(line.shape[0]):
        largest = max(largest, line[j])
    total = np.float32(0.0)
    for j in range(line.shape[0]):
        e = exponential((line[j] - largest) * scale)
        line[j] = e
        total += e
    inverse = np.float32(1.0) / total
    for j in range(line.shape[0]):
        line[j] *= inverse


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def attend(qkv, blocks, keys, values, window, out):
    """Attention of queries to the keys of their slots: the last `window` of them, the query's own token the newest.

    Args:
        qkv: (N, 3 A) float32.
        blocks: (B, 4) int64: first row, number of rows (up to QUERIES), slot, position of the first.
        keys: (S, heads, ring blocks, D, LANES); position p is in lane p modulo LANES of block p / LANES modulo ring blocks. The
            blocks' own are stored already.
        values: (S, heads, places, W), as many places as keys have; position p is at p modulo places.
        out: (N, A).
    """
    heads, ring, D = keys.shape[1], keys.shape[2], keys.shape[3]
    places, W, width = values.shape[2], values.shape[3], qkv.shape[1]
    scale = np.float32(1.0 / math.sqrt(D))
    at_qkv, at_keys, at_values = address(qkv), address(keys), address(values)
    for task in prange(blocks.shape[0] * heads):
        h, b = task // blocks.shape[0], task % blocks.shape[0]
        row, count, slot, position = blocks[b, 0], blocks[b, 1], blocks[b, 2], blocks[b, 3]
        low = max(0, position - window + 1) // LANES * LANES
        seen = position + count - low
        panels = (seen + LANES - 1) // LANES
        scores = np.empty((count, panels * LANES), np.float32)
        mixed = np.empty((count, W), np.float32)
        at_scores, at_mixed, room = address(scores), address(mixed), panels * LANES
        query = at_qkv + 4 * (row * width + h * D)
        block, key = low // LANES % ring, at_keys + 4 * (slot * heads + h) * ring * D * LANES
        whole = min(panels, ring - block)  # of the ring's end on, the rest is at its beginning
        _rows(qkv, query, width, count, key + 4 * block * D * LANES, LANES, D * LANES, whole, at_scores, room, D, 0)
        if whole < panels:
            _rows(
                qkv,
                query,
                width,
                count,
                key,
                LANES,
                D * LANES,
                panels - whole,
                at_scores + 4 * whole * LANES,
                room,
                D,
                0,
            )
        place, value = low % places, at_values + 4 * (slot * heads + h) * places * W
        whole = min(seen, places - place)
        for t in range(count):
            begin, end = max(0, position + t - window + 1) - low, position + t + 1 - low
            _softmax(scores[t, begin:end], scale)
            for j in range(begin):
                scores[t, j] = np.float32(0.0)
            for j in range(end, seen):
                scores[t, j] = np.float32(0.0)
        _rows(qkv, at_scores, room, count, value + 4 * place * W, W, LANES, W // LANES, at_mixed, W, whole, 0)
        if whole < seen:
            _rows(qkv, at_scores + 4 * whole, room, count, value, W, LANES, W // LANES, at_mixed, W, seen - whole, 1)
        for t in range(count):
            for d in range(D):
                out[row + t, h * D + d] = mixed[t, d]


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def store(qkv, blocks, keys, values):
    """Put the keys and values of blocks of tokens in their places; arguments as `attend` has them."""
    heads, ring, D = keys.shape[1], keys.shape[2], keys.shape[3]
    A = heads * D
    for task in prange(blocks.shape[0] * heads):
        b, h = task // heads, task % heads
        row, count, slot, position = blocks[b, 0], blocks[b, 1], blocks[b, 2], blocks[b, 3]
        for t in range(count):
            at = position + t
            key, value = keys[slot, h, at // LANES % ring, :, at % LANES], values[slot, h, at % values.shape[2]]
            for d in range(D):
                key[d] = qkv[row + t, A + h * D + d]
                value[d] = qkv[row + t, 2 * A + h * D + d]
