"""The CPU engine's loops, compiled for the machine they run on by numba; no compiler is needed.

Decoding reads every weight once per token, so its bound is the memory's speed on all cores; a prompt's bound is arithmetic.
`linear` covers both, one token (matrix-vector) up to many prompts (matrix-matrix), with one loop nest over the tiles of
microkernel.py, which also has the formats that weights are stored in; all sums and activations are float32. `step` is the
whole model in one call.

Letters in shapes: N tokens, C width, A heads x head width, F width of the MLP, V vocabulary, L layers, S slots.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from gpt3.inference import activations, arrays, attention_kernel, four_bit, four_bit_kernel, kernel_cache, microkernel
from gpt3.inference.activations import NONE, finish
from gpt3.inference.microkernel import LANES, MANY, PANEL, address, fused, tile, widen

TOKENS_A_TASK, PANELS_A_TASK = 16 * MANY, 4
"""Tokens and panels of a weight matrix that one task computes: the panels stay in the cache for all the tokens, and a few tokens
in a nearer one for all the panels. Of fewer tokens, fewer panels, so that all threads get tasks."""
DEPTH = 256
"""Columns whose products are summed one by one; such sums are added up in order. So much of a panel stays in the cache, and
rounding errors stay small."""
AHEAD = 1024
"""Bytes of a panel that are called for before they are needed."""
_HALVES = PANEL // LANES // 2  # tiles of several tokens have two vectors of rows
_pair, _one = (tile(1, 2 * _HALVES, panels, prefetch=AHEAD) for panels in (2, 1))
_two, _four, _many = (tile(tokens, 2, prefetch=AHEAD) for tokens in (2, 4, MANY))


@njit(fastmath=False, nogil=True, error_model="numpy")
def _by_panels(weight, first, last, x, begin, end, out, rest):
    """out[begin:end] = the products of these tokens with the panels `first` to `last`; those of an incomplete one into `rest`."""
    inputs, outputs = x.shape[1], out.shape[1]
    panel = inputs * PANEL
    at_x, at_weight, at_out, at_rest = address(x), address(weight), address(out), address(rest)
    for k in range(0, inputs, DEPTH):
        depth, onto = min(DEPTH, inputs - k), types.int64(k > 0)
        n = begin
        while n < end:
            tokens = MANY if n + MANY <= end else 4 if n + 4 <= end else 2 if n + 2 <= end else 1
            left = at_x + 4 * (n * inputs + k)
            p = first
            while p < last:
                right = at_weight + weight.itemsize * (p * panel + k * PANEL)
                target, row = at_out + 4 * (n * outputs + p * PANEL), outputs
                if (p + 1) * PANEL > outputs:
                    target, row = at_rest + 4 * n * PANEL, PANEL
                if tokens == 1 and p + 1 < last and (p + 2) * PANEL <= outputs:
                    _pair(weight, left, inputs, right, PANEL, panel, target, row, depth, onto)
                    p += 1
                elif tokens == 1:
                    _one(weight, left, inputs, right, PANEL, panel, target, row, depth, onto)
                else:
                    for half in range(_HALVES):
                        part, to = right + half * 2 * LANES * weight.itemsize, target + half * 8 * LANES
                        if tokens == 2:
                            _two(weight, left, inputs, part, PANEL, panel, to, row, depth, onto)
                        elif tokens == 4:
                            _four(weight, left, inputs, part, PANEL, panel, to, row, depth, onto)
                        else:
                            _many(weight, left, inputs, part, PANEL, panel, to, row, depth, onto)
                p += 1
            n += tokens


def _products(weight, first, last, x, begin, end, out, rest):  # pragma: no cover
    raise TypeError("only compiled loops call this")


def _prepared(weight, x, count):  # pragma: no cover
    raise TypeError("only compiled loops call this")


@overload(_products)
def _products_of(weight, first, last, x, begin, end, out, rest):
    """The loops for the format: 4-bit weights have units of rows, the others have panels."""
    if weight.dtype == types.uint8:
        return lambda weight, first, last, x, begin, end, out, rest: four_bit_kernel.products(
            weight, first * PANEL, last * PANEL, x, begin, end, out
        )
    return lambda weight, first, last, x, begin, end, out, rest: _by_panels(
        weight, first, last, x, begin, end, out, rest
    )


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
        weight: (O, I) in panels, (panels, I, PANEL), or the units of four_bit.py.
        scale, bias: (O,) float32.
        x: (N, I) float32, C-contiguous.
        count: int, tokens.
        out: (N, O) float32, C-contiguous.
        activation: a value of activations.ACTIVATIONS, or NONE.
    """
    outputs = scale.shape[0]
    panels = PANELS_A_TASK if count >= TOKENS_A_TASK // 2 else 2 if outputs >= 32 * PANEL else 1
    groups = (weight.shape[0] + panels - 1) // panels
    parts = (count + TOKENS_A_TASK - 1) // TOKENS_A_TASK
    prepared = _prepared(weight, x, count)
    rest = np.empty((count if outputs % PANEL else 0, PANEL), np.float32)
    for task in prange(groups * parts):
        first, begin = task // parts * panels, task % parts * TOKENS_A_TASK
        last, end = min(first + panels, weight.shape[0]), min(begin + TOKENS_A_TASK, count)
        _products(weight, first, last, prepared, begin, end, out, rest)
        low, high = first * PANEL, min(last * PANEL, outputs)
        if last * PANEL > outputs:
            for n in range(begin, end):
                for r in range((last - 1) * PANEL, outputs):
                    out[n, r] = rest[n, r - (last - 1) * PANEL]
        for n in range(begin, end):
            finish(out[n, low:high], scale[low:high], bias[low:high], activation)


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


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def _normalize_many(x, norm, epsilon, count, out):
    for n in prange(count):
        _normalize(x[n], norm, epsilon, out[n])


