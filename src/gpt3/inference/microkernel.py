"""The innermost loop of the CPU engine, written in vectors for LLVM: a few rows of a weight matrix times a few tokens.

`tile(rows, tokens)` makes a numba function that reads each weight once, widens it to float32 in a register, and multiplies it
with every token of the tile. The order of the sums is the same whatever the tile's size: LANES partial sums over even vectors,
LANES over odd ones, then halves onto halves, then what is left over one by one. So a token's numbers do not depend on how many
others are computed with it, to the last bit.

| stored | array's dtype | widened by            |
|--------|---------------|-----------------------|
| fp32   | float32       | nothing               |
| fp16   | uint16 (bits) | the CPU's conversion  |
| bf16   | int16 (bits)  | a shift by 16 bits    |
| int8   | int8          | the CPU's conversion  |
"""

# numba calls these generators with LLVM builders, which have no types mypy knows
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import platform
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

_CHOSEN = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # type: ignore[attr-defined]
FEATURES = {} if _CHOSEN else llvmlite.binding.get_host_cpu_features()  # chosen for other machines: only what all have
HALVES = bool(FEATURES.get("f16c") or FEATURES.get("avx512f") or platform.machine().lower() in ("arm64", "aarch64"))
"""Whether fp16 is widened by an instruction. Where not, LLVM calls a function that is not there."""
WIDE = bool(FEATURES.get("avx512f"))
LANES = 16 if WIDE else 8
"""Floats in a vector: a register of AVX-512, one of AVX2, two of NEON."""
TILE_ROWS = 2 if WIDE else 1
"""Rows of a tile: with 4 tokens and two partial sums each, as many registers as the operands leave."""

FLOAT, I64 = ir.FloatType(), ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)


def _widen_vector(builder: Any, stored: types.Type, value: Any) -> Any:
    """A vector of stored weights as float32."""
    if stored == types.uint16:
        halves = builder.bitcast(value, ir.VectorType(ir.HalfType(), LANES))
        return builder.fpext(halves, VECTOR)
    if stored == types.int16:
        ints = ir.VectorType(ir.IntType(32), LANES)
        shifted = builder.shl(builder.zext(value, ints), ir.Constant(ints, [16] * LANES))
        return builder.bitcast(shifted, VECTOR)
    if stored == types.int8:
        return builder.sitofp(value, VECTOR)
    return value


def _widen_scalar(builder: Any, stored: types.Type, value: Any) -> Any:
    """One stored weight as float32."""
    if stored == types.uint16:
        return builder.fpext(builder.bitcast(value, ir.HalfType()), FLOAT)
    if stored == types.int16:
        wide = builder.zext(value, ir.IntType(32))
        return builder.bitcast(builder.shl(wide, ir.Constant(ir.IntType(32), 16)), FLOAT)
    if stored == types.int8:
        return builder.sitofp(value, FLOAT)
    return value


@intrinsic
def _one(typing_context, value):
    def generate(context, builder, signature, arguments):
        return _widen_scalar(builder, value, arguments[0])

    return types.float32(value), generate


@intrinsic
def float_of_bits(typing_context, bits):
    """The float32 that has these 32 bits (int32)."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], FLOAT)

    return types.float32(types.int32), generate


@intrinsic
def fused(typing_context, a, b, c):
    """a b + c of float32, rounded once."""

    def generate(context, builder, signature, arguments):
        return fma(builder, *arguments)

    return types.float32(types.float32, types.float32, types.float32), generate


def widen(value):  # pragma: no cover
    """A stored weight as float32; the stored type says how."""
    raise TypeError("only compiled loops call this")


@overload(widen, inline="always")
def _widen(value):
    return lambda value: _one(value)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once; of vectors or floats."""
    kind = a.type
    name = f"llvm.fma.v{LANES}f32" if kind == VECTOR else "llvm.fma.f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


def broadcast(builder: Any, value: Any) -> Any:
    """A vector of one float."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def prefetch_line(builder: Any, pointer: Any) -> None:
    """Begin to read the cache line at a pointer, which may lie beyond the array."""
    i32 = ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32]), "llvm.prefetch.p0"
    )
    builder.call(function, [pointer, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)])


def sum_of_lanes(builder: Any, vector: Any) -> Any:
    """The sum of a vector's lanes: its upper half onto its lower, until one is left."""
    lanes = LANES
    while lanes > 1:
        lanes //= 2
        mask = ir.VectorType(ir.IntType(32), lanes)
        low = builder.shuffle_vector(vector, vector, ir.Constant(mask, list(range(lanes))))
        high = builder.shuffle_vector(vector, vector, ir.Constant(mask, list(range(lanes, 2 * lanes))))
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


