"""Causal attention on heads of bfloat16, forward and backward: products of bfloat16 with sums in float32 (half_tiles.py).

As in attention.py, queries are taken `block` at a time, with all the keys any of them sees; scores and shares of a block stay in
the cache. Shares and the gradients of scores are rounded to bfloat16 before the products that take them. For head width D, keys
and values are packed once: columns of pairs along D for products with queries, and of neighboring keys for sums over keys.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numba.extending import register_jitable
from torch import Tensor

from gpt3.training.lean.half_tiles import (
    AMX,
    DOTS,
    TILE,
    configure,
    interleave,
    product_of_halves,
    tile_settings,
    transpose,
)
from gpt3.training.lean.threads import COUNTERS, Loop, scratch
from gpt3.training.lean.tiles import claim, float_of_half, floats, halves, integers, narrow
from gpt3.training.lean.vectors import exponentials_of_row, largest_float, slopes_of_pair

LARGEST_BLOCK = 64
SETTINGS = 32
"""Floats for the settings of tiles, and as many zeros."""
HIDDEN = np.float32(-1e30)
"""A score whose share is 0; infinities are not for loops whose sums LLVM may reorder."""
SIDE = 16
"""Rows and columns that are transposed at once."""


def fits(width: int) -> bool:
    """Whether heads of this width are for this file, on this processor."""
    return DOTS and width % TILE == 0


@functools.cache
def has_amx() -> bool:
    """Whether the system lets this process use AMX."""
    return AMX and bool(torch.cpu._init_amx())


def _block(window: int) -> int:
    """Queries taken at once: with a narrow band few, or most keys would be out of reach of most of them."""
    return LARGEST_BLOCK if window >= 2 * LARGEST_BLOCK else TILE


def _padded(T: int) -> int:
    """Keys of a row of scores: a whole number of tiles, and half of one, so that rows begin in different cache sets."""
    return -(-T // TILE) * TILE + TILE // 2


@register_jitable(fastmath=True)
def _zeros(target, count):
    """`count` numbers of 32 bits."""
    row = floats(target, count)
    for i in range(count):
        row[i] = np.float32(0.0)


@register_jitable(fastmath=True)
def _copy(source, stride, target, rows, D, block):
    """target (block, D) = the `rows` rows of source, then zeros, bfloat16; `stride` in numbers."""
    for t in range(block):
        row = halves(target + 2 * t * D, D)
        if t < rows:
            read = halves(source + 2 * t * stride, D)
            for i in range(D):
                row[i] = read[i]
        else:
            for i in range(D):
                row[i] = np.uint16(0)


@register_jitable(fastmath=True)
def _columns(source, stride, target, T, D, padded, spare):
    """target (D / 2, padded) of pairs = the pairs along D of source (T, D), as columns, then zeros; spare has (SIDE, D)."""
    pairs = D // 2
    for t in range(0, T, SIDE):
        rows, row = source + 2 * t * stride, stride // 2
        if t + SIDE > T:
            _copy(rows, stride, spare, T - t, D, SIDE)
            rows, row = spare, pairs
        for i in range(0, pairs, SIDE):
            transpose(rows + 4 * i, row, target + 4 * (i * padded + t), padded)
    whole = (T + SIDE - 1) // SIDE * SIDE
    for i in range(pairs):
        _zeros(target + 4 * (i * padded + whole), padded - whole)


@register_jitable(fastmath=True)
def _neighbors(source, stride, target, T, D, padded, spare):
    """target (padded / 2, D) of pairs = the pairs of neighboring rows of source (T, D), then zeros; spare has D halves."""
    for t in range(0, padded, 2):
        first, second = source + 2 * t * stride, source + 2 * (t + 1) * stride
        if t + 1 >= T:
            _zeros(spare, D // 2)
            second = spare
        if t >= T:
            first = spare
        interleave(first, second, target + 2 * t * D, D)


@register_jitable(fastmath=True)
def _turned(source, target, block, D, spare):
    """target (D, block) = source (block, D)^T, bfloat16; spare has (block / 2, D) pairs."""
    for t in range(0, block, 2):
        interleave(source + 2 * t * D, source + 2 * (t + 1) * D, spare + 2 * t * D, D)
    for t in range(0, block // 2, SIDE):
        for i in range(0, D, SIDE):
            transpose(spare + 4 * (t * D + i), D, target + 4 * (i * (block // 2) + t), block // 2)


@register_jitable(fastmath=True)
def _rows(source, padded, target, stride, T, D, spare):
    """target (T, D) bfloat16 = source (D, padded)^T float32; spare has (SIDE, D) floats."""
    for t in range(0, T, SIDE):
        for i in range(0, D, SIDE):
            transpose(source + 4 * (i * padded + t), padded, spare + 4 * i, D)
        for k in range(min(SIDE, T - t)):
            narrow(spare + 4 * k * D, target + 2 * (t + k) * stride, D)


@register_jitable(fastmath=True)
def _dot(first, second, D):
    """The sum of the products of D bfloat16 numbers each."""
    total, left, right = np.float32(0.0), halves(first, D), halves(second, D)
    for i in range(D):
        total += float_of_half(left[i]) * float_of_half(right[i])
    return total


@register_jitable(fastmath=True)
def _hide(row, begin, end, count):
    """HIDDEN to the scores before `begin`, and from `end` on."""
    before, after = floats(row, begin), floats(row + 4 * end, count - end)
    for j in range(begin):
        before[j] = HIDDEN
    for j in range(count - end):
        after[j] = HIDDEN


def _forward_memory(D: int, block: int, padded: int) -> int:
    """Floats of a thread's own memory."""
    return SETTINGS + D * padded + block * D // 2 + 3 * block * padded // 2 + 2 * block * D + block


