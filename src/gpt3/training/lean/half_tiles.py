"""Matrix products of bfloat16 inside a compiled loop: by AMX where the processor has it, else by AVX512-BF16's dot products.

Both multiply pairs: a's rows hold pairs that are neighbors along the sum, and so does each row of b, for one pair of a's columns:

    a (rows, depth)    b (depth / 2, columns) of pairs    c (rows, columns) float32 = a b

Rows, columns and depth are multiples of TILE. Addresses are int64; a's strides are in numbers, b's in pairs, c's in floats.
"""

# numba calls these generators with LLVM builders, which have no types mypy knows
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from gpt3.inference.microkernel import FEATURES, I64, LANES, VECTOR
from gpt3.training.lean.tiles import integers
from gpt3.training.lean.vectors import HALVES, WORDS, at, words

TILE = 32
"""Rows and columns of a tile of c, and numbers of its sum that are taken at once."""
DOTS = bool(FEATURES.get("avx512bf16")) and LANES == 16
"""Whether products here are possible: AVX512-BF16."""
AMX = DOTS and bool(FEATURES.get("amx-bf16"))
"""Whether AMX may compute them, where the system lets this process (`torch.cpu._init_amx`)."""
DOT_ROWS = 8
VOID, BYTE = ir.VoidType(), ir.IntType(8)


