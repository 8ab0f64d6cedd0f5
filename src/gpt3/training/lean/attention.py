"""Causal attention on heads as the projection lays them out, forward and backward, over the keys that a band leaves.

Queries are taken `block` at a time, of one head of one sequence: their scores over all the keys any of them sees are in the cache
together. So each row's softmax is whole, and keys out of reach cost nothing. Heads stored in bfloat16 are widened once and all is
computed in float32, where half_attention.py does not fit. B sequences of T tokens, H heads of width D.
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
from gpt3.training.lean import half_attention
from gpt3.training.lean.threads import COUNTERS, Loop, scratch
from gpt3.training.lean.tiles import claim, floats, integers, load, narrow, product, widen

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
def _transpose(source, stride, target, T, D, padded, half, buffer):
    """target (D, padded) float32 = source (T, D)^T, the rest 0; both are addresses, `stride` is of source's rows in numbers."""
    for t in range(T):
        row = floats(load(source, t * stride, D, half, buffer), D)
        for i in range(D):
            floats(target + 4 * (i * padded + t), 1)[0] = row[i]
    for i in range(D):
        rest = floats(target + 4 * (i * padded + T), padded - T)
        for t in range(padded - T):
            rest[t] = np.float32(0.0)


@register_jitable(fastmath=True)
def _widen_rows(source, stride, target, rows, D):
    """target (rows, D) float32 = source in bfloat16, whose rows are `stride` numbers apart."""
    for t in range(rows):
        widen(source + 2 * t * stride, target + 4 * t * D, D)


@register_jitable(fastmath=True)
def _narrow_rows(source, target, stride, rows, D):
    """target in bfloat16, whose rows are `stride` numbers apart, = source (rows, D) float32."""
    for t in range(rows):
        narrow(source + 4 * t * D, target + 2 * t * stride, D)


@register_jitable(fastmath=True)
def _forward_memory(T, D, block, padded, half):
    """Floats of a thread's own memory."""
    return (D + block) * padded + (T + block) * D * half


@register_jitable(fastmath=True)
def _backward_memory(T, D, block, padded, half):
    """Floats of a thread's own memory."""
    return 2 * (D + block) * padded + (3 * T + 4 * block) * D * half


@Loop
def _forward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 13)
    B, T, H, D, window, block, padded = d[2], d[3], d[4], d[5], d[6], d[7], d[8]
    scale, half = floats(d[9], 1)[0], d[13]
    memory = d[14] + 4 * claim(address + 8) * _forward_memory(T, D, block, padded, half)
    scores = memory + 4 * D * padded
    wide = scores + 4 * block * padded  # of half: values (T, D), queries and outputs (block, D)
    width, size = H * D, 2 if half != 0 else 4
    stride = D if half != 0 else 3 * width
    while True:
        task = claim(address)
        if task >= B * H:
            return
        b, head = task // H, task % H
        query = d[10] + size * (b * T * 3 * width + head * D)
        key, value = query + size * width, query + 2 * size * width
        _transpose(key, 3 * width, memory, T, D, padded, half, scores)
        if half != 0:
            _widen_rows(value, 3 * width, wide, T, D)
            value = wide
        for first in range(0, T, block):
            last = min(first + block, T)
            low = max(0, first - window + 1) // STEP * STEP
            count = (last - low + STEP - 1) // STEP * STEP
            queries = query + 3 * size * first * width
            if half != 0:
                _widen_rows(queries, 3 * width, wide + 4 * T * D, last - first, D)
                queries = wide + 4 * T * D
            product(queries, stride, 1, memory + 4 * low, padded, scores, padded, last - first, count, D, 0)
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
            out = d[11] + size * ((b * T + first) * width + head * D)
            values, rows = value + 4 * low * stride, last - first
            if half != 0:
                product(scores, padded, 1, values, stride, queries, D, rows, D, last - low, 0)
                _narrow_rows(queries, out, width, rows, D)
            else:
                product(scores, padded, 1, values, stride, out, width, rows, D, last - low, 0)