class _Lines:
    """Neighboring rows of a two-dimensional array, as pointers to their elements."""

    def __init__(self, context: Any, builder: Any, kind: types.Array, value: Any, first: Any, count: int) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder = builder
        self.element = context.get_data_type(kind.dtype)
        self.size = context.get_abi_sizeof(self.element)
        self.width = cgutils.unpack_tuple(builder, array.shape)[1]
        stride = cgutils.unpack_tuple(builder, array.strides)[0]
        rows = [builder.add(first, ir.Constant(I64, k)) for k in range(count)]
        self.elements_a_tile = builder.mul(self.width, ir.Constant(I64, count))  # from a row to that of the next tile
        self.starts = [cgutils.pointer_add(builder, array.data, builder.mul(row, stride)) for row in rows]

    def pointer(self, row: int, index: Any, kind: Any) -> Any:
        offset = self.builder.mul(index, ir.Constant(I64, self.size))
        return cgutils.pointer_add(self.builder, self.starts[row], offset, kind.as_pointer())

    def vector(self, row: int, index: Any) -> Any:
        kind = ir.VectorType(self.element, LANES)
        return self.builder.load(self.pointer(row, index, kind), align=self.size)

    def scalar(self, row: int, index: Any) -> Any:
        return self.builder.load(self.pointer(row, index, self.element), align=self.size)


def tile(rows: int, tokens: int, prefetch: bool = False) -> Any:
    """A numba function (weight, r, x, n, out): out[n + t, r + k] = sum over i of weight[r + k, i] x[n + t, i].

    k runs below `rows`, t below `tokens`. weight is (O, I) in one of the stored formats, x (N, I) and out (N, O) float32, all
    with contiguous rows; r and n are intp. With `prefetch` the next tile's rows are prefetched.
    """

    @intrinsic
    def compute(typing_context, weight, r, x, n, out):
        def generate(context, builder, signature, arguments):
            weight_value, r_value, x_value, n_value, out_value = arguments
            w = _Lines(context, builder, weight, weight_value, r_value, rows)
            xs = _Lines(context, builder, x, x_value, n_value, tokens)
            results = _Lines(context, builder, out, out_value, n_value, tokens)
            places = [(k, t) for k in range(rows) for t in range(tokens)]

            zeros, zero = ir.Constant(VECTOR, [0.0] * LANES), ir.Constant(FLOAT, 0.0)
            even = {place: cgutils.alloca_once(builder, VECTOR) for place in places}
            odd = {place: cgutils.alloca_once(builder, VECTOR) for place in places}
            rest = {place: cgutils.alloca_once(builder, FLOAT) for place in places}
            for place in places:
                builder.store(zeros, even[place])
                builder.store(zeros, odd[place])
                builder.store(zero, rest[place])
            pair = ir.Constant(I64, 2 * LANES)
            pairs = builder.sdiv(w.width, pair)
            with cgutils.for_range(builder, pairs, intp=I64) as loop:
                for which, sums in enumerate((even, odd)):
                    index = builder.add(builder.mul(loop.index, pair), ir.Constant(I64, which * LANES))
                    columns = [xs.vector(t, index) for t in range(tokens)]
                    for k in range(rows):
                        if prefetch:
                            prefetch_line(builder, w.pointer(k, builder.add(index, w.elements_a_tile), ir.IntType(8)))
                        wide = _widen_vector(builder, weight.dtype, w.vector(k, index))
                        for t in range(tokens):
                            pointer = sums[k, t]
                            builder.store(fma(builder, wide, columns[t], builder.load(pointer)), pointer)
            with cgutils.for_range_slice(builder, builder.mul(pairs, pair), w.width, ir.Constant(I64, 1), I64) as (
                i,
                _,
            ):
                for k in range(rows):
                    wide = _widen_scalar(builder, weight.dtype, w.scalar(k, i))
                    for t in range(tokens):
                        pointer = rest[k, t]
                        builder.store(fma(builder, wide, xs.scalar(t, i), builder.load(pointer)), pointer)
            for k, t in places:
                total = sum_of_lanes(builder, builder.fadd(builder.load(even[k, t]), builder.load(odd[k, t])))
                total = builder.fadd(total, builder.load(rest[k, t]))
                column = builder.add(r_value, ir.Constant(I64, k))
                builder.store(total, results.pointer(t, column, FLOAT))
            return context.get_dummy_value()

        return types.void(weight, types.intp, x, types.intp, out), generate

    return compute
