"""The CPU engine's loops, compiled for the machine they run on by numba; no compiler is needed.

Decoding reads every weight once a token, so what counts is reading them at the memory's speed on all cores. `linear` covers one
token (matrix-vector) up to a prompt (matrix-matrix) with one loop nest over the tiles of microkernel.py, which also has the
formats that weights are stored in; all sums and activations are float32. `step` is the whole model in one call.

Letters in shapes: N tokens, C width, A heads x head width, F width of the MLP, V vocabulary, L layers, S slots.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload, register_jitable

from gpt3.inference import activations, arrays, four_bit, four_bit_kernel, kernel_cache, microkernel
from gpt3.inference.activations import NONE, exponential, finish
from gpt3.inference.microkernel import TILE_ROWS, tile, widen

FEW_ROWS, MANY_ROWS = 16, 64
"""Rows of a weight matrix that one task computes: many where there are many, as the activation after them wants long loops."""
TOKENS_AT_ONCE = 64
"""Tokens a weight is multiplied with while it is in the cache: more would not leave room for their activations there."""

_tile_4, _tile_2, _tile_1 = (tile(TILE_ROWS, tokens) for tokens in (4, 2, 1))
_first_4 = tile(TILE_ROWS, 4, prefetch=True)  # the first to read these rows calls for the next ones
_row_4, _row_2, _row_1 = (tile(1, tokens, prefetch=True) for tokens in (4, 2, 1))


@njit(fastmath=False, nogil=True, error_model="numpy")
def _by_rows(weight, first, last, x, begin, end, out):
    """out[begin:end, first:last] = the products of these tokens with these rows."""
    fours = begin + (end - begin) // 4 * 4
    twos = fours + (end - fours) // 2 * 2
    # a single token: row by row, which is how the memory is read fastest
    paired = first if end - begin == 1 else first + (last - first) // TILE_ROWS * TILE_ROWS
    for r in range(first, paired, TILE_ROWS):
        if begin < fours:
            _first_4(weight, r, x, begin, out)
        for n in range(begin + 4, fours, 4):
            _tile_4(weight, r, x, n, out)
        if fours < twos:
            _tile_2(weight, r, x, fours, out)
        if twos < end:
            _tile_1(weight, r, x, twos, out)
    for r in range(paired, last):
        for n in range(begin, fours, 4):
            _row_4(weight, r, x, n, out)
        if fours < twos:
            _row_2(weight, r, x, fours, out)
        if twos < end:
            _row_1(weight, r, x, twos, out)


def _products(weight, first, last, x, begin, end, out):  # pragma: no cover
    raise TypeError("only compiled loops call this")


def _prepared(weight, x, count):  # pragma: no cover
    raise TypeError("only compiled loops call this")


@overload(_products)
def _products_of(weight, first, last, x, begin, end, out):
    """The loops for the format: 4-bit weights have units of rows, the others have rows."""
    if weight.dtype == types.uint8:
        return lambda weight, first, last, x, begin, end, out: four_bit_kernel.products(
            weight, first, last, x, begin, end, out
        )
    return lambda weight, first, last, x, begin, end, out: _by_rows(weight, first, last, x, begin, end, out)


@overload(_prepared)
def _prepared_for(weight, x, count):
    """The tokens as the loops for the format read them."""
    if weight.dtype == types.uint8:
        return lambda weight, x, count: four_bit_kernel.prepare(x, count)
    return lambda weight, x, count: x


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def linear(weight, scale, bias, x, count, out, activation):
    """out[:count] = activation(x[:count] weight^T * scale + bias).

    Fastmath is off here: the order of the sums is the tiles'.

    Args:
        weight: (O, I) stored, or the units of four_bit.py.
        scale, bias: (O,) float32.
        x: (N, I) float32, C-contiguous.
        count: int, tokens.
        out: (N, O) float32.
        activation: a value of activations.ACTIVATIONS, or NONE.
    """
    rows = MANY_ROWS if scale.shape[0] >= 16 * MANY_ROWS else FEW_ROWS
    if weight.ndim == 3:  # whole units
        rows = max(rows, four_bit.ROWS)
    tasks = (scale.shape[0] + rows - 1) // rows
    prepared = _prepared(weight, x, count)
    for begin in range(0, count, TOKENS_AT_ONCE):
        end = min(begin + TOKENS_AT_ONCE, count)
        for task in prange(tasks):
            first = task * rows
            last = min(first + rows, scale.shape[0])
            _products(weight, first, last, prepared, begin, end, out)
            for n in range(begin, end):
                finish(out[n, first:last], scale[first:last], bias[first:last], activation)


@njit(fastmath=False, nogil=True, cache=True, error_model="numpy")
def _normalize(x, norm, epsilon, out):
    """out = layer norm of x, both (C,); norm (2, C). out may be x.

    Fastmath is off, and sums are written out in four parts: one token, many tokens and the head get the same bits, each
    compiled for itself.
    """
    C, fours = x.shape[0], x.shape[0] // 4 * 4
    s0 = s1 = s2 = s3 = np.float32(0.0)
    for c in range(0, fours, 4):
        s0 += x[c]
        s1 += x[c + 1]
        s2 += x[c + 2]
        s3 += x[c + 3]
    for c in range(fours, C):
        s0 += x[c]
    mean = ((s0 + s1) + (s2 + s3)) / np.float32(C)
    s0 = s1 = s2 = s3 = np.float32(0.0)
    for c in range(0, fours, 4):
        s0 += (x[c] - mean) * (x[c] - mean)
        s1 += (x[c + 1] - mean) * (x[c + 1] - mean)
        s2 += (x[c + 2] - mean) * (x[c + 2] - mean)
        s3 += (x[c + 3] - mean) * (x[c + 3] - mean)
    for c in range(fours, C):
        s0 += (x[c] - mean) * (x[c] - mean)
    variance = ((s0 + s1) + (s2 + s3)) / np.float32(C)
    inverse = np.float32(1.0) / np.sqrt(variance + np.float32(epsilon))
    weight, bias = norm[0], norm[1]
    for c in range(C):
        out[c] = (x[c] - mean) * inverse * weight[c] + bias[c]


@njit(parallel=True, fastmath=True, nogil=True, cache=True, error_model="numpy")
def _normalize_many(x, norm, epsilon, count, out):
    for n in prange(count):
        _normalize(x[n], norm, epsilon, out[n])


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def layer_norm(x, norm, epsilon, count, out):
    """out[:count] = layer norm of x[:count], (N, C) float32; norm (2, C): weight, bias. out may be x."""
    if count < 4:  # a task for another thread costs more than that
        for n in range(count):
            _normalize(x[n], norm, epsilon, out[n])
    else:
        _normalize_many(x, norm, epsilon, count, out)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _add(x, y, count):
    for n in range(count):
        for c in range(x.shape[1]):
            x[n, c] += y[n, c]


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def embed(weights, tokens, positions, x):
    """x[n] = wte[tokens[n]] + wpe[positions[n]]; tokens, positions (count,) int64, x (N, C)."""
    for n in range(tokens.shape[0]):
        token, scale = weights.wte[tokens[n]], weights.wte_scale[tokens[n]]
        position, line = weights.wpe[positions[n]], x[n]
        for c in range(line.shape[0]):
            line[c] = widen(token[c]) * scale + position[c]


@njit(parallel=True, fastmath=True, nogil=True, cache=True, error_model="numpy")
def _attend(qkv, slots, positions, keys, values, heads, window, scores, out):
    """Each token's attention to the keys of its slot: the last `window` of them, the newest itself.

    Args:
        qkv: (N, 3 A); the keys and values in it are already stored.
        slots, positions: (count,) int64.
        keys, values: (S, heads, places, D); position p is at p modulo places.
        scores: (N, heads, room), overwritten.
        out: (N, A).
    """
    D = keys.shape[3]
    places = keys.shape[2]
    inverse_root = np.float32(1.0 / math.sqrt(D))
    for task in prange(slots.shape[0] * heads):
        n, h = task // heads, task % heads
        query = qkv[n, h * D : (h + 1) * D]
        k, v = keys[slots[n], h], values[slots[n], h]
        count = min(positions[n] + 1, window)
        start = (positions[n] + 1 - count) % places
        line = scores[n, h]
        largest = np.float32(-np.inf)
        for j in range(count):
            place = start + j if start + j < places else start + j - places
            key = k[place]
            s = np.float32(0.0)
            for d in range(D):
                s += query[d] * key[d]
            s *= inverse_root
            line[j] = s
            largest = max(largest, s)
        total = np.float32(0.0)
        for j in range(count):
            e = exponential(line[j] - largest)
            line[j] = e
            total += e
        result = out[n, h * D : (h + 1) * D]
        for d in range(D):
            result[d] = np.float32(0.0)
        j = 0
        while j < count:
            place = start + j if start + j < places else start + j - places
            if j + 4 <= count and place + 4 <= places:
                p0, p1, p2, p3 = line[j], line[j + 1], line[j + 2], line[j + 3]
                v0, v1, v2, v3 = v[place], v[place + 1], v[place + 2], v[place + 3]
                for d in range(D):
                    result[d] += p0 * v0[d] + p1 * v1[d] + p2 * v2[d] + p3 * v3[d]
                j += 4
            else:
                p0, v0 = line[j], v[place]
                for d in range(D):
                    result[d] += p0 * v0[d]
                j += 1
        for d in range(D):
            result[d] /= total


@njit(parallel=True, fastmath=True, nogil=True, cache=True, error_model="numpy")
def _store(qkv, slots, positions, keys, values):
    """Put the tokens' keys and values in their places."""
    heads, places, D = keys.shape[1], keys.shape[2], keys.shape[3]
    A = heads * D
    for n in prange(slots.shape[0]):
        place = positions[n] % places
        for h in range(heads):
            key, value = keys[slots[n], h, place], values[slots[n], h, place]
            for d in range(D):
                key[d] = qkv[n, A + h * D + d]
                value[d] = qkv[n, 2 * A + h * D + d]


