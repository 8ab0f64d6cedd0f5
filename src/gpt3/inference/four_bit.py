"""Weights in 4 bits, on the grid of llama.cpp's Q4_0: w = d (q - 8), q from 0 to 15, one 16-bit scale d for 32 weights of a row.

llama.cpp takes the scale from the largest weight of a block. Here it is the one with the least squared error, which is about a
tenth smaller. `interleaved` stores 32 rows together, as four_bit_kernel.py reads them; `q4_0` stores them as GGUF does.

| bytes of a unit | of 32 rows, 32 columns                                                         |
|-----------------|--------------------------------------------------------------------------------|
| 0 to 63         | the rows' scales, float16                                                      |
| 64 to 575       | four times 32 words of 32 bits: columns 8 j to 8 j + 7 of each row, low first  |
"""

# numba compiles the loops: types are in the docstrings
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit, prange

from gpt3.inference.arrays import Array

BLOCK = 32
"""Weights that share a scale."""
ROWS = 32
"""Rows of a unit."""
SCALES, UNIT = 2 * ROWS, 18 * ROWS
"""Bytes of a unit: its scales, and all."""
AT_ONCE = 1 << 20
"""Weights that are chosen at a time, which bounds the memory for it."""
FEWEST_STEPS, MOST_STEPS, TRIES = 5.0, 9.5, 19
"""Scales that are tried, by the number of steps from zero to the block's largest weight; llama.cpp's, 8, is among them."""


def divides(rows: int, columns: int) -> bool:
    """Whether a matrix divides into units."""
    return rows % ROWS == 0 and columns % BLOCK == 0


def units_shape(rows: int, columns: int) -> tuple[int, int, int]:
    """The shape of a matrix's units."""
    return rows // ROWS, columns // BLOCK, UNIT


def store(matrix: Array, units: Array) -> None:
    """Put a float matrix (O, I) into units of `units_shape`, uint8, some rows at a time."""
    count = max(1, AT_ONCE // (ROWS * matrix.shape[1]))
    for begin in range(0, len(units), count):
        part = units[begin : begin + count]
        interleaved(*choose(matrix[ROWS * begin : ROWS * (begin + len(part))]), part)


def choose(matrix: Array) -> tuple[Array, Array]:
    """Scales and steps of the least squared error.

    Args:
        matrix: (O, I) float32, finite; I a multiple of BLOCK.

    Returns:
        Steps q (O, I) uint8 and scales d (O, I / BLOCK) float16.
    """
    matrix = np.ascontiguousarray(matrix, dtype=np.float32)
    wide = np.empty((len(matrix), matrix.shape[1] // BLOCK), np.float32)
    _search(matrix, wide)
    scales = wide.astype(np.float16)
    steps = np.empty(matrix.shape, np.uint8)
    _round(matrix, scales.astype(np.float32), steps)
    return steps, scales


def interleaved(steps: Array, scales: Array, units: Array) -> None:
    """Store what `choose` has chosen in units (O / ROWS, I / BLOCK, UNIT) uint8."""
    shape = (len(units), ROWS, units.shape[1])
    units[..., :SCALES] = np.ascontiguousarray(scales.reshape(shape).transpose(0, 2, 1)).view(np.uint8)
    _interleave(steps, units)


def dequantized(units: Array) -> Array:
    """The weights that units hold: (O, I) float32."""
    scales = np.ascontiguousarray(units[..., :SCALES]).view(np.float16).astype(np.float32)  # (U, B, ROWS)
    words = np.ascontiguousarray(units[..., SCALES:]).view(np.uint32).reshape(*scales.shape[:2], 4, ROWS)
    steps = (words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.float32) - 8  # (U, B, 4, ROWS, 8)
    values = steps.transpose(0, 3, 1, 2, 4) * scales.transpose(0, 2, 1)[..., None, None]
    return values.reshape(len(units) * ROWS, -1)


def q4_0(matrix: Array) -> Array:
    """A matrix (O, I) as GGUF stores it in Q4_0, with the same scales and steps: (O, 18 I / BLOCK) uint8."""
    steps, scales = choose(matrix)
    halves = steps.reshape(*scales.shape, 2, BLOCK // 2)  # a byte holds column i, and above it column i + 16
    packed = halves[..., 0, :] | halves[..., 1, :] << 4
    return np.concatenate([scales[..., None].view(np.uint8), packed], axis=-1).reshape(len(matrix), -1)


@njit(inline="always", fastmath=True, error_model="numpy")
def _fit(block, inverse):
    """Sums of w q and q q over a block, q being w times `inverse`, rounded to a step; the best scale of these steps is their
    quotient."""
    wq = qq = np.float32(0.0)
    for i in range(BLOCK):
        q = min(max(np.rint(block[i] * inverse), np.float32(-8.0)), np.float32(7.0))
        wq += block[i] * q
        qq += q * q
    return wq, qq


@njit(parallel=True, fastmath=True, nogil=True, cache=True, error_model="numpy")
def _search(matrix, scales):
    """The scale of each block with the least squared error, of TRIES, both signs, and what they lead to; 0 for zeros."""
    for row in prange(matrix.shape[0]):
        for b in range(scales.shape[1]):
            block = matrix[row, b * BLOCK : (b + 1) * BLOCK]
            largest = np.float32(0.0)
            for i in range(BLOCK):
                if abs(block[i]) > abs(largest):
                    largest = block[i]
            if largest == 0:
                scales[row, b] = 0.0
                continue
            best, kept = np.float32(-1.0), np.float32(0.0)
            for k in range(2 * TRIES):
                steps = np.float32(FEWEST_STEPS + (MOST_STEPS - FEWEST_STEPS) / (TRIES - 1) * (k // 2))
                inverse = (steps if k % 2 else -steps) / largest
                wq, qq = _fit(block, inverse)
                if qq > 0 and wq * wq > best * qq:  # the squared error is sum of w w, less wq wq / qq
                    best, kept = wq * wq / qq, inverse
            for _ in range(2):
                wq, qq = _fit(block, kept)
                if wq != 0:
                    kept = qq / wq
            wq, qq = _fit(block, kept)
            scales[row, b] = wq / qq


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def _round(matrix, scales, steps):
    """The step nearest to each weight."""
    for row in prange(matrix.shape[0]):
        for b in range(scales.shape[1]):
            d = scales[row, b]
            inverse = np.float32(0.0) if d == 0 else np.float32(1.0) / d
            for i in range(b * BLOCK, (b + 1) * BLOCK):
                q = min(max(np.rint(matrix[row, i] * inverse), np.float32(-8.0)), np.float32(7.0))
                steps[row, i] = np.uint8(q + np.float32(8.0))


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def _interleave(steps, units):
    for u in prange(units.shape[0]):
        for b in range(units.shape[1]):
            unit = units[u, b]
            for j in range(4):
                for r in range(ROWS):
                    columns = steps[u * ROWS + r, b * BLOCK + 8 * j : b * BLOCK + 8 * j + 8]
                    for k in range(4):
                        unit[SCALES + 4 * (ROWS * j + r) + k] = columns[2 * k] | columns[2 * k + 1] << 4
