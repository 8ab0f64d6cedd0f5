"""`kernels.step` in plain NumPy: slower, but there at once. It serves while the kernels are compiled for a machine, once.

The same arrays go in and come out: caches and buffers that one has filled, the other continues. Numbers differ in the last bits,
as the order of the sums does.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from gpt3.inference import four_bit, packing
from gpt3.inference.arrays import Array, Buffers, Keys, Shape, Weights
from gpt3.inference.microkernel import LANES, PANEL

_ERF: Any = np.frompyfunc(math.erf, 1, 1)
ROWS = 4096
"""Rows of a matrix that are widened to float32 at a time."""


def step(
    weights: Weights,
    shape: Shape,
    store: Keys,
    buffers: Buffers,
    tokens: Array,
    positions: Array,
    blocks: Array,
    rounds: Array,
    wanted: Array,
    logits: Array,
) -> None:
    """As `kernels.step`."""
    w = weights
    slots = np.empty_like(positions)
    for row, count, slot, _ in blocks.tolist():
        slots[row : row + count] = slot
    embedded = _widened(w.wte[tokens // PANEL, :, tokens % PANEL])
    x = embedded * w.wte_scale[tokens, None] + w.wpe[positions]
    for layer in range(len(w.qkv)):
        source = _norm(x, w.ln_1[layer], shape.epsilon) if shape.pre_norm else x
        qkv = _linear(w.qkv[layer], w.qkv_scale[layer], w.qkv_bias[layer], source)
        number = store.number[layer]
        if store.banded[layer]:
            keys, values, window = store.ring_keys[number], store.ring_values[number], shape.window
        else:
            keys, values, window = store.dense_keys[number], store.dense_values[number], store.dense_values.shape[3]
        attended = np.empty((len(x), qkv.shape[1] // 3), np.float32)
        for begin, end in itertools.pairwise(rounds.tolist()):
            rows = np.concatenate([np.arange(row, row + count) for row, count, *_ in blocks[begin:end].tolist()])
            attended[rows] = _attend(qkv[rows], slots[rows], positions[rows], keys, values, window)
        x = x + _linear(w.proj[layer], w.proj_scale[layer], w.proj_bias[layer], attended)
        if not shape.pre_norm:
            x = _norm(x, w.ln_1[layer], shape.epsilon)
        source = _norm(x, w.ln_2[layer], shape.epsilon) if shape.pre_norm else x
        hidden = _activated(_linear(w.fc[layer], w.fc_scale[layer], w.fc_bias[layer], source), shape.activation)
        x = x + _linear(w.out[layer], w.out_scale[layer], w.out_bias[layer], hidden)
        if not shape.pre_norm:
            x = _norm(x, w.ln_2[layer], shape.epsilon)
    last = _norm(x[wanted], w.ln_f, shape.epsilon)
    logits[:] = _linear(w.head, w.head_scale, w.head_bias, last)


def _attend(qkv: Array, slots: Array, positions: Array, keys: Array, values: Array, window: int) -> Array:
    heads, ring, D = keys.shape[1:4]
    places = values.shape[2]
    query, key, value = qkv.reshape(len(qkv), 3, heads, D).swapaxes(0, 1)
    keys[slots, :, positions // LANES % ring, :, positions % LANES] = key
    values[slots, :, positions % places, :D] = value
    out = np.empty((len(qkv), heads, D), np.float32)
    for n, (slot, position) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        seen = np.arange(max(0, position + 1 - window), position + 1)
        held = keys[slot][:, seen // LANES % ring, :, seen % LANES]  # (keys, heads, D)
        scores = np.einsum("khd,hd->hk", held, query[n]) / np.float32(math.sqrt(D))
        shares = np.exp(scores - scores.max(1, keepdims=True))
        out[n] = np.einsum("hkd,hk->hd", values[slot][:, seen % places, :D], shares / shares.sum(1, keepdims=True))
    return out.reshape(len(qkv), -1)


def _linear(weight: Array, scale: Array, bias: Array, x: Array) -> Array:
    """x weight^T * scale + bias."""
    out = np.empty((len(x), len(bias)), np.float32)
    for begin in range(0, len(bias), ROWS):
        panels = weight[begin // PANEL : (begin + ROWS) // PANEL]
        wide = four_bit.dequantized(panels) if weight.dtype == np.uint8 else _widened(packing.rows_of(panels))
        np.matmul(x, wide[: len(bias) - begin].T, out=out[:, begin : begin + ROWS])
    return out * scale + bias


def _widened(weight: Array) -> Array:
    """Stored weights (packing.STORED) as float32."""
    if weight.dtype == np.uint16:
        return weight.view(np.float16).astype(np.float32)
    if weight.dtype == np.int16:
        return (weight.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return weight.astype(np.float32, copy=False)


def _norm(x: Array, norm: Array, epsilon: float) -> Array:
    centered = x - x.mean(1, keepdims=True)
    return centered / np.sqrt((centered * centered).mean(1, keepdims=True) + np.float32(epsilon)) * norm[0] + norm[1]


def _activated(x: Array, activation: int) -> Array:
    """The activations of `activations.ACTIVATIONS`, by number."""
    if activation == 1:
        return x * np.float32(0.5) * (1 + _erf(x * np.float32(math.sqrt(0.5))))
    if activation == 2:
        cubic = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return x * np.float32(0.5) * (1 + np.tanh(cubic))
    return np.maximum(x, 0) if activation == 3 else x / (1 + np.exp(-np.clip(x, -80, 80)))


def _erf(x: Array) -> Array:
    found: Array = _ERF(x).astype(np.float32)
    return found
