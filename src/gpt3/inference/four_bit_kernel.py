"""The innermost loop of the CPU engine for weights in 4 bits (four_bit.py), in vectors for LLVM.

A vector's lanes are rows of the matrix, so that scales are vectors too and nothing is summed across lanes. A word holds eight
columns of a row; one `and` leaves a step in its place, 16^k times as large, and the CPU converts it to float32. So three
instructions multiply 8 or 16 weights with one value of a token: and, convert, fused multiply-add. `prepare` has made that
value as much smaller, which is exact, and put -8 times the sum of each block of 32 behind it, where the block's sum begins.

A block's products are added one by one, in the same order in all tiles, and the blocks' sums, times their scales, in order too:
a token's numbers do not depend on how many others are computed with it, to the last bit.
"""

# numba calls these generators with LLVM builders, which have no types mypy knows
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from gpt3.inference.four_bit import BLOCK, ROWS, SCALES, UNIT
from gpt3.inference.microkernel import FLOAT, I64, LANES, VECTOR, WIDE, broadcast, fma, prefetch_line

LINE = BLOCK + 1
"""Numbers of a prepared block."""
AHEAD = 4
"""Units that are called for before they are needed."""
PAIR_ROWS = 2 * LANES
"""Rows of a tile of four tokens: with eight sums, as many registers as AVX2's operands leave."""
_SHRINK = np.array([16.0**-k for k in range(7)] + [1.0], dtype=np.float32)
"""By the place of a column in its word; the last is shifted down, as its `and` would leave a negative number."""
_INTS, _HALVES = ir.VectorType(ir.IntType(32), LANES), ir.VectorType(ir.HalfType(), LANES)


def _at(builder: Any, base: Any, offset: int, kind: Any, index: Any = None, size: int = 0) -> Any:
    """A pointer to a `kind`, `offset` bytes and `index` times `size` bytes after `base`."""
    distance: Any = ir.Constant(I64, offset)
    if index is not None:
        distance = builder.add(
            distance, builder.mul(index, size if isinstance(size, ir.Value) else ir.Constant(I64, size))
        )
    return cgutils.pointer_add(builder, base, distance, kind.as_pointer())


