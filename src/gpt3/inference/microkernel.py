"""The innermost loop of the CPU engine, written in vectors for LLVM: a few tokens times a few rows of a weight matrix.

A matrix (O, I) is stored in panels of PANEL rows, (O / PANEL, I, PANEL): a column's weights are neighbors, so that a vector's
lanes are rows, one value of a token meets them all, and nothing is summed across lanes. `tile` makes a numba function
that reads each weight once, widens it to float32 in a register, and multiplies it with every token of the tile. A sum's order is
that of the columns, whatever the tile's size: the numbers of a token do not depend on how many others are computed with it,
to the last bit. Attention is made of the same tiles, with keys or values in place of weights.

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
PANEL = 32
"""Rows of a weight matrix that are stored together."""
MANY = 8 if WIDE else 6
"""Tokens of the largest tile. With two vectors of rows each, AVX2's registers leave no room for more; with AVX-512, 12 were no
faster, and batches of 8 slower."""

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


@intrinsic
def address(typing_context, array):
    """Where an array's first element is, int64."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(array)(context, builder, arguments[0]).data
        return builder.ptrtoint(data, I64)

    return types.int64(array), generate


def tile(tokens: int, vectors: int, panels: int = 1, chain: bool = False, prefetch: int = 0) -> Any:
    """A numba function (like, a, a_row, b, b_step, b_panel, c, c_row, depth, onto), all int64 but `like`.

    It computes c[t, p, r] = the sum over k below `depth` of a[t, k] b[p, k, r], for t below `tokens`, p below `panels`, r below
    `vectors` x LANES. a, b and c are addresses, of float32 but for b, which holds numbers as the array `like` does; a[t, k] is
    a_row t + k numbers after a, b[p, k, r] is b_panel p + b_step k + r after b, c[t, p, r] is c_row t + (p `vectors` LANES + r)
    after c. Where `onto` is not 0, the sum is added to what is in c; or begins with it, if this is a link of a `chain`.

    A sum has one order, that of k, whatever the tile's size. `prefetch`: how many bytes ahead b is called for.
    """

    @intrinsic
    def compute(typing_context, like, a, a_row, b, b_step, b_panel, c, c_row, depth, onto):
        def generate(context, builder, signature, arguments):
            _, a, a_row, b, b_step, b_panel, c, c_row, depth, onto = arguments
            stored = context.get_data_type(like.dtype)
            size = context.get_abi_sizeof(stored)
            held = ir.VectorType(stored, LANES)

            def after(base: Any, numbers: Any, bytes_each: int) -> Any:
                return builder.add(base, builder.mul(numbers, ir.Constant(I64, bytes_each)))

            def at(place: Any, offset: int, kind: Any) -> Any:
                return builder.inttoptr(builder.add(place, ir.Constant(I64, offset)), kind.as_pointer())

            lines = [after(a, builder.mul(a_row, ir.Constant(I64, t)), 4) for t in range(tokens)]
            blocks = [after(b, builder.mul(b_panel, ir.Constant(I64, p)), size) for p in range(panels)]
            results = [after(c, builder.mul(c_row, ir.Constant(I64, t)), 4) for t in range(tokens)]
            places = [(t, p, v) for t in range(tokens) for p in range(panels) for v in range(vectors)]
            sums = {place: cgutils.alloca_once(builder, VECTOR) for place in places}
            targets = {(t, p, v): at(results[t], 4 * LANES * (p * vectors + v), VECTOR) for t, p, v in places}
            for pointer in sums.values():
                builder.store(ir.Constant(VECTOR, [0.0] * LANES), pointer)
            goes_on = builder.icmp_signed("!=", onto, ir.Constant(I64, 0))
            if chain:
                with builder.if_then(goes_on):
                    for place in places:
                        builder.store(builder.load(targets[place], align=4), sums[place])
            with cgutils.for_range(builder, depth, intp=I64) as loop:
                step = builder.mul(loop.index, b_step)
                wide = {}
                for p, block in enumerate(blocks):
                    row = after(block, step, size)
                    for v in range(vectors):
                        value = builder.load(at(row, size * LANES * v, held), align=size)
                        wide[p, v] = _widen_vector(builder, like.dtype, value)
                    for offset in range(0, size * LANES * vectors, 64) if prefetch else ():
                        prefetch_line(builder, at(row, prefetch + offset, ir.IntType(8)))
                for t, line in enumerate(lines):
                    number = builder.load(at(after(line, loop.index, 4), 0, FLOAT), align=4)
                    left = broadcast(builder, number)
                    for p in range(panels):
                        for v in range(vectors):
                            pointer = sums[t, p, v]
                            builder.store(fma(builder, left, wide[p, v], builder.load(pointer)), pointer)
            if not chain:
                with builder.if_then(goes_on):
                    for place in places:
                        before = builder.load(targets[place], align=4)
                        builder.store(builder.fadd(before, builder.load(sums[place])), sums[place])
            for place in places:
                builder.store(builder.load(sums[place]), targets[place], align=4)
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * 9), generate

    return compute