def attention(qkv: Tensor, heads: int, window: int) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(D)) v over the last `window` keys.

    Args:
        qkv: (B, T, 3 H D) float32 or bfloat16, contiguous.
        window: keys a query sees, itself included; T or more: all.

    Returns:
        (B, T, H D) in qkv's dtype, and the logarithm of each softmax's sum (B, H, T) float32.
    """
    if qkv.dtype == torch.bfloat16 and half_attention.fits(qkv.shape[2] // 3 // heads):
        return half_attention.attention(qkv, heads, window)
    B, T, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D, block, padded = width // heads, query_block(min(window, T)), _padded(T)
    half = int(qkv.dtype == torch.bfloat16)
    output, sums = qkv.new_empty(B, T, width), torch.empty(B, heads, T)
    scale, memory = torch.tensor(D**-0.5), scratch(_forward_memory(T, D, block, padded, half))
    places = (scale.data_ptr(), qkv.data_ptr(), output.data_ptr(), sums.data_ptr())
    _forward(B, T, heads, D, window, block, padded, *places, half, memory.data_ptr())
    return output, sums


@Loop
def _backward(address):  # pragma: no cover - compiled
    d = integers(address, COUNTERS + 15)
    B, T, H, D, window, block, padded = d[2], d[3], d[4], d[5], d[6], d[7], d[8]
    scale, half = floats(d[9], 1)[0], d[15]
    memory = d[16] + 4 * claim(address + 8) * _backward_memory(T, D, block, padded, half)
    values, scores = memory + 4 * D * padded, memory + 8 * D * padded
    slopes = scores + 4 * block * padded
    # of half: keys and both their gradients (T, D), then queries, their gradient, outputs and theirs (block, D)
    wide = slopes + 4 * block * padded
    few = wide + 12 * T * D
    width, size = H * D, 2 if half != 0 else 4
    stride, head_stride = (D, D) if half != 0 else (3 * width, width)
    while True:
        task = claim(address)
        if task >= B * H:
            return
        b, head = task // H, task % H
        offset = size * (b * T * 3 * width + head * D)
        query, grad_query = d[10] + offset, d[14] + offset
        key, value = query + size * width, query + 2 * size * width
        grad_key, grad_value = grad_query + size * width, grad_query + 2 * size * width
        into_key, into_value = grad_key, grad_value
        _transpose(key, 3 * width, memory, T, D, padded, half, scores)
        _transpose(value, 3 * width, values, T, D, padded, half, scores)
        if half != 0:
            _widen_rows(key, 3 * width, wide, T, D)
            key, into_key, into_value = wide, wide + 4 * T * D, wide + 8 * T * D
        for t in range(T):
            of_key, of_value = floats(into_key + 4 * t * stride, D), floats(into_value + 4 * t * stride, D)
            for i in range(D):
                of_key[i] = np.float32(0.0)
                of_value[i] = np.float32(0.0)
        for first in range(0, T, block):
            last = min(first + block, T)
            rows = last - first
            low = max(0, first - window + 1) // STEP * STEP
            keys = last - low
            count = (keys + STEP - 1) // STEP * STEP
            head_rows = size * ((b * T + first) * width + head * D)
            output, grad_output = d[11] + head_rows, d[13] + head_rows
            queries, into_query = query + 3 * size * first * width, grad_query + 3 * size * first * width
            if half != 0:
                _widen_rows(queries, 3 * width, few, rows, D)
                _widen_rows(output, width, few + 8 * block * D, rows, D)
                _widen_rows(grad_output, width, few + 12 * block * D, rows, D)
                queries, output, grad_output = few, few + 8 * block * D, few + 12 * block * D
                into_query = few + 4 * block * D
            product(queries, stride, 1, memory + 4 * low, padded, scores, padded, rows, count, D, 0)
            product(grad_output, head_stride, 1, values + 4 * low, padded, slopes, padded, rows, count, D, 0)
            for t in range(first, last):
                begin, end = max(0, t - window + 1) - low, t + 1 - low
                place = 4 * (t - first) * padded
                line, slope = floats(scores + place, count), floats(slopes + place, count)
                of_output = floats(grad_output + 4 * (t - first) * head_stride, D)
                outcome = floats(output + 4 * (t - first) * head_stride, D)
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
            product(slopes, padded, 1, key + 4 * low * stride, stride, into_query, stride, rows, D, keys, 0)
            of_values, of_keys = into_value + 4 * low * stride, into_key + 4 * low * stride
            product(scores, 1, padded, grad_output, head_stride, of_values, stride, keys, D, rows, 1)
            product(slopes, 1, padded, queries, stride, of_keys, stride, keys, D, rows, 1)
            if half != 0:
                _narrow_rows(into_query, grad_query + 6 * first * width, 3 * width, rows, D)
        if half != 0:
            _narrow_rows(into_key, grad_key, 3 * width, T, D)
            _narrow_rows(into_value, grad_value, 3 * width, T, D)


def attention_backward(
    qkv: Tensor, output: Tensor, sums: Tensor, grad_output: Tensor, heads: int, window: int
) -> Tensor:
    """The gradient of `attention`'s qkv, (B, T, 3 H D), from what it returned and the gradient of its output."""
    if qkv.dtype == torch.bfloat16 and half_attention.fits(qkv.shape[2] // 3 // heads):
        return half_attention.attention_backward(qkv, output, sums, grad_output, heads, window)
    B, T, width = output.shape
    D, block, padded = width // heads, query_block(min(window, T)), _padded(T)
    half = int(qkv.dtype == torch.bfloat16)
    grad, scale, memory = (
        torch.empty_like(qkv), torch.tensor(D**-0.5), scratch(_backward_memory(T, D, block, padded, half))
    )  # fmt: skip
    places = [tensor.data_ptr() for tensor in (scale, qkv, output, sums, grad_output, grad)]
    _backward(B, T, heads, D, window, block, padded, *places, half, memory.data_ptr())
    return grad
