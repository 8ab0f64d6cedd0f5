"""Rows of numbers in vectors written out for LLVM, which on its own uses half of AVX-512's width, and none for a maximum.

An intrinsic takes addresses (int64), and counts that are multiples of LANES. A formula is a Python function of LLVM vectors.
"""

# numba calls these generators with LLVM builders, which have no types mypy knows
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt3.inference.activations import ERF, ERF_LIMIT, EXP2, LOG2_E
from gpt3.inference.microkernel import I64, LANES, VECTOR, broadcast, fma, sum_of_lanes

WORDS, HALVES = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.IntType(16), LANES)
LEAST = -87.0
"""The exponential of less is 0."""
SHIFT, SHIFT_BITS = 1.5 * 2**23, 0x4B400000


def constant(value: float) -> Any:
    """A vector of one float32."""
    return ir.Constant(VECTOR, [float(value)] * LANES)


def words(value: int) -> Any:
    """A vector of one int32."""
    return ir.Constant(WORDS, [value] * LANES)


def larger(builder: Any, a: Any, b: Any) -> Any:
    """The larger of each pair; a where one is NaN."""
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


def smaller(builder: Any, a: Any, b: Any) -> Any:
    """The smaller of each pair; a where one is NaN."""
    return builder.select(builder.fcmp_ordered(">", a, b), b, a)


def polynomial(builder: Any, coefficients: Any, x: Any) -> Any:
    """The sum of coefficients[k] x^k, by fused multiply-adds."""
    total = constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = fma(builder, total, x, constant(coefficient))
    return total


def exponential(builder: Any, x: Any) -> Any:
    """e^x for x up to 88, to about 2e-7 of it; 0 for less than LEAST.

    Adding SHIFT rounds to an integer, which is then in the lowest bits. It is taken out as an integer, because numba lets LLVM
    reorder sums of floats.
    """
    t = builder.fmul(larger(builder, x, constant(LEAST)), constant(LOG2_E))
    whole = builder.sub(builder.bitcast(builder.fadd(t, constant(SHIFT)), WORDS), words(SHIFT_BITS))
    power = polynomial(builder, EXP2[:7], builder.fsub(t, builder.sitofp(whole, VECTOR)))
    bits = builder.shl(builder.add(whole, words(127)), words(23))
    found = builder.fmul(power, builder.bitcast(bits, VECTOR))
    return builder.select(builder.fcmp_ordered("<", x, constant(LEAST)), constant(0.0), found)


def error_function(builder: Any, x: Any) -> Any:
    """As gpt3.inference.activations has it."""
    y = smaller(builder, larger(builder, x, constant(-ERF_LIMIT)), constant(ERF_LIMIT))
    u = fma(builder, builder.fmul(y, y), constant(0.125), constant(-1.0))
    return builder.fmul(y, polynomial(builder, ERF, u))


def at(builder: Any, address: Any, index: Any, size: int, kind: Any) -> Any:
    """A pointer to what is `index` numbers of `size` bytes behind an address."""
    return builder.inttoptr(builder.add(address, builder.mul(index, ir.Constant(I64, size))), kind.as_pointer())


def load_floats(builder: Any, address: Any, index: Any) -> Any:
    """A vector of float32."""
    return builder.load(at(builder, address, index, 4, VECTOR), align=4)


def load_halves(builder: Any, address: Any, index: Any) -> Any:
    """A vector of bfloat16, widened."""
    bits = builder.zext(builder.load(at(builder, address, index, 2, HALVES), align=2), WORDS)
    return builder.bitcast(builder.shl(bits, words(16)), VECTOR)


def rounded(builder: Any, value: Any) -> Any:
    """The bits of a vector rounded to bfloat16, to the nearest, of two to the even one, in the upper half of int32."""
    bits = builder.bitcast(value, WORDS)
    last = builder.and_(builder.lshr(bits, words(16)), words(1))
    return builder.add(builder.add(bits, words(0x7FFF)), last)


def store_halves(builder: Any, value: Any, address: Any, index: Any) -> None:
    """Round a vector to bfloat16, into memory."""
    narrow = builder.trunc(builder.lshr(rounded(builder, value), words(16)), HALVES)
    builder.store(narrow, at(builder, address, index, 2, HALVES), align=2)


@contextlib.contextmanager
def each_vector(builder: Any, count: Any) -> Iterator[Any]:
    """A loop over indices 0, LANES, ... below count."""
    zero, step = ir.Constant(I64, 0), ir.Constant(I64, LANES)
    with cgutils.for_range_slice(builder, zero, count, step, I64) as (index, _):
        yield index


def _variable(builder: Any, value: Any) -> Any:
    return cgutils.alloca_once_value(builder, value)


def _largest(load: Any) -> Any:
    """A numba function (source, count): the largest number there, as float32; -3e38 of none, and NaN may be left out."""

    @intrinsic
    def compute(typing_context, source, count):
        def generate(context, builder, signature, arguments):
            source, count = arguments
            most = _variable(builder, constant(-3e38))
            with each_vector(builder, count) as index:
                builder.store(larger(builder, load(builder, source, index), builder.load(most)), most)
            vector = builder.load(most)
            found = builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))
            for lane in range(1, LANES):
                other = builder.extract_element(vector, ir.Constant(ir.IntType(32), lane))
                found = builder.select(builder.fcmp_ordered("<", found, other), other, found)
            return found

        return types.float32(types.int64, types.int64), generate

    return compute