@Loop
def _forward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 14)
    B, T, H, D, window, block, padded, memory_each, amx = d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10]
    scale = floats(d[11], 1)[0]
    settings = d[15] + 4 * claim(address + 8) * memory_each
    keys = settings + 4 * SETTINGS  # (D / 2, padded) pairs
    values = keys + 2 * D * padded  # (padded / 2, D) pairs
    queries = values + 2 * D * padded  # (block, D)
    scores = queries + 2 * block * D  # (block, padded) float32
    shares = scores + 4 * block * padded  # (block, padded)
    sums = shares + 2 * block * padded  # (block, D) float32
    spare = sums + 4 * block * D
    rates = floats(spare + 4 * block * D, block)
    width = H * D
    tile_settings(settings)
    _zeros(settings + 64, 16)
    configure(settings, amx)
    while True:
        task = claim(address)
        if task >= B * H:
            configure(settings + 64, amx)
            return
        b, head = task // H, task % H
        query = d[12] + 2 * (b * T * 3 * width + head * D)
        _columns(query + 2 * width, 3 * width, keys, T, D, padded, spare)
        _neighbors(query + 4 * width, 3 * width, values, T, D, padded, spare)
        for first in range(0, T, block):
            last = min(first + block, T)
            low = max(0, first - window + 1) // TILE * TILE
            count = (last - low + TILE - 1) // TILE * TILE
            _copy(query + 6 * first * width, 3 * width, queries, last - first, D, block)
            product_of_halves(queries, D, keys + 4 * low, padded, scores, padded, block, count, D, 0, amx)
            for t in range(first, last):
                row, k = scores + 4 * (t - first) * padded, t - first
                _hide(row, max(0, t - window + 1) - low, t + 1 - low, count)
                largest = largest_float(row, count)
                total = exponentials_of_row(row, shares + 2 * k * padded, count, largest, scale)
                rates[k] = np.float32(1.0) / total
                floats(d[14] + 4 * (task * T + t), 1)[0] = largest * scale + np.float32(math.log(total))
            product_of_halves(shares, padded, values + 2 * low * D, D, sums, D, block, D, count, 0, amx)
            for k in range(last - first):
                row, rate = floats(sums + 4 * k * D, D), rates[k]
                for i in range(D):
                    row[i] *= rate
                narrow(sums + 4 * k * D, d[13] + 2 * ((b * T + first + k) * width + head * D), D)


def attention(qkv: Tensor, heads: int, window: int) -> tuple[Tensor, Tensor]:
    """As gpt3.training.lean.attention has it, of bfloat16."""
    B, T, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D, block, padded = width // heads, _block(min(window, T)), _padded(T)
    output, sums = qkv.new_empty(B, T, width), torch.empty(B, heads, T)
    each = _forward_memory(D, block, padded)
    scale, memory = torch.tensor(D**-0.5), scratch(each)
    places = [tensor.data_ptr() for tensor in (scale, qkv, output, sums, memory)]
    _forward(B, T, heads, D, window, block, padded, each, int(has_amx()), *places)
    return output, sums


def _backward_memory(D: int, block: int, padded: int) -> int:
    """Floats of a thread's own memory."""
    return SETTINGS + 7 * D * padded // 2 + 4 * block * D + 7 * block * padded // 2 + 4