@njit(fastmath=False, nogil=True, cache=True, error_model="numpy")
def layer_norm(x, norm, epsilon, count, out):
    """out[:count] = layer norm of x[:count], (N, C) float32; norm (2, C): weight, bias. out may be x."""
    if count < 4:  # a task for another thread costs more than that
        for n in range(count):
            _normalize(x[n], norm, epsilon, out[n])
    else:
        _normalize_many(x, norm, epsilon, count, out)


@njit(fastmath=False, nogil=True, cache=True, error_model="numpy")
def _add(x, y, count):
    for n in range(count):
        for c in range(x.shape[1]):
            x[n, c] += y[n, c]


@njit(fastmath=False, nogil=True, cache=True, error_model="numpy")
def embed(weights, tokens, positions, x):
    """x[n] = wte[tokens[n]] + wpe[positions[n]]; tokens, positions (count,) int64, x (N, C)."""
    for n in range(tokens.shape[0]):
        panel, row, scale = weights.wte[tokens[n] // PANEL], tokens[n] % PANEL, weights.wte_scale[tokens[n]]
        position, line = weights.wpe[positions[n]], x[n]
        for c in range(line.shape[0]):
            line[c] = fused(widen(panel[c, row]), scale, position[c])


@njit(fastmath=False, nogil=True, cache=True, error_model="numpy")
def step(weights, shape, store, buffers, tokens, positions, blocks, rounds, wanted, logits):
    """The whole model, for some tokens: their keys and values are stored, logits come out.

    Args:
        weights, shape, store, buffers: Weights, Shape, Keys, Buffers.
        tokens, positions: (count,) int64.
        blocks: (B, 4) int64, the tokens by slot, as attention_kernel.py takes them.
        rounds: (R + 1,) int64, ascending from 0 to B: what is stored in a round's blocks replaces no key that these still need.
        wanted: (M,) int64, ascending places in tokens whose logits are computed.
        logits: (M, V) float32, overwritten.
    """
    w, count, x, normed = weights, tokens.shape[0], buffers.x, buffers.normed
    embed(w, tokens, positions, x)
    for layer in range(w.qkv.shape[0]):
        source = x
        if shape.pre_norm:
            layer_norm(x, w.ln_1[layer], shape.epsilon, count, normed)
            source = normed
        linear(w.qkv[layer], w.qkv_scale[layer], w.qkv_bias[layer], source, count, buffers.qkv, NONE)
        i = store.number[layer]
        if store.banded[layer]:
            keys, values, window = store.ring_keys[i], store.ring_values[i], shape.window
        else:
            keys, values, window = store.dense_keys[i], store.dense_values[i], store.dense_values.shape[3]
        for r in range(rounds.shape[0] - 1):
            some = blocks[rounds[r] : rounds[r + 1]]
            attention_kernel.store(buffers.qkv, some, keys, values)
            attention_kernel.attend(buffers.qkv, some, keys, values, window, buffers.attended)
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
    for m in range(wanted.shape[0]):
        _normalize(x[wanted[m]], w.ln_f, shape.epsilon, normed[m])
    linear(w.head, w.head_scale, w.head_bias, normed, wanted.shape[0], logits, NONE)


for functions in (globals(), vars(attention_kernel)):
    kernel_cache.depend_on(functions, activations, arrays, attention_kernel, four_bit, four_bit_kernel, microkernel)