largest_float, largest_half = _largest(load_floats), _largest(load_halves)


@intrinsic
def sum_of_exponentials(typing_context, source, count, shift):
    """The sum of e^(x - shift) over `count` bfloat16 numbers x."""

    def generate(context, builder, signature, arguments):
        source, count, shift = arguments
        total, less = _variable(builder, constant(0.0)), broadcast(builder, shift)
        with each_vector(builder, count) as index:
            power = exponential(builder, builder.fsub(load_halves(builder, source, index), less))
            builder.store(builder.fadd(builder.load(total), power), total)
        return sum_of_lanes(builder, builder.load(total))

    return types.float32(types.int64, types.int64, types.float32), generate


@intrinsic
def exponentials_in_place(typing_context, source, count, shift, scale):
    """Each of `count` bfloat16 numbers x becomes e^(x - shift) scale."""

    def generate(context, builder, signature, arguments):
        source, count, shift, scale = arguments
        less, factor = broadcast(builder, shift), broadcast(builder, scale)
        with each_vector(builder, count) as index:
            power = exponential(builder, builder.fsub(load_halves(builder, source, index), less))
            store_halves(builder, builder.fmul(power, factor), source, index)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.float32), generate


@intrinsic
def gelu_half(typing_context, u, bias, y, count):
    """y = GELU (by erf) of u + bias, and u becomes its derivative there: u and y bfloat16, bias float32."""

    def generate(context, builder, signature, arguments):
        u, bias, y, count = arguments
        with each_vector(builder, count) as index:
            v = builder.fadd(load_halves(builder, u, index), load_floats(builder, bias, index))
            error = error_function(builder, builder.fmul(v, constant(math.sqrt(0.5))))
            share = fma(builder, error, constant(0.5), constant(0.5))
            density = exponential(builder, builder.fmul(builder.fmul(v, v), constant(-0.5)))
            scaled = builder.fmul(v, constant(1 / math.sqrt(2 * math.pi)))
            store_halves(builder, builder.fmul(v, share), y, index)
            store_halves(builder, fma(builder, scaled, density, share), u, index)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def exponentials_of_row(typing_context, source, target, count, shift, scale):
    """target = e^((x - shift) scale) in bfloat16 of `count` float32 numbers x; returns their sum, before they are rounded."""

    def generate(context, builder, signature, arguments):
        source, target, count, shift, scale = arguments
        total, less, factor = _variable(builder, constant(0.0)), broadcast(builder, shift), broadcast(builder, scale)
        with each_vector(builder, count) as index:
            x = builder.fsub(load_floats(builder, source, index), less)
            power = exponential(builder, builder.fmul(x, factor))
            builder.store(builder.fadd(builder.load(total), power), total)
            store_halves(builder, power, target, index)
        return sum_of_lanes(builder, builder.load(total))

    return types.float32(*[types.int64] * 3, types.float32, types.float32), generate


@intrinsic
def slopes_of_pair(typing_context, scores, slopes, row, count, numbers, scale, shares, grads, lines):
    """What backward needs of two neighboring rows of attention's scores, whose gradients by their shares are `slopes`.

    Args:
        scores, slopes: addresses of `count` float32 numbers of the first row; `row` floats on is the second.
        numbers: address of four float32: of each row the logarithm of the softmax's sum, then of each the sum of its shares times
            `slopes`.
        shares, grads: (count,) pairs: of both rows the shares, e^(scores scale - logarithm), and the scores' gradients.
        lines: (count,) bfloat16: the first row's gradients; `row` on the second's.
    """

    def generate(context, builder, signature, arguments):
        scores, slopes, row, count, numbers, scale, shares, grads, lines = arguments
        factor = broadcast(builder, scale)
        each = [
            broadcast(builder, builder.load(at(builder, numbers, ir.Constant(I64, k), 4, ir.FloatType()), align=4))
            for k in range(4)
        ]
        with each_vector(builder, count) as index:
            bits: list[tuple[Any, Any]] = []
            for k in range(2):
                place = builder.add(index, builder.mul(row, ir.Constant(I64, k)))
                score = builder.fmul(load_floats(builder, scores, place), factor)
                share = exponential(builder, builder.fsub(score, each[k]))
                slope = builder.fsub(load_floats(builder, slopes, place), each[2 + k])
                grad = rounded(builder, builder.fmul(builder.fmul(share, slope), factor))
                bits.append((rounded(builder, share), grad))
                narrow = builder.trunc(builder.lshr(grad, words(16)), HALVES)
                builder.store(narrow, at(builder, lines, place, 2, HALVES), align=2)
            for target, low, high in ((shares, bits[0][0], bits[1][0]), (grads, bits[0][1], bits[1][1])):
                pair = builder.or_(builder.lshr(low, words(16)), builder.and_(high, words(0xFFFF0000)))
                builder.store(pair, at(builder, target, index, 4, WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, types.float32, *[types.int64] * 3), generate
