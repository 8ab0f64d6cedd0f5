"""Compiled loops over rows: layer norm with the residual sum before it, GELU, the softmax of the vocabulary loss.

A task is `ROWS_A_TASK` rows. What is summed over rows is summed by task, and by torch over tasks: in one order, whatever the
number of threads. N rows, C columns; all tensors are contiguous and float32. Some may be bfloat16: a row of them is widened
before the loop over it and rounded after it, in memory of the thread's own.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gpt3.inference.activations import error_function, exponential
from gpt3.inference.microkernel import LANES
from gpt3.training.lean.threads import COUNTERS, Loop, scratch
from gpt3.training.lean.tiles import claim, float_of_half, floats, half_of, halves, integers, keep, load, narrow, place
from gpt3.training.lean.vectors import (
    exponentials_in_place,
    gelu_half,
    largest_float,
    largest_half,
    sum_of_exponentials,
)

ROWS_A_TASK = 32
ROW_SUMS = 3
"""What `norm_backward` sums over rows: gradients of gain and shift, and of the input."""


def _tasks(rows: int) -> int:
    return -(-rows // ROWS_A_TASK)


def _half(dtype: torch.dtype) -> int:
    """What loops know a tensor's dtype by: 1 for bfloat16, 0 for float32."""
    return int(dtype == torch.bfloat16)


@Loop
def _norm(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 15)
    N, C, add, half = d[2], d[3], d[6] != 0, d[15]
    epsilon, bias, last = floats(d[4], 1)[0], floats(d[7], C), floats(d[8], C)
    gain, shift = floats(d[9], C), floats(d[10], C)
    memory = d[16] + 8 * claim(address + 8) * C
    while True:
        first = claim(address) * ROWS_A_TASK
        if first >= N:
            return
        for n in range(first, min(first + ROWS_A_TASK, N)):
            x, stats = floats(d[5] + 4 * n * C, C), floats(d[13] + 8 * n, 2)
            y = floats(place(d[12], n * C, half, memory), C)
            if add:
                h, ahead = floats(load(d[6], n * C, C, half, memory + 4 * C), C), floats(d[11] + 4 * n * C, C)
                summed = floats(d[14] + 4 * n * C, C)
                for c in range(C):
                    value = h[c] + bias[c] + x[c]
                    summed[c] = value
                    ahead[c] = value + last[c]
                x = summed
            total = np.float32(0.0)
            for c in range(C):
                total += x[c]
            mean = total / np.float32(C)
            total = np.float32(0.0)
            for c in range(C):
                total += (x[c] - mean) * (x[c] - mean)
            rate = np.float32(1.0) / np.sqrt(total / np.float32(C) + epsilon)
            stats[0], stats[1] = mean, rate
            for c in range(C):
                y[c] = (x[c] - mean) * rate * gain[c] + shift[c]
            keep(d[12], n * C, C, half, memory)


