"""Activation functions inside compiled loops: exponential and error function as polynomials that LLVM puts into vectors.

Every polynomial step is one fused multiply-add that the code states. So a number has the same bits in a vector and in the rest
behind it, in any loop that these functions are compiled into.
"""

# numba compiles these functions: types are in the docstrings, and loops are plain loops.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, types
from numpy.polynomial import chebyshev

from gpt3.inference.arrays import Array
from gpt3.inference.microkernel import float_of_bits, fused

ACTIVATIONS = {"gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3, "silu": 4, "swish": 4}
"""Activation functions known here, by transformers' names."""
# plain ints in here would be types: `linear` compiled once more
NONE, GELU, GELU_TANH, RELU, SILU = map(np.int64, range(5))


# erf(y) = y g(y^2), g smooth: a polynomial of degree 15 in u = y^2 / 8 - 1, for y in [-4, 4], where its coefficients are small.
ERF_LIMIT = 4.0


def _erf_over_y(u: Array) -> Array:
    z = 8.0 * u + 8.0
    return np.array([math.erf(math.sqrt(x)) / math.sqrt(x) for x in z])


_ERF_SERIES: Any = chebyshev.chebinterpolate(_erf_over_y, 15)
ERF = tuple(np.float32(c) for c in chebyshev.cheb2poly(_ERF_SERIES))
LOG2_E = np.float32(math.log2(math.e))
EXP2 = tuple(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(8))  # 2^f = sum of c_k f^k


@njit(inline="always", fastmath=False, error_model="numpy")
def exponential(x):
    """e^x for float32 x up to 88, to about 1e-7 of it times |x|."""
    t = max(x, np.float32(-87.0)) * LOG2_E
    whole = np.floor(t + np.float32(0.5))
    f = t - whole
    p = fused(EXP2[7], f, EXP2[6])
    p = fused(p, f, EXP2[5])
    p = fused(p, f, EXP2[4])
    p = fused(p, f, EXP2[3])
    p = fused(p, f, EXP2[2])
    p = fused(p, f, EXP2[1])
    p = fused(p, f, EXP2[0])
    return p * float_of_bits((types.int32(whole) + types.int32(127)) << types.int32(23))


@njit(inline="always", fastmath=False, error_model="numpy")
def error_function(x):
    """erf(x) for float32 x, to about 1e-7."""
    y = min(max(x, np.float32(-ERF_LIMIT)), np.float32(ERF_LIMIT))
    u = fused(y * y, np.float32(0.125), np.float32(-1.0))
    p = fused(ERF[15], u, ERF[14])  # written out: a loop in here would keep the loop around it from being vectorized
    p = fused(p, u, ERF[13])
    p = fused(p, u, ERF[12])
    p = fused(p, u, ERF[11])
    p = fused(p, u, ERF[10])
    p = fused(p, u, ERF[9])
    p = fused(p, u, ERF[8])
    p = fused(p, u, ERF[7])
    p = fused(p, u, ERF[6])
    p = fused(p, u, ERF[5])
    p = fused(p, u, ERF[4])
    p = fused(p, u, ERF[3])
    p = fused(p, u, ERF[2])
    p = fused(p, u, ERF[1])
    p = fused(p, u, ERF[0])
    return y * p


@njit(inline="always", fastmath=False, error_model="numpy")
def finish(line, scale, bias, activation):
    """line = activation(line * scale + bias), in place. The indices begin at 0, or LLVM would not vectorize.

    Args:
        line, scale, bias: (n,) float32.
        activation: a value of ACTIVATIONS, or NONE.
    """
    half, one = np.float32(0.5), np.float32(1.0)
    if activation == NONE:
        for r in range(line.shape[0]):
            line[r] = fused(line[r], scale[r], bias[r])
    elif activation == GELU:
        for r in range(line.shape[0]):
            v = fused(line[r], scale[r], bias[r])
            line[r] = half * v * (one + error_function(v * np.float32(math.sqrt(0.5))))
    elif activation == GELU_TANH:
        for r in range(line.shape[0]):
            v = fused(line[r], scale[r], bias[r])
            u = np.float32(2 * math.sqrt(2 / math.pi)) * fused(np.float32(0.044715) * v * v, v, v)
            line[r] = v * (one - one / (exponential(min(u, np.float32(80.0))) + one))
    elif activation == RELU:
        for r in range(line.shape[0]):
            line[r] = max(fused(line[r], scale[r], bias[r]), np.float32(0.0))
    else:
        for r in range(line.shape[0]):
            v = fused(line[r], scale[r], bias[r])
            line[r] = v / (one + exponential(min(-v, np.float32(80.0))))
