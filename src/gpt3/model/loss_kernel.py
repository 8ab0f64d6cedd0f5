"""The softmax of the vocabulary loss on a CPU, its losses and its gradient in three passes over a row that stays in the cache.

torch needs eight such passes (largest, softmax of three, largest again, weight, gather, scatter). Compiled by numba for the
machine it runs on, at the first use; loss.py takes it where it is here and pays, and its own torch operators elsewhere.
A row is computed by one thread in a fixed order, so that results do not depend on the number of threads.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math
import threading

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

_LOG2_E = np.float32(math.log2(math.e))
_EXP2 = tuple(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(8))  # 2^f = sum of c_k f^k, |f| <= 1/2
_SMALLEST = np.float32(-126.0)
"""Of the powers of two: below it float32 is no longer normal. e^x is then 1e-38 in place of less."""
_EXACT = {"reassoc", "contract", "nsz"}
"""What may be reordered: sums. A nan or an infinite logit must come out as a nan, which the trainer looks for."""
_one_at_a_time = threading.Lock()  # numba's simplest thread pool, where there is no OpenMP, bears one caller


@njit(inline="always")
def _exp(x):
    """e^x for float32 x <= 0, to about 1e-7 of it times 1 + |x|; nan of nan."""
    t = x * _LOG2_E
    t = _SMALLEST if t < _SMALLEST else t  # nan stays
    whole = np.floor(t + np.float32(0.5))
    f = t - whole
    p = _EXP2[7]
    p = p * f + _EXP2[6]
    p = p * f + _EXP2[5]
    p = p * f + _EXP2[4]
    p = p * f + _EXP2[3]
    p = p * f + _EXP2[2]
    p = p * f + _EXP2[1]
    p = p * f + _EXP2[0]
    return p * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _largest(line):
    """The largest of (V,) float32. Compared as integers in the same order, which makes a vector instruction of it."""
    largest = np.int32(-(2**31))
    for c in range(line.shape[0]):
        bits = np.float32(line[c]).view(np.int32)
        largest = max(largest, np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF)))
    return np.int32(largest ^ ((largest >> 31) & 0x7FFFFFFF)).view(np.float32)


@njit(fastmath=_EXACT, nogil=True, cache=True, error_model="numpy")
def _exponentials(line, largest):
    """line = e^(line - largest), (V,) float32; returns the sum. In place: of two arrays that may overlap no vectors are made."""
    total = np.float32(0.0)
    for c in range(line.shape[0]):
        e = _exp(line[c] - largest)
        line[c] = e
        total += e
    return total


@njit(fastmath=_EXACT, nogil=True, cache=True, error_model="numpy")
def _widen(bits, out):
    """out = the bfloat16 numbers of which `bits`, uint16, are the bits."""
    for c in range(bits.shape[0]):
        out[c] = np.int32(np.int32(bits[c]) << 16).view(np.float32)


@njit(fastmath=_EXACT, nogil=True, cache=True, error_model="numpy")
def _narrow(line, factor, bits):
    """bits = line * factor in bfloat16, rounded to even."""
    for c in range(line.shape[0]):
        b = np.float32(line[c] * factor).view(np.uint32)
        rounded = np.uint32(b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1)))
        bits[c] = np.uint16(rounded >> np.uint32(16))


@njit(parallel=True, fastmath=_EXACT, nogil=True, cache=True, error_model="numpy")
def _rows_float32(logits, real, targets, scale, losses, gradients):
    for r in prange(logits.shape[0]):
        line = logits[r][:real]
        largest, at_target, weight = _largest(line), line[targets[r]], scale[r]
        total = _exponentials(line, largest)
        losses[r] = (np.log(total) + largest - at_target) * weight
        if gradients:
            factor = weight / total
            for c in range(real):
                line[c] *= factor
            line[targets[r]] -= weight
            logits[r][real:] = np.float32(0.0)


@njit(parallel=True, fastmath=_EXACT, nogil=True, cache=True, error_model="numpy")
def _rows_bfloat16(logits, real, targets, scale, losses, gradients, scratch):
    threads = scratch.shape[0]
    for thread in prange(threads):
        line = scratch[thread][:real]
        for r in range(logits.shape[0] * thread // threads, logits.shape[0] * (thread + 1) // threads):
            bits = logits[r][:real]
            _widen(bits, line)
            largest, at_target, weight = _largest(line), line[targets[r]], scale[r]
            total = _exponentials(line, largest)
            losses[r] = (np.log(total) + largest - at_target) * weight
            if gradients:
                line[targets[r]] -= total
                _narrow(line, weight / total, bits)
                logits[r][real:] = np.uint16(0)


def softmax_minus_one_hot(
    logits: Tensor, real: int, targets: Tensor, scale: Tensor, losses: Tensor, gradients: bool
) -> None:
    """Each row's loss, and its gradient by the logits in their place; all tensors on the CPU, rows contiguous.

    Args:
        logits: (N, V or more), float32 or bfloat16; overwritten.
        real: V, columns that count; those from there on get gradient 0.
        targets: (N,) int64, ids below `real`.
        scale: (N,) float32, what each row's loss and gradient are multiplied by.
        losses: (N,) float32, written.
        gradients: whether they are wanted; without them `logits` is left in no useful state.
    """
    threads = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    arrays = targets.contiguous().numpy(), scale.contiguous().numpy(), losses.numpy()
    with _one_at_a_time:
        numba.set_num_threads(threads)
        if logits.dtype == torch.float32:
            _rows_float32(logits.numpy(), real, *arrays, gradients)
        else:
            bits = logits.view(torch.uint16).numpy()
            _rows_bfloat16(bits, real, *arrays, gradients, np.empty((threads, logits.shape[1]), np.float32))
