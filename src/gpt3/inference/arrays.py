"""The arrays that the CPU engine's compiled loops (kernels.py) read and write, under their names.

Letters in shapes: N tokens, C width, A heads x head width, F width of the MLP, V vocabulary, L layers, S slots, D head width,
W D rounded up to vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Weights(NamedTuple):
    """A GPT-3 model, layers stacked. Matrices are stored in a format of packing.py; scales and all else are float32.

    A matrix (O, I) lies in panels, (panels, I, PANEL) (microkernel.py), in int4 in units (four_bit.py)."""

    wte: Array
    """(V, C)"""
    wte_scale: Array
    """(V,)"""
    wpe: Array
    """(positions, C)"""
    head: Array
    """(V, C); the same array as wte where they are tied."""
    head_scale: Array
    """(V,)"""
    head_bias: Array
    """(V,), zeros."""
    qkv: Array
    """(L, 3 A, C)"""
    qkv_scale: Array
    """(L, 3 A)"""
    qkv_bias: Array
    """(L, 3 A)"""
    proj: Array
    """(L, C, A)"""
    proj_scale: Array
    """(L, C)"""
    proj_bias: Array
    """(L, C)"""
    fc: Array
    """(L, F, C)"""
    fc_scale: Array
    """(L, F)"""
    fc_bias: Array
    """(L, F)"""
    out: Array
    """(L, C, F)"""
    out_scale: Array
    """(L, C)"""
    out_bias: Array
    """(L, C)"""
    ln_1: Array
    """(L, 2, C): weight and bias."""
    ln_2: Array
    """(L, 2, C)"""
    ln_f: Array
    """(2, C)"""


class Shape(NamedTuple):
    """What the loops must know besides the arrays' shapes."""

    heads: int
    window: int
    """Keys a query of a banded layer sees, itself included."""
    activation: int
    pre_norm: bool
    epsilon: float


class Keys(NamedTuple):
    """Keys and values: dense layers keep a place a position, banded layers a ring."""

    banded: Array
    """(L,) bool"""
    number: Array
    """(L,) int64: a layer's number among those of its kind."""
    dense_keys: Array
    """(dense layers, S, heads, blocks, D, LANES): a block has LANES positions (attention_kernel.py)."""
    dense_values: Array
    """(dense layers, S, heads, places, W)"""
    ring_keys: Array
    """(banded layers, S, heads, blocks of a ring, D, LANES)"""
    ring_values: Array
    """(banded layers, S, heads, places of a ring, W): position p is at p modulo places."""


class Buffers(NamedTuple):
    """Room for activations of up to N tokens, allocated once."""

    x: Array
    """(N, C), the residual stream."""
    normed: Array
    """(N, C)"""
    qkv: Array
    """(N, 3 A)"""
    attended: Array
    """(N, A)"""
    hidden: Array
    """(N, F)"""
