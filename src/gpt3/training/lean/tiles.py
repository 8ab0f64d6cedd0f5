"""Matrix products of small blocks inside a compiled loop, written in vectors for LLVM, and addresses as arrays.

Everything here takes addresses (int64) and strides in floats, so that a product reads the heads inside a larger matrix. Numbers
that are stored in bfloat16 are widened into a thread's own memory before a loop computes with them, and rounded after it.
"""

# numba calls these generators with LLVM builders, which have no types mypy knows
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from gpt3.inference.microkernel import FLOAT, I64, LANES, VECTOR, broadcast, float_of_bits, fma

ROWS = 4
"""Rows of a tile: with two vectors each, as many sums as two multiply-add units need to be busy."""


def _tile(rows: int, vectors: int) -> Any:
    """A numba function (a, a_row, a_k, b, b_k, c, c_row, depth, add): c[r, :] = sum over k of a[r, k] b[k, :], onto c with `add`.

    a has `rows` rows, b and c `vectors` LANES columns, contiguous; a_row, a_k, b_k and c_row are strides in floats.
    """

    @intrinsic
    def compute(typing_context, a, a_row, a_k, b, b_k, c, c_row, depth, add):
        def generate(context, builder, signature, arguments):
            a, a_row, a_k, b, b_k, c, c_row, depth, add = arguments
            four = ir.Constant(I64, 4)

            def place(base: Any, floats: Any, kind: Any) -> Any:
                return builder.inttoptr(builder.add(base, builder.mul(floats, four)), kind.as_pointer())

            sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(vectors)] for _ in range(rows)]
            targets = [
                [
                    place(c, builder.add(builder.mul(c_row, ir.Constant(I64, r)), ir.Constant(I64, v * LANES)), VECTOR)
                    for v in range(vectors)
                ]
                for r in range(rows)
            ]
            zeros = ir.Constant(VECTOR, [0.0] * LANES)
            for r in range(rows):
                for v in range(vectors):
                    builder.store(zeros, sums[r][v])
            with cgutils.for_range(builder, depth, intp=I64) as loop:
                row_of_b = builder.mul(loop.index, b_k)
                column = builder.mul(loop.index, a_k)
                right = [
                    builder.load(place(b, builder.add(row_of_b, ir.Constant(I64, v * LANES)), VECTOR), align=4)
                    for v in range(vectors)
                ]
                for r in range(rows):
                    offset = builder.add(column, builder.mul(a_row, ir.Constant(I64, r)))
                    scalar = builder.load(place(a, offset, FLOAT), align=4)
                    left = broadcast(builder, scalar)
                    for v in range(vectors):
                        builder.store(fma(builder, left, right[v], builder.load(sums[r][v])), sums[r][v])
            with builder.if_else(builder.icmp_signed("!=", add, ir.Constant(I64, 0))) as (onto, anew):
                with onto:
                    for r in range(rows):
                        for v in range(vectors):
                            before = builder.load(targets[r][v], align=4)
                            builder.store(builder.fadd(before, builder.load(sums[r][v])), targets[r][v], align=4)
                with anew:
                    for r in range(rows):
                        for v in range(vectors):
                            builder.store(builder.load(sums[r][v]), targets[r][v], align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), generate

    return compute


_wide, _narrow, _wide_row, _narrow_row = _tile(ROWS, 2), _tile(ROWS, 1), _tile(1, 2), _tile(1, 1)


@njit(fastmath=True, error_model="numpy")
def product(a, a_row, a_k, b, b_k, c, c_row, rows, columns, depth, add):  # pragma: no cover - compiled
    """c (rows, columns) = a (rows, depth) b (depth, columns), or added to c. `columns` is a multiple of LANES.

    a, b and c are addresses; a_row, a_k, b_k and c_row strides in floats. Sums run over k in order, in float32.
    """
    whole = columns // (2 * LANES) * (2 * LANES)
    for j in range(0, whole, 2 * LANES):
        i = 0
        while i + ROWS <= rows:
            _wide(a + 4 * i * a_row, a_row, a_k, b + 4 * j, b_k, c + 4 * (i * c_row + j), c_row, depth, add)
            i += ROWS
        while i < rows:
            _wide_row(a + 4 * i * a_row, a_row, a_k, b + 4 * j, b_k, c + 4 * (i * c_row + j), c_row, depth, add)
            i += 1
    if whole < columns:
        i = 0
        while i + ROWS <= rows:
            _narrow(a + 4 * i * a_row, a_row, a_k, b + 4 * whole, b_k, c + 4 * (i * c_row + whole), c_row, depth, add)
            i += ROWS
        while i < rows:
            _narrow_row(
                a + 4 * i * a_row, a_row, a_k, b + 4 * whole, b_k, c + 4 * (i * c_row + whole), c_row, depth, add
            )
            i += 1


@intrinsic
def _pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], FLOAT.as_pointer())

    return types.CPointer(types.float32)(types.int64), generate


@register_jitable(fastmath=True)
def floats(address, count):
    """The float32 array of `count` numbers at an address."""
    return carray(_pointer(address), (count,), np.float32)


@intrinsic
def _half_pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(16).as_pointer())

    return types.CPointer(types.uint16)(types.int64), generate


@register_jitable(fastmath=True)
def halves(address, count):
    """The bits of `count` bfloat16 numbers at an address, as a uint16 array."""
    return carray(_half_pointer(address), (count,), np.uint16)


@intrinsic
def _bits_of_float(typing_context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@register_jitable(fastmath=True)
def half_of(value):
    """The bits of a float32 rounded to bfloat16: to the nearest, of two to the even one."""
    bits = _bits_of_float(value)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@register_jitable(fastmath=True)
def float_of_half(bits):
    """The float32 of a bfloat16 number's bits."""
    return float_of_bits(np.int32(np.uint32(bits) << np.uint32(16)))


@register_jitable(fastmath=True)
def widen(source, target, count):
    """`count` bfloat16 numbers at one address as float32 at another."""
    narrow, wide = halves(source, count), floats(target, count)
    for i in range(count):
        wide[i] = float_of_half(narrow[i])


@register_jitable(fastmath=True)
def narrow(source, target, count):
    """`count` float32 numbers at one address rounded to bfloat16 at another."""
    wide, rounded = floats(source, count), halves(target, count)
    for i in range(count):
        rounded[i] = half_of(wide[i])


@register_jitable(fastmath=True)
def load(base, index, count, half, buffer):
    """The address of `count` float32 numbers: those from `index` on at `base`, or, where they are `half`, widened in `buffer`."""
    if half != 0:
        widen(base + 2 * index, buffer, count)
        return buffer
    return base + 4 * index


@register_jitable(fastmath=True)
def place(base, index, half, buffer):
    """The address to write float32 numbers to, which `keep` then keeps from `index` on at `base`."""
    return buffer if half != 0 else base + 4 * index


@register_jitable(fastmath=True)
def keep(base, index, count, half, buffer):
    """Round what was written to `place` where numbers are `half`; else it is there already."""
    if half != 0:
        narrow(buffer, base + 2 * index, count)


@intrinsic
def _int_pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], I64.as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@register_jitable(fastmath=True)
def integers(address, count):
    """The int64 array of `count` numbers at an address."""
    return carray(_int_pointer(address), (count,), np.int64)


@intrinsic
def claim(typing_context, address):
    """The int64 at an address, which is raised by one for whoever reads it next: no two threads get the same."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(I64, 1), "monotonic")

    return types.int64(types.int64), generate
