"""Compiled loops over rows: layer norm with the residual sum before it, GELU, the softmax of the vocabulary loss.

A task is `ROWS_A_TASK` rows. What is summed over rows is summed by task, and by torch over tasks: in one order, whatever the
number of threads. N rows, C columns; all tensors are float32 and contiguous.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gpt3.inference.activations import error_function, exponential
from gpt3.training.lean.threads import COUNTERS, Loop
from gpt3.training.lean.tiles import claim, floats, integers

ROWS_A_TASK = 32
ROW_SUMS = 3
"""What `norm_backward` sums over rows: gradients of gain and shift, and of the input."""


def _tasks(rows: int) -> int:
    return -(-rows // ROWS_A_TASK)


@Loop
def _norm(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 12)
    N, C, add = d[2], d[3], d[6] != 0
    epsilon, bias, last = floats(d[4], 1)[0], floats(d[7], C), floats(d[8], C)
    gain, shift = floats(d[9], C), floats(d[10], C)
    while True:
        first = claim(address) * ROWS_A_TASK
        if first >= N:
            return
        for n in range(first, min(first + ROWS_A_TASK, N)):
            x, y, stats = floats(d[5] + 4 * n * C, C), floats(d[12] + 4 * n * C, C), floats(d[13] + 8 * n, 2)
            if add:
                h, ahead = floats(d[6] + 4 * n * C, C), floats(d[11] + 4 * n * C, C)
                for c in range(C):
                    value = h[c] + bias[c] + x[c]
                    h[c] = value
                    ahead[c] = value + last[c]
                x = h
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


def norm(x: Tensor, gain: Tensor, shift: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Layer norm of x (N, C): its output, and each row's mean and 1 / deviation (N, 2)."""
    y, stats, eps = torch.empty_like(x), x.new_empty(len(x), 2), x.new_tensor(epsilon)
    at_eps, at_x, at_gain, at_shift, at_y, at_stats = (each.data_ptr() for each in (eps, x, gain, shift, y, stats))
    _norm(*x.shape, at_eps, at_x, 0, 0, 0, at_gain, at_shift, 0, at_y, at_stats)
    return y, stats


def add_and_norm(
    x: Tensor, h: Tensor, bias: Tensor, last: Tensor, gain: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """h becomes x + h + bias; its layer norm and stats as `norm` has them, and h + last, all (N, C)."""
    y, ahead, stats, eps = torch.empty_like(x), torch.empty_like(x), x.new_empty(len(x), 2), x.new_tensor(epsilon)
    tensors = (eps, x, h, bias, last, gain, shift, ahead, y, stats)
    _norm(*x.shape, *(tensor.data_ptr() for tensor in tensors))
    return y, stats, ahead


@Loop
def _norm_backward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 8)
    N, C = d[2], d[3]
    gain = floats(d[7], C)
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
            dy, x, stats = floats(d[4] + 4 * n * C, C), floats(d[5] + 4 * n * C, C), floats(d[6] + 8 * n, 2)
            beside = floats(d[8] + 4 * n * C, C)
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
                dy[c] = value
                of_input[c] += value


def norm_backward(dy: Tensor, x: Tensor, stats: Tensor, gain: Tensor, beside: Tensor) -> Tensor:
    """dy (N, C) becomes the gradient of the layer norm's input, plus `beside`, what comes past the layer norm.

    Returns:
        (3, C): gradients of gain and shift, and the sum over rows of what dy became.
    """
    N, C = x.shape
    sums = x.new_empty(_tasks(N), ROW_SUMS * C)
    _norm_backward(N, C, *(tensor.data_ptr() for tensor in (dy, x, stats, gain, beside, sums)))
    return sums.sum(0).view(ROW_SUMS, C)


@Loop
def _gelu(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 5)
    N, C = d[2], d[3]
    bias = floats(d[5], C)
    half, one, root = np.float32(0.5), np.float32(1.0), np.float32(math.sqrt(0.5))
    density = np.float32(1 / math.sqrt(2 * math.pi))
    while True:
        first = claim(address) * ROWS_A_TASK
        if first >= N:
            return
        for n in range(first, min(first + ROWS_A_TASK, N)):
            u, y = floats(d[4] + 4 * n * C, C), floats(d[6] + 4 * n * C, C)
            for c in range(C):
                v = u[c] + bias[c]
                share = half * (one + error_function(v * root))
                y[c] = v * share
                u[c] = share + v * density * exponential(np.float32(-0.5) * v * v)


def gelu(u: Tensor, bias: Tensor) -> Tensor:
    """GELU (by erf) of u + bias, (N, F); u becomes its derivative there."""
    y = torch.empty_like(u)
    _gelu(*u.shape, u.data_ptr(), bias.data_ptr(), y.data_ptr())
    return y


@Loop
def _times(address):  # pragma: no cover - compiled
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
            dy, slope = floats(d[4] + 4 * n * C, C), floats(d[5] + 4 * n * C, C)
            for c in range(C):
                value = dy[c] * slope[c]
                dy[c] = value
                sums[c] += value


def gelu_backward(dy: Tensor, slope: Tensor) -> Tensor:
    """dy (N, F) becomes the gradient of `gelu`'s input; returns its sum over rows (F,), the gradient of the bias."""
    N, F = dy.shape
    sums = dy.new_empty(_tasks(N), F)
    _times(N, F, dy.data_ptr(), slope.data_ptr(), sums.data_ptr())
    return sums.sum(0)


@Loop
def _softmax(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 9)
    N, columns, real, stride, gradients = d[2], d[3], d[4], d[5], d[6]
    targets, weights, losses = integers(d[8], N), floats(d[9], N), floats(d[10], N)
    while True:
        n = claim(address)
        if n >= N:
            return
        x, weight = floats(d[7] + 4 * n * stride, real), weights[n]
        largest = x[0]
        for c in range(real):
            largest = max(largest, x[c])
        target = targets[n]
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
        logits: (N, V), rows contiguous, at any stride.
        targets: (N,) int64, below `real`.
        weights, losses: (N,).
        real: entries from here on are padding: no probability, gradient 0.
    """
    N, V = logits.shape
    places = (logits.data_ptr(), targets.data_ptr(), weights.data_ptr(), losses.data_ptr())
    _softmax(N, V, real, logits.stride(0), int(gradients), *places)