@Loop
def _backward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 16)
    B, T, H, D, window, block, padded, memory_each, amx = d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10]
    scale = floats(d[11], 1)[0]
    settings = d[17] + 4 * claim(address + 8) * memory_each
    keys = settings + 4 * SETTINGS  # (D / 2, padded) pairs
    values = keys + 2 * D * padded  # the same
    keys_below = values + 2 * D * padded  # (padded / 2, D) pairs
    of_keys = keys_below + 2 * D * padded  # (D, padded) float32
    of_values = of_keys + 4 * D * padded  # the same
    queries = of_values + 4 * D * padded  # (block, D)
    of_output = queries + 2 * block * D  # the same
    queries_turned = of_output + 2 * block * D  # (D, block)
    of_output_turned = queries_turned + 2 * block * D  # the same
    scores = of_output_turned + 2 * block * D  # (block, padded) float32
    slopes = scores + 4 * block * padded  # the same
    of_scores = slopes + 4 * block * padded  # (block, padded)
    shares = of_scores + 2 * block * padded  # (block / 2, padded) pairs
    grads = shares + 2 * block * padded  # the same
    spare = grads + 2 * block * padded  # (block, D) float32
    numbers = spare + 4 * block * D
    width = H * D
    tile_settings(settings)
    _zeros(settings + 64, 16)
    configure(settings, amx)
    while True:
        task = claim(address)
        if task >= B * H:
            configure(settings + 64, amx)
            return
        b, head = task // H, task % H
        offset = 2 * (b * T * 3 * width + head * D)
        query, grad_query = d[12] + offset, d[16] + offset
        _columns(query + 2 * width, 3 * width, keys, T, D, padded, spare)
        _columns(query + 4 * width, 3 * width, values, T, D, padded, spare)
        _neighbors(query + 2 * width, 3 * width, keys_below, T, D, padded, spare)
        _zeros(of_keys, 2 * D * padded)
        for first in range(0, T, block):
            last = min(first + block, T)
            rows = last - first
            low = max(0, first - window + 1) // TILE * TILE
            count = (last - low + TILE - 1) // TILE * TILE
            head_rows = 2 * ((b * T + first) * width + head * D)
            _copy(query + 6 * first * width, 3 * width, queries, rows, D, block)
            _copy(d[15] + head_rows, width, of_output, rows, D, block)
            _turned(queries, queries_turned, block, D, spare)
            _turned(of_output, of_output_turned, block, D, spare)
            product_of_halves(queries, D, keys + 4 * low, padded, scores, padded, block, count, D, 0, amx)
            product_of_halves(of_output, D, values + 4 * low, padded, slopes, padded, block, count, D, 0, amx)
            known = floats(numbers, 4)
            for k in range(0, block, 2):
                for side in range(2):
                    t = first + k + side
                    known[side], known[2 + side] = -HIDDEN, np.float32(0.0)  # no query: all shares are 0
                    if t < last:
                        _hide(scores + 4 * (k + side) * padded, max(0, t - window + 1) - low, t + 1 - low, count)
                        known[side] = floats(d[14] + 4 * (task * T + t), 1)[0]
                        known[2 + side] = _dot(
                            of_output + 2 * (k + side) * D, d[13] + head_rows + 2 * (k + side) * width, D
                        )
                place = 4 * k * padded
                slopes_of_pair(
                    scores + place, slopes + place, padded, count, numbers, scale, shares + place // 2, grads + place // 2,
                    of_scores + place // 2,
                )  # fmt: skip
            product_of_halves(of_scores, padded, keys_below + 2 * low * D, D, spare, D, block, D, count, 0, amx)
            for k in range(rows):
                narrow(spare + 4 * k * D, grad_query + 6 * (first + k) * width, D)
            product_of_halves(
                of_output_turned, block, shares, padded, of_values + 4 * low, padded, D, count, block, 1, amx
            )
            product_of_halves(queries_turned, block, grads, padded, of_keys + 4 * low, padded, D, count, block, 1, amx)
        _rows(of_keys, padded, grad_query + 2 * width, 3 * width, T, D, spare)
        _rows(of_values, padded, grad_query + 4 * width, 3 * width, T, D, spare)


def attention_backward(
    qkv: Tensor, output: Tensor, sums: Tensor, grad_output: Tensor, heads: int, window: int
) -> Tensor:
    """As gpt3.training.lean.attention has it, of bfloat16."""
    B, T, width = output.shape
    D, block, padded = width // heads, _block(min(window, T)), _padded(T)
    grad, scale, each = torch.empty_like(qkv), torch.tensor(D**-0.5), _backward_memory(D, block, padded)
    memory = scratch(each)
    places = [tensor.data_ptr() for tensor in (scale, qkv, output, sums, grad_output, grad, memory)]
    _backward(B, T, heads, D, window, block, padded, each, int(has_amx()), *places)
    return grad
