"""Causal attention on heads as the projection lays them out, forward and backward, over the keys that a band leaves.

Queries are taken `block` at a time, of one head of one sequence: their scores over all the keys any of them sees are in the cache
together. So each row's softmax is whole, and keys out of reach cost nothing. B sequences of T tokens, H heads of width D.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math

import numpy as np
import torch
from numba.extending import register_jitable
from torch import Tensor

from gpt3.inference.activations import exponential
from gpt3.inference.microkernel import LANES
from gpt3.training.lean.threads import COUNTERS, Loop, scratch
from gpt3.training.lean.tiles import claim, floats, integers, product

LEAST_BLOCK, LARGEST_BLOCK = 16, 64
STEP = 2 * LANES
"""Keys are taken in multiples of it: a tile's width."""


def query_block(window: int) -> int:
    """Queries taken at once: with a narrow band few, or most keys would be out of reach of most of them."""
    return min(max(window // 2, LEAST_BLOCK), LARGEST_BLOCK)


def _padded(T: int) -> int:
    """Keys of a row of scores: a whole number of steps, and one more, so that rows begin in different cache sets."""
    return -(-T // STEP) * STEP + STEP


@register_jitable(fastmath=True)
def _transpose(source, stride, target, T, D, padded):
    """target (D, padded) = source (T, D)^T, the rest 0; both are addresses, `stride` is of source's rows in floats."""
    for t in range(T):
        row = floats(source + 4 * t * stride, D)
        for i in range(D):
            floats(target + 4 * (i * padded + t), 1)[0] = row[i]
    for i in range(D):
        rest = floats(target + 4 * (i * padded + T), padded - T)
        for t in range(padded - T):
            rest[t] = np.float32(0.0)


@Loop
def _forward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 12)
    B, T, H, D, window, block, padded = d[2], d[3], d[4], d[5], d[6], d[7], d[8]
    scale = floats(d[9], 1)[0]
    memory = d[13] + 4 * claim(address + 8) * (D + block) * padded
    scores = memory + 4 * D * padded
    width = H * D
    while True:
        task = claim(address)
        if task >= B * H:
            return
        b, head = task // H, task % H
        query = d[10] + 4 * (b * T * 3 * width + head * D)
        key, value = query + 4 * width, query + 8 * width
        _transpose(key, 3 * width, memory, T, D, padded)
        for first in range(0, T, block):
            last = min(first + block, T)
            low = max(0, first - window + 1) // STEP * STEP
            count = (last - low + STEP - 1) // STEP * STEP
            queries = query + 12 * first * width
            product(queries, 3 * width, 1, memory + 4 * low, padded, scores, padded, last - first, count, D, 0)
            for t in range(first, last):
                line = floats(scores + 4 * (t - first) * padded, count)
                begin, end = max(0, t - window + 1) - low, t + 1 - low
                largest = line[begin]
                for j in range(begin, end):
                    largest = max(largest, line[j])
                for j in range(begin):
                    line[j] = np.float32(0.0)
                total = np.float32(0.0)
                seen = floats(scores + 4 * ((t - first) * padded + begin), end - begin)
                for j in range(end - begin):
                    power = exponential((seen[j] - largest) * scale)
                    seen[j] = power
                    total += power
                inverse = np.float32(1.0) / total
                for j in range(end - begin):
                    seen[j] *= inverse
                for j in range(end, count):
                    line[j] = np.float32(0.0)
                floats(d[12] + 4 * (task * T + t), 1)[0] = largest * scale + np.float32(math.log(total))
            out = d[11] + 4 * ((b * T + first) * width + head * D)
            product(scores, padded, 1, value + 12 * low * width, 3 * width, out, width, last - first, D, last - low, 0)


def attention(qkv: Tensor, heads: int, window: int) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D)) v over the last `window` keys.

    Args:
        qkv: (B, T, 3 H D) float32, contiguous.
        window: keys a query sees, itself included; T or more: all.

    Returns:
        (B, T, H D), and the logarithm of each softmax's sum (B, H, T).
    """
    B, T, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D, block, padded = width // heads, query_block(min(window, T)), _padded(T)
    output, sums = qkv.new_empty(B, T, width), qkv.new_empty(B, heads, T)
    scale, memory = qkv.new_tensor(D**-0.5), scratch((D + block) * padded)
    places = (scale.data_ptr(), qkv.data_ptr(), output.data_ptr(), sums.data_ptr())
    _forward(B, T, heads, D, window, block, padded, *places, memory.data_ptr())
    return output, sums


@Loop
def _backward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 14)
    B, T, H, D, window, block, padded = d[2], d[3], d[4], d[5], d[6], d[7], d[8]
    scale = floats(d[9], 1)[0]
    memory = d[15] + 4 * claim(address + 8) * (2 * D + 2 * block) * padded
    values, scores = memory + 4 * D * padded, memory + 8 * D * padded
    slopes = scores + 4 * block * padded
    width = H * D
    while True:
        task = claim(address)
        if task >= B * H:
            return
        b, head = task // H, task % H
        offset = 4 * (b * T * 3 * width + head * D)
        query, grad_query = d[10] + offset, d[14] + offset
        key, value = query + 4 * width, query + 8 * width
        grad_key, grad_value = grad_query + 4 * width, grad_query + 8 * width
        _transpose(key, 3 * width, memory, T, D, padded)
        _transpose(value, 3 * width, values, T, D, padded)
        for t in range(T):
            of_key, of_value = floats(grad_key + 12 * t * width, D), floats(grad_value + 12 * t * width, D)
            for i in range(D):
                of_key[i] = np.float32(0.0)
                of_value[i] = np.float32(0.0)
        for first in range(0, T, block):
            last = min(first + block, T)
            rows = last - first
            low = max(0, first - window + 1) // STEP * STEP
            keys = last - low
            count = (keys + STEP - 1) // STEP * STEP
            head_rows = 4 * ((b * T + first) * width + head * D)
            output, grad_output = d[11] + head_rows, d[13] + head_rows
            queries = query + 12 * first * width
            product(queries, 3 * width, 1, memory + 4 * low, padded, scores, padded, rows, count, D, 0)
            product(grad_output, width, 1, values + 4 * low, padded, slopes, padded, rows, count, D, 0)
            for t in range(first, last):
                begin, end = max(0, t - window + 1) - low, t + 1 - low
                place = 4 * (t - first) * padded
                line, slope = floats(scores + place, count), floats(slopes + place, count)
                of_output = floats(grad_output + 4 * (t - first) * width, D)
                outcome = floats(output + 4 * (t - first) * width, D)
                along = np.float32(0.0)
                for i in range(D):
                    along += of_output[i] * outcome[i]
                total = floats(d[12] + 4 * (task * T + t), 1)[0]
                for j in range(begin):
                    line[j] = np.float32(0.0)
                    slope[j] = np.float32(0.0)
                seen = floats(scores + place + 4 * begin, end - begin)
                slant = floats(slopes + place + 4 * begin, end - begin)
                for j in range(end - begin):
                    share = exponential(seen[j] * scale - total)
                    seen[j] = share
                    slant[j] = share * (slant[j] - along) * scale
                for j in range(end, count):
                    line[j] = np.float32(0.0)
                    slope[j] = np.float32(0.0)
            keys_from, target = key + 12 * low * width, grad_query + 12 * first * width
            product(slopes, padded, 1, keys_from, 3 * width, target, 3 * width, rows, D, keys, 0)
            product(scores, 1, padded, grad_output, width, grad_value + 12 * low * width, 3 * width, keys, D, rows, 1)
            product(slopes, 1, padded, queries, 3 * width, grad_key + 12 * low * width, 3 * width, keys, D, rows, 1)


def attention_backward(
    qkv: Tensor, output: Tensor, sums: Tensor, grad_output: Tensor, heads: int, window: int
) -> Tensor:
    """The gradient of `attention`'s qkv, (B, T, 3 H D), from what it returned and the gradient of its output."""
    B, T, width = output.shape
    D, block, padded = width // heads, query_block(min(window, T)), _padded(T)
    grad, scale, memory = torch.empty_like(qkv), qkv.new_tensor(D**-0.5), scratch(2 * (D + block) * padded)
    tensors = (scale, qkv, output, sums, grad_output, grad)
    places = [tensor.data_ptr() for tensor in tensors]
    _backward(B, T, heads, D, window, block, padded, *places, memory.data_ptr())
    return grad