# Plain functions, which `step` inlines and a prompt calls from Python: compiled alone, each would compile `linear` once more.
@register_jitable(inline="always", fastmath=False)
def into_attention(weights, shape, layer, buffers, count):
    """A layer's first part: queries, keys and values of the first `count` tokens, from buffers.x into buffers.qkv."""
    source = buffers.x
    if shape.pre_norm:
        layer_norm(buffers.x, weights.ln_1[layer], shape.epsilon, count, buffers.normed)
        source = buffers.normed
    linear(weights.qkv[layer], weights.qkv_scale[layer], weights.qkv_bias[layer], source, count, buffers.qkv, NONE)


@register_jitable(inline="always", fastmath=False)
def out_of_attention(weights, shape, layer, buffers, count):
    """The rest of a layer: from buffers.attended into the residual stream buffers.x, and the MLP."""
    w, x, normed = weights, buffers.x, buffers.normed
    linear(w.proj[layer], w.proj_scale[layer], w.proj_bias[layer], buffers.attended, count, normed, NONE)
    _add(x, normed, count)
    source = x
    if shape.pre_norm:
        layer_norm(x, w.ln_2[layer], shape.epsilon, count, normed)
        source = normed
    else:
        layer_norm(x, w.ln_1[layer], shape.epsilon, count, x)
    linear(w.fc[layer], w.fc_scale[layer], w.fc_bias[layer], source, count, buffers.hidden, shape.activation)
    linear(w.out[layer], w.out_scale[layer], w.out_bias[layer], buffers.hidden, count, normed, NONE)
    _add(x, normed, count)
    if not shape.pre_norm:
        layer_norm(x, w.ln_2[layer], shape.epsilon, count, x)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def step(weights, shape, store, buffers, tokens, slots, positions, wanted):
    """The whole model, for a few tokens: their keys and values are stored, logits come out.

    Args:
        weights, shape, store, buffers: Weights, Shape, Keys, Buffers.
        tokens, slots, positions: (count,) int64. Several tokens of a slot have ascending positions, fewer than ring - window + 2.
        wanted: (M,) int64, ascending places in tokens whose logits are computed, into buffers.logits[:M].
    """
    count = tokens.shape[0]
    embed(weights, tokens, positions, buffers.x)
    for layer in range(weights.qkv.shape[0]):
        into_attention(weights, shape, layer, buffers, count)
        i = store.number[layer]
        if store.banded[layer]:
            keys, values, window = store.ring_keys[i], store.ring_values[i], shape.window
        else:
            keys, values, window = store.dense_keys[i], store.dense_values[i], store.dense_keys.shape[3]
        _store(buffers.qkv, slots, positions, keys, values)
        _attend(buffers.qkv, slots, positions, keys, values, shape.heads, window, buffers.scores, buffers.attended)
        out_of_attention(weights, shape, layer, buffers, count)
    head(weights, shape, buffers.x, wanted, buffers.normed, buffers.logits)


@register_jitable(inline="always", fastmath=False)
def head(weights, shape, x, wanted, normed, logits):
    """logits[:M] (M, V) of the residual streams x[wanted]; normed, at least (M, C), is overwritten."""
    for m in range(wanted.shape[0]):
        _normalize(x[wanted[m]], weights.ln_f, shape.epsilon, normed[m])
    linear(weights.head, weights.head_scale, weights.head_bias, normed, wanted.shape[0], logits, NONE)


kernel_cache.depend_on(globals(), activations, arrays, four_bit, four_bit_kernel, microkernel)