def norm(x: Tensor, gain: Tensor, shift: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Layer norm of x (N, C) float32: its output in `dtype`, and each row's mean and 1 / deviation (N, 2)."""
    y, stats, eps = torch.empty_like(x, dtype=dtype), x.new_empty(len(x), 2), x.new_tensor(epsilon)
    memory = scratch(2 * x.shape[1])
    places = (
        eps.data_ptr(),
        x.data_ptr(),
        0,
        0,
        0,
        gain.data_ptr(),
        shift.data_ptr(),
        0,
        y.data_ptr(),
        stats.data_ptr(),
    )
    _norm(*x.shape, *places, 0, _half(dtype), memory.data_ptr())
    return y, stats


def add_and_norm(
    x: Tensor, h: Tensor, bias: Tensor, last: Tensor, gain: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + h + bias in float32, in h's memory where that is float32; its layer norm in h's dtype and stats as `norm` has them; and
    the sum plus `last`, float32. All but the stats are (N, C)."""
    y, ahead, stats, eps = torch.empty_like(h), torch.empty_like(x), x.new_empty(len(x), 2), x.new_tensor(epsilon)
    summed = h if h.dtype == x.dtype else torch.empty_like(x)
    tensors = (eps, x, h, bias, last, gain, shift, ahead, y, stats, summed)
    memory = scratch(2 * x.shape[1])
    _norm(*x.shape, *(tensor.data_ptr() for tensor in tensors), _half(h.dtype), memory.data_ptr())
    return summed, y, stats, ahead


@Loop
def _norm_backward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 11)
    N, C, half = d[2], d[3], d[11]
    gain = floats(d[7], C)
    memory = d[12] + 4 * claim(address + 8) * C
    while True:
        task = claim(address)
        first = task * ROWS_A_TASK
        if first >= N:
            return
        sums = d[9] + 4 * task * ROW_SUMS * C
        of_gain, of_shift, of_input = floats(sums, C), floats(sums + 4 * C, C), floats(sums + 8 * C, C)
        for c in range(C):
            of_gain[c] = np.float32(0.0)
            of_shift[c] = np.float32(0.0)
            of_input[c] = np.float32(0.0)
        for n in range(first, min(first + ROWS_A_TASK, N)):
            dy = floats(load(d[4], n * C, C, half, memory), C)
            x, stats = floats(d[5] + 4 * n * C, C), floats(d[6] + 8 * n, 2)
            beside, dx = floats(d[8] + 4 * n * C, C), floats(d[10] + 4 * n * C, C)
            mean, rate = stats[0], stats[1]
            along, total = np.float32(0.0), np.float32(0.0)
            for c in range(C):
                normal = (x[c] - mean) * rate
                of_gain[c] += dy[c] * normal
                of_shift[c] += dy[c]
                scaled = dy[c] * gain[c]
                total += scaled
                along += scaled * normal
            total, along = total / np.float32(C), along / np.float32(C)
            for c in range(C):
                normal = (x[c] - mean) * rate
                value = beside[c] + rate * (dy[c] * gain[c] - total - normal * along)
                dx[c] = value
                of_input[c] += value
            keep(d[4], n * C, C, half, d[10] + 4 * n * C)


def norm_backward(dy: Tensor, x: Tensor, stats: Tensor, gain: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the layer norm's input, plus `beside`, what comes past the layer norm; dy (N, C) becomes it, in its dtype.

    Returns:
        The gradient in float32, dy itself where that is float32; and (3, C): gradients of gain and shift, and the sum over rows
        of the first.
    """
    N, C = x.shape
    sums, dx = x.new_empty(_tasks(N), ROW_SUMS * C), dy if dy.dtype == x.dtype else torch.empty_like(x)
    places, memory = [tensor.data_ptr() for tensor in (dy, x, stats, gain, beside, sums, dx)], scratch(C)
    _norm_backward(N, C, *places, _half(dy.dtype), memory.data_ptr())
    return dx, sums.sum(0).view(ROW_SUMS, C)


@Loop
def _narrow(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 5)
    N, C = d[2], d[3]
    while True:
        task = claim(address)
        first = task * ROWS_A_TASK
        if first >= N:
            return
        sums = floats(d[6] + 4 * task * C, C)
        for c in range(C):
            sums[c] = np.float32(0.0)
        for n in range(first, min(first + ROWS_A_TASK, N)):
            row = floats(d[4] + 4 * n * C, C)
            for c in range(C):
                sums[c] += row[c]
            narrow(d[4] + 4 * n * C, d[5] + 2 * n * C, C)


def narrow_and_sum(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x (N, C) float32 in `dtype`, and its sum over rows (C,) in float32."""
    if x.dtype == dtype:
        return x, x.sum(0)
    N, C = x.shape
    copy, sums = torch.empty_like(x, dtype=dtype), x.new_empty(_tasks(N), C)
    _narrow(N, C, x.data_ptr(), copy.data_ptr(), sums.data_ptr())
    return copy, sums.sum(0)


@Loop
def _sum(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 5)
    N, C = d[2], d[3]
    memory = d[6] + 4 * claim(address + 8) * C
    while True:
        task = claim(address)
        first = task * ROWS_A_TASK
        if first >= N:
            return
        sums = floats(d[5] + 4 * task * C, C)
        for c in range(C):
            sums[c] = np.float32(0.0)
        for n in range(first, min(first + ROWS_A_TASK, N)):
            row = floats(load(d[4], n * C, C, 1, memory), C)
            for c in range(C):
                sums[c] += row[c]


def sum_of_rows(x: Tensor) -> Tensor:
    """The sum of x (N, C) over its rows, in float32."""
    if x.dtype == torch.float32:
        return x.sum(0)
    N, C = x.shape
    sums, memory = torch.empty(_tasks(N), C), scratch(C)
    _sum(N, C, x.data_ptr(), sums.data_ptr(), memory.data_ptr())
    return sums.sum(0)


@Loop
def _add(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 5)
    N, C = d[2], d[3]
    memory = d[6] + 4 * claim(address + 8) * C
    while True:
        first = claim(address) * ROWS_A_TASK
        if first >= N:
            return
        for n in range(first, min(first + ROWS_A_TASK, N)):
            total, part = floats(d[4] + 4 * n * C, C), floats(load(d[5], n * C, C, 1, memory), C)
            for c in range(C):
                total[c] += part[c]


def add(total: Tensor, part: Tensor) -> Tensor:
    """`total` (N, C) float32, which becomes total + part; part (N, C) is bfloat16."""
    N, C = total.shape
    memory = scratch(C)
    _add(N, C, total.data_ptr(), part.data_ptr(), memory.data_ptr())
    return total


@Loop
def _gelu(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 7)
    N, C, storage = d[2], d[3], d[7]
    memory = d[8] + 8 * claim(address + 8) * C
    bias = floats(d[5], C)
    half, one, root = np.float32(0.5), np.float32(1.0), np.float32(math.sqrt(0.5))
    density = np.float32(1 / math.sqrt(2 * math.pi))
    while True:
        first = claim(address) * ROWS_A_TASK
        if first >= N:
            return
        for n in range(first, min(first + ROWS_A_TASK, N)):
            if storage != 0 and C % LANES == 0:
                gelu_half(d[4] + 2 * n * C, d[5], d[6] + 2 * n * C, C)
                continue
            u = floats(load(d[4], n * C, C, storage, memory), C)
            y = floats(place(d[6], n * C, storage, memory + 4 * C), C)
            for c in range(C):
                v = u[c] + bias[c]
                share = half * (one + error_function(v * root))
                y[c] = v * share
                u[c] = share + v * density * exponential(np.float32(-0.5) * v * v)
            keep(d[4], n * C, C, storage, memory)
            keep(d[6], n * C, C, storage, memory + 4 * C)


def gelu(u: Tensor, bias: Tensor) -> Tensor:
    """GELU (by erf) of u + bias, (N, F), in u's dtype; u becomes its derivative there."""
    y, memory = torch.empty_like(u), scratch(2 * u.shape[1])
    _gelu(*u.shape, u.data_ptr(), bias.data_ptr(), y.data_ptr(), _half(u.dtype), memory.data_ptr())
    return y


@Loop
def _times(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 7)
    N, C, half = d[2], d[3], d[7]
    memory = d[8] + 8 * claim(address + 8) * C
    while True:
        task = claim(address)
        first = task * ROWS_A_TASK
        if first >= N:
            return
        sums = floats(d[6] + 4 * task * C, C)
        for c in range(C):
            sums[c] = np.float32(0.0)
        for n in range(first, min(first + ROWS_A_TASK, N)):
            dy = floats(load(d[4], n * C, C, half, memory), C)
            slope = floats(load(d[5], n * C, C, half, memory + 4 * C), C)
            for c in range(C):
                value = dy[c] * slope[c]
                dy[c] = value
                sums[c] += value
            keep(d[4], n * C, C, half, memory)


def gelu_backward(dy: Tensor, slope: Tensor) -> Tensor:
    """dy (N, F) becomes the gradient of `gelu`'s input; returns its sum over rows (F,) in float32, the gradient of the bias."""
    N, F = dy.shape
    sums, memory = torch.empty(_tasks(N), F), scratch(2 * F)
    _times(N, F, dy.data_ptr(), slope.data_ptr(), sums.data_ptr(), _half(dy.dtype), memory.data_ptr())
    return sums.sum(0)


@Loop
def _softmax(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 10)
    N, columns, real, stride, gradients, half = d[2], d[3], d[4], d[5], d[6], d[11]
    targets, weights, losses = integers(d[8], N), floats(d[9], N), floats(d[10], N)
    whole = real // LANES * LANES
    while True:
        n = claim(address)
        if n >= N:
            return
        target, weight = targets[n], weights[n]
        if half != 0:
            row = d[7] + 2 * n * stride
            halves(row, columns)[real:] = np.uint16(0xFF00)  # -1.7e38
            largest, chosen = largest_half(row, columns), halves(row + 2 * target, 1)
            at_target = float_of_half(chosen[0])
            total = sum_of_exponentials(row, columns, largest)
            losses[n] = (np.float32(math.log(total)) + largest - at_target) * weight
            if gradients != 0:
                scale = weight / total
                exponentials_in_place(row, columns, largest, scale)
                chosen[0] = half_of(exponential(at_target - largest) * scale - weight)
                halves(row, columns)[real:] = np.uint16(0)
            continue
        x = floats(d[7] + 4 * n * stride, real)
        largest = largest_float(d[7] + 4 * n * stride, whole)
        for c in range(whole, real):
            largest = max(largest, x[c])
        at_target, total = x[target], np.float32(0.0)
        for c in range(real):
            power = exponential(x[c] - largest)
            x[c] = power
            total += power
        losses[n] = (np.float32(math.log(total)) + largest - at_target) * weight
        if gradients != 0:
            scale = weight / total
            for c in range(real):
                x[c] *= scale
            x[target] = x[target] - weight
            padding = floats(d[7] + 4 * (n * stride + real), columns - real)
            for c in range(columns - real):
                padding[c] = np.float32(0.0)


def softmax_in_place(
    logits: Tensor, targets: Tensor, weights: Tensor, losses: Tensor, real: int, gradients: bool
) -> None:
    """Each row's cross-entropy times its weight into `losses`, and with `gradients` its gradient in place of the logits.

    Args:
        logits: (N, V), rows contiguous, at any stride; in bfloat16 V is a multiple of LANES.
        targets: (N,) int64, below `real`.
        weights, losses: (N,) float32.
        real: entries from here on are padding: no probability, gradient 0.

    Raises:
        ValueError: bfloat16 and another V.
    """
    N, V = logits.shape
    places = (logits.data_ptr(), targets.data_ptr(), weights.data_ptr(), losses.data_ptr())
    if (half := _half(logits.dtype)) and V % LANES:
        raise ValueError(f"rows of bfloat16 logits have a multiple of {LANES} numbers, got {V}")
    _softmax(N, V, real, logits.stride(0), int(gradients), *places, half)