def tile(rows: int, tokens: int, blocks: int = 1, ahead: int = 0) -> Any:
    """A numba function (units, r, x, n, out): out[n + t, r + k] = the products of row r + k and token n + t.

    k runs below `rows`, t below `tokens`. units is (O / ROWS, I / BLOCK, UNIT) uint8, x is what `prepare` has made, out (N, O)
    float32, all C-contiguous; r, a multiple of `rows`, and n are intp. `blocks` are computed at a time, so that more sums are
    under way; the units `ahead` of these are prefetched.
    """
    groups = range(rows // LANES)

    @intrinsic
    def compute(typing_context, units, r, x, n, out):
        def generate(context, builder, signature, arguments):
            kinds, values = signature.args[::2], arguments[::2]  # the arrays, without r and n
            arrays = [context.make_array(kind)(context, builder, v) for kind, v in zip(kinds, values, strict=True)]
            (w, xs, results), r_value, n_value = arrays, arguments[1], arguments[3]
            count = cgutils.unpack_tuple(builder, w.shape)[1]
            stride, x_stride, out_stride = (cgutils.unpack_tuple(builder, array.strides)[0] for array in arrays)
            byte, size = ir.IntType(8), ir.Constant(I64, ROWS)
            inside = builder.srem(r_value, size)  # the row's place in its unit
            start = _at(builder, w.data, 0, byte, builder.sdiv(r_value, size), stride)
            places = [builder.add(n_value, ir.Constant(I64, t)) for t in range(tokens)]
            lines = [_at(builder, xs.data, 0, byte, place, x_stride) for place in places]
            totals = {(g, t): cgutils.alloca_once(builder, VECTOR) for g in groups for t in range(tokens)}
            for pointer in totals.values():
                builder.store(ir.Constant(VECTOR, [0.0] * LANES), pointer)

            def add_blocks(first, some):
                """Add the products of `some` blocks from `first` on to the totals."""
                numbers = [builder.add(first, ir.Constant(I64, b)) for b in range(some)]
                unit = [_at(builder, start, 0, byte, number, UNIT) for number in numbers]
                columns = [[_at(builder, line, 0, byte, number, 4 * LINE) for line in lines] for number in numbers]
                if ahead:
                    for pointer in unit:
                        for offset in range(0, UNIT, 64):
                            prefetch_line(builder, _at(builder, pointer, UNIT * ahead + offset, byte))

                def column(b, t, i):
                    return broadcast(builder, builder.load(_at(builder, columns[b][t], 4 * i, FLOAT), align=4))

                begins = {(b, t): column(b, t, BLOCK) for b in range(some) for t in range(tokens)}
                sums = {(b, g, t): begins[b, t] for b in range(some) for g in groups for t in range(tokens)}
                for j in range(4):
                    words = {}
                    for b in range(some):
                        for g in groups:
                            pointer = _at(builder, unit[b], SCALES + 4 * (ROWS * j + LANES * g), _INTS, inside, 4)
                            words[b, g] = builder.load(pointer, align=4)
                    for k in range(8):
                        for b in range(some):
                            values = [column(b, t, 8 * j + k) for t in range(tokens)]
                            for g in groups:
                                if k == 7:
                                    step = builder.lshr(words[b, g], ir.Constant(_INTS, [28] * LANES))
                                else:
                                    step = builder.and_(words[b, g], ir.Constant(_INTS, [15 << 4 * k] * LANES))
                                wide = builder.sitofp(step, VECTOR)
                                for t in range(tokens):
                                    sums[b, g, t] = fma(builder, wide, values[t], sums[b, g, t])
                for b in range(some):
                    for g in groups:
                        half = builder.load(_at(builder, unit[b], 2 * LANES * g, _HALVES, inside, 2), align=2)
                        scale = builder.fpext(half, VECTOR)
                        for t in range(tokens):
                            pointer = totals[g, t]
                            builder.store(fma(builder, scale, sums[b, g, t], builder.load(pointer)), pointer)

            whole = builder.mul(builder.sdiv(count, ir.Constant(I64, blocks)), ir.Constant(I64, blocks))
            for begin, end, some in ((ir.Constant(I64, 0), whole, blocks), (whole, count, 1))[: 2 if blocks > 1 else 1]:
                with cgutils.for_range_slice(builder, begin, end, ir.Constant(I64, some), I64) as (first, _):
                    add_blocks(first, some)
            for (g, t), total in totals.items():
                line = _at(builder, results.data, 0, byte, places[t], out_stride)
                target = _at(builder, line, 4 * LANES * g, VECTOR, r_value, 4)
                builder.store(builder.load(total), target, align=4)
            return context.get_dummy_value()

        return types.void(units, types.intp, x, types.intp, out), generate

    return compute


_one = tile(ROWS, 1, blocks=2 if WIDE else 1, ahead=AHEAD)  # 32 rows: four sums under way with AVX2
_two = tile(ROWS, 2)
_four = tile(PAIR_ROWS, 4)


@njit(inline="always", fastmath=False, error_model="numpy")
def _prepare(x, line):
    for b in range(x.shape[0] // BLOCK):
        block, to = x[b * BLOCK : (b + 1) * BLOCK], line[b * LINE : (b + 1) * LINE]
        for j in range(4):
            for k in range(8):
                to[8 * j + k] = block[8 * j + k] * _SHRINK[k]
        total = np.float32(0.0)
        for k in range(8):
            total += (block[k] + block[8 + k]) + (block[16 + k] + block[24 + k])
        to[BLOCK] = np.float32(-8.0) * total


@njit(parallel=True, fastmath=False, nogil=True, cache=True, error_model="numpy")
def _prepare_many(x, count, lines):
    for n in prange(count):
        _prepare(x[n], lines[n])


@njit(fastmath=False, nogil=True, error_model="numpy")
def prepare(x, count):
    """The first `count` tokens of x (N, I), block by block, as the tiles read them: (count, LINE I / BLOCK) float32."""
    lines = np.empty((count, x.shape[1] // BLOCK * LINE), np.float32)
    if count < 4:  # a task for another thread costs more than that
        for n in range(count):
            _prepare(x[n], lines[n])
    else:
        _prepare_many(x, count, lines)
    return lines


@njit(fastmath=False, nogil=True, error_model="numpy")
def products(units, first, last, x, begin, end, out):
    """out[begin:end, first:last] = the products of these tokens with these rows; first and last are multiples of ROWS."""
    fours = begin + (end - begin) // 4 * 4
    twos = fours + (end - fours) // 2 * 2
    for r in range(first, last, ROWS):
        for part in range(r, r + ROWS, PAIR_ROWS):
            for n in range(begin, fours, 4):
                _four(units, part, x, n, out)
        if fours < twos:
            _two(units, r, x, fours, out)
        if twos < end:
            _one(units, r, x, twos, out)