class _BFloat(ir.types._BaseFloatType):
    """LLVM's bfloat, which llvmlite does not have."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloat._create_instance()
PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


def _call(builder: Any, name: str, *arguments: Any) -> None:
    """Call an instruction of AMX."""
    kind = ir.FunctionType(VOID, [argument.type for argument in arguments])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), arguments)


def _tile(number: int) -> Any:
    return ir.Constant(BYTE, number)


def _words(builder: Any, value: Any, factor: int) -> Any:
    return builder.mul(value, ir.Constant(I64, factor))


@intrinsic
def configure(typing_context, settings, amx):
    """With `amx` take the settings of tiles (64 bytes), as `tile_settings` writes them; zeros give tiles back."""

    def generate(context, builder, signature, arguments):
        settings, amx = arguments
        if AMX:
            with builder.if_then(builder.icmp_signed("!=", amx, ir.Constant(I64, 0))):
                _call(builder, "ldtilecfg", builder.inttoptr(settings, BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@register_jitable(fastmath=True)
def tile_settings(target):
    """Write to 64 bytes: palette 1, eight tiles of 16 rows of 64 bytes."""
    words_of = integers(target, 8)
    words_of[0], words_of[1] = 1, 0
    for i in range(4):
        words_of[2 + i] = 0x0040004000400040 if i < 2 else 0  # bytes of a row, 16 bits each
    words_of[6] = 0x1010101010101010  # rows, 8 bits each
    words_of[7] = 0


@intrinsic
def _amx(typing_context, a, a_row, b, b_row, c, c_row, depth, add):
    """One tile of c: TILE rows of a times TILE columns of b."""

    def generate(context, builder, signature, arguments):
        a, a_row, b, b_row, c, c_row, depth, add = arguments
        if not AMX:
            return context.get_dummy_value()
        a_bytes, b_bytes, c_bytes = _words(builder, a_row, 2), _words(builder, b_row, 4), _words(builder, c_row, 4)

        def pointer(base: Any, rows: int, row_bytes: Any, offset: int) -> Any:
            place = builder.add(base, builder.add(_words(builder, row_bytes, rows), ir.Constant(I64, offset)))
            return builder.inttoptr(place, BYTE.as_pointer())

        targets = [pointer(c, 16 * (n // 2), c_bytes, 64 * (n % 2)) for n in range(4)]
        with builder.if_else(builder.icmp_signed("!=", add, ir.Constant(I64, 0))) as (onto, anew):
            with onto:
                for n in range(4):
                    _call(builder, "tileloadd64", _tile(n), targets[n], c_bytes)
            with anew:
                for n in range(4):
                    _call(builder, "tilezero", _tile(n))
        with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(I64, TILE)), intp=I64) as loop:
            left = builder.add(a, _words(builder, loop.index, 2 * TILE))
            right = builder.add(b, builder.mul(_words(builder, loop.index, TILE // 2), b_bytes))
            for n in range(2):
                _call(builder, "tileloadd64", _tile(4 + n), pointer(left, 16 * n, a_bytes, 0), a_bytes)
                _call(builder, "tileloadd64", _tile(6 + n), pointer(right, 0, b_bytes, 64 * n), b_bytes)
            for n in range(4):
                _call(builder, "tdpbf16ps", _tile(n), _tile(4 + n // 2), _tile(6 + n % 2))
        for n in range(4):
            _call(builder, "tilestored64", _tile(n), targets[n], c_bytes)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@intrinsic
def _dots(typing_context, a, a_row, b, b_row, c, c_row, depth, add):
    """DOT_ROWS rows of a times TILE columns of b."""

    def generate(context, builder, signature, arguments):
        a, a_row, b, b_row, c, c_row, depth, add = arguments
        if not DOTS:
            return context.get_dummy_value()
        kind = ir.FunctionType(VECTOR, [VECTOR, PAIRS, PAIRS])
        dot = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
        places = [(r, v) for r in range(DOT_ROWS) for v in range(2)]
        sums = {place: cgutils.alloca_once(builder, VECTOR) for place in places}
        targets = {
            (r, v): at(builder, c, builder.add(_words(builder, c_row, r), ir.Constant(I64, v * LANES)), 4, VECTOR)
            for r, v in places
        }
        with builder.if_else(builder.icmp_signed("!=", add, ir.Constant(I64, 0))) as (onto, anew):
            with onto:
                for place in places:
                    builder.store(builder.load(targets[place], align=4), sums[place])
            with anew:
                for place in places:
                    builder.store(ir.Constant(VECTOR, [0.0] * LANES), sums[place])
        nothing, lanes = ir.Constant(WORDS, ir.Undefined), ir.Constant(WORDS, [0] * LANES)
        with cgutils.for_range(builder, builder.sdiv(depth, ir.Constant(I64, 2)), intp=I64) as loop:
            row = builder.mul(loop.index, b_row)
            right = [
                builder.load(at(builder, b, builder.add(row, ir.Constant(I64, v * LANES)), 4, PAIRS), align=4)
                for v in range(2)
            ]
            for r in range(DOT_ROWS):
                line = builder.add(a, _words(builder, _words(builder, a_row, r), 2))
                pair = builder.load(at(builder, line, loop.index, 4, ir.IntType(32)), align=2)
                one = builder.insert_element(nothing, pair, ir.Constant(ir.IntType(32), 0))
                left = builder.bitcast(builder.shuffle_vector(one, nothing, lanes), PAIRS)
                for v in range(2):
                    builder.store(builder.call(dot, [builder.load(sums[r, v]), left, right[v]]), sums[r, v])
        for place in places:
            builder.store(builder.load(sums[place]), targets[place], align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


@njit(fastmath=True, error_model="numpy")
def product_of_halves(a, a_row, b, b_row, c, c_row, rows, columns, depth, add, amx):  # pragma: no cover - compiled
    """c = a b, or with `add` added to c; with `amx` by AMX, whose tiles are configured."""
    for j in range(0, columns, TILE):
        if amx != 0:
            for i in range(0, rows, TILE):
                _amx(a + 2 * i * a_row, a_row, b + 4 * j, b_row, c + 4 * (i * c_row + j), c_row, depth, add)
        else:
            for i in range(0, rows, DOT_ROWS):
                _dots(a + 2 * i * a_row, a_row, b + 4 * j, b_row, c + 4 * (i * c_row + j), c_row, depth, add)


@intrinsic
def transpose(typing_context, source, source_row, target, target_row):
    """Sixteen rows of sixteen numbers of 32 bits become columns; both strides are in such numbers."""

    def generate(context, builder, signature, arguments):
        source, source_row, target, target_row = arguments
        if LANES != 16:
            return context.get_dummy_value()
        rows = [builder.load(at(builder, source, _words(builder, source_row, r), 4, WORDS), align=4) for r in range(16)]
        for step in (1, 2, 4, 8):
            even = ir.Constant(WORDS, [e if not e & step else 16 + e - step for e in range(16)])
            odd = ir.Constant(WORDS, [e + step if not e & step else 16 + e for e in range(16)])
            for r in range(16):
                if not r & step:
                    upper, lower = rows[r], rows[r | step]
                    rows[r] = builder.shuffle_vector(upper, lower, even)
                    rows[r | step] = builder.shuffle_vector(upper, lower, odd)
        for r, row in enumerate(rows):
            builder.store(row, at(builder, target, _words(builder, target_row, r), 4, WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def interleave(typing_context, first, second, target, count):
    """target[i] = the pair of first[i] and second[i], `count` bfloat16 numbers each."""

    def generate(context, builder, signature, arguments):
        first, second, target, count = arguments
        with cgutils.for_range_slice(builder, ir.Constant(I64, 0), count, ir.Constant(I64, LANES), I64) as (index, _):
            low, high = (
                builder.zext(builder.load(at(builder, base, index, 2, HALVES), align=2), WORDS)
                for base in (first, second)
            )
            pair = builder.or_(low, builder.shl(high, words(16)))
            builder.store(pair, at(builder, target, index, 4, WORDS), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate
