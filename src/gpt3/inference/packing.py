"""A GPT-3 model's weights as the CPU engine reads them: layers stacked, matrices in fp32, fp16, bf16, int8 or int4.

int8 is symmetric, one scale per output channel: q = round(w / s), s = max |w| of the row / 127. Embedding and output head, tied,
are stored once. int4 (four_bit.py) is for the matrices of the layers; embedding and head are int8 with it. Biases, norms and
position embeddings, 1% of the whole, stay float32.

Each tensor is read, checked and packed before the next one is read, so that the weights are held once, in their format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from gpt3.errors import InputError
from gpt3.inference.arrays import Array, Weights
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

WeightFormat = Literal["fp32", "fp16", "bf16", "int8", "int4"]
WEIGHT_FORMATS: tuple[str, ...] = get_args(WeightFormat)
STORED: dict[str, Any] = {"fp32": np.float32, "fp16": np.uint16, "bf16": np.int16, "int8": np.int8, "int4": np.uint8}
"""The dtypes by which the kernels know the formats: fp16 and bf16 as their bits, int4 as its units' bytes."""
LARGEST = float(np.finfo(np.float32).max)
LARGEST_FP16 = 65504.0
BLOCK = 1 << 16
"""Numbers that are rounded at a time: they stay in a core's cache."""
MODULES = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "out": "mlp.c_proj"}
"""Stacks of matrices, and the modules of a layer that they come from."""
Read = Callable[[], Array]
"""Gives a tensor as float32 or float64, mapped or in memory; asked once."""


class Matrix:
    """Room for a matrix, or a stack of them, in a format; and its rows' scales.

    Args:
        shape: (..., O, I).
        weight_format: one of WEIGHT_FORMATS.

    Attributes:
        weight: (..., panels, I, PANEL), as the kernels know the format (STORED), or the units of int4. Rows that fill up the last
            panel are zeros.
        scale: (..., O) float32.
    """

    def __init__(self, shape: tuple[int, ...], weight_format: str) -> None:
        from gpt3.inference.microkernel import PANEL

        self.weight_format = weight_format
        stored: tuple[int, ...] = (*shape[:-2], -(-shape[-2] // PANEL), shape[-1], PANEL)
        if weight_format == "int4":
            from gpt3.inference.four_bit import units_shape

            stored = (*shape[:-2], *units_shape(*shape[-2:]))
        self.weight = huge(stored, STORED[weight_format])
        self.scale = np.ones(shape[:-1], np.float32)

    def put(self, matrix: Array, *where: int) -> None:
        """Store a float matrix (O, I) at `where` in the stack."""
        target, scale = self.weight[where], self.scale[where]
        if self.weight_format == "int4":
            from gpt3.inference.four_bit import store

            store(matrix, target)
            return
        for panels, rows in _blocks(matrix, target.shape[-1]):
            block = np.asarray(matrix[rows], dtype=np.float32, order="C")
            if self.weight_format == "int8":
                scale[rows] = np.abs(block).max(-1, initial=0.0) / np.float32(127)
                scale[rows][scale[rows] == 0] = 1.0
                block = np.rint(block / scale[rows, None]).astype(np.int8)
            elif self.weight_format == "fp16":
                block = block.astype(np.float16).view(np.uint16)
            elif self.weight_format == "bf16":
                bits = block.view(np.uint32)  # rounded to the nearest, halves to the even one
                block = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(np.int16)
            target[panels] = panels_of(block, target.shape[-1])


def pack(config: Any, weights: Mapping[str, Read], weight_format: str) -> Weights:
    """Put a model's weights into the engine's arrays.

    Args:
        config: its GPT3Config, or what has the same fields.
        weights: how each of its tensors is read, by the names of `GPT3ForCausalLM`; lm_head.weight only where it is not tied.
        weight_format: one of WEIGHT_FORMATS.

    Raises:
        InputError: a weight that is not finite, or (fp16) too large for the format; the tensor is named.
    """
    from gpt3.inference.microkernel import HALVES

    if weight_format in ("fp16", "int4") and not HALVES:
        raise InputError("this CPU has no instruction that widens fp16; give --dtype bf16 or fp32, or --quantize int8")
    L, C, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    A = config.num_attention_heads * config.head_dim
    V = min(config.real_vocab_size or config.vocab_size, config.vocab_size)
    largest = LARGEST_FP16 if weight_format in ("fp16", "int4") else LARGEST  # int4's scales are fp16

    def read(name: str, most: float = LARGEST) -> Array:
        array = weights[name]()
        check(name, array, most)
        return array

    def pair(module: str) -> Array:
        return np.stack([read(f"transformer.{module}.{part}") for part in ("weight", "bias")]).astype(np.float32)

    fields: dict[str, Any] = {}
    shapes = {"qkv": (L, 3 * A, C), "proj": (L, C, A), "fc": (L, F, C), "out": (L, C, F)}
    formats = dict.fromkeys(shapes, weight_format)
    if weight_format == "int4":
        from gpt3.inference.four_bit import divides

        formats |= {key: "int8" for key, shape in shapes.items() if not divides(*shape[1:])}
        if wide := [
            f"{MODULES[key]} ({shapes[key][1]:,} x {shapes[key][2]:,})" for key in shapes if formats[key] == "int8"
        ]:
            say(f"--quantize int4 needs multiples of 32; these are in int8: {', '.join(wide)}")
    for key, shape in shapes.items():
        stack, bias = Matrix(shape, formats[key]), np.empty(shape[:-1], np.float32)
        for layer in range(L):
            module = f"transformer.h.{layer}.{MODULES[key]}"
            stack.put(read(f"{module}.weight", largest), layer)
            bias[layer] = read(f"{module}.bias")
        fields |= {key: stack.weight, f"{key}_scale": stack.scale, f"{key}_bias": bias}
    for norm in ("ln_1", "ln_2"):
        fields[norm] = np.stack([pair(f"h.{layer}.{norm}") for layer in range(L)])
    fields |= {"ln_f": pair("ln_f"), "wpe": np.array(read("transformer.wpe.weight"), dtype=np.float32, order="C")}

    outer = "int8" if weight_format == "int4" else weight_format
    wte = Matrix((V, C), outer)
    wte.put(read("transformer.wte.weight", largest)[:V])
    head = wte
    if "lm_head.weight" in weights:
        head = Matrix((V, C), outer)
        head.put(read("lm_head.weight", largest)[:V])
    fields |= {"wte": wte.weight, "wte_scale": wte.scale}
    fields |= {"head": head.weight, "head_scale": head.scale, "head_bias": np.zeros(V, np.float32)}
    return Weights(**fields)


def weights_of(model: GPT3ForCausalLM, take: bool = False) -> dict[str, Read]:
    """How the weights of a model in memory are read, on any device and in any float format.

    Args:
        take: leave each parameter empty once it is read, so that the whole is not held twice; the model is of no more use.
    """

    def reader(parameter: Any) -> Read:
        def read() -> Array:
            array: Array = parameter.detach().float().cpu().numpy()
            if take:
                parameter.data = parameter.data.new_empty(0)
            return array

        return read

    return {name: reader(parameter) for name, parameter in model.named_parameters()}


def huge(shape: tuple[int, ...], dtype: Any) -> Array:
    """An empty array of numpy's, which asks Linux for large pages: decoding streams through all of it every token."""
    return np.empty(math.prod(shape), dtype).reshape(shape)


def check(name: str, tensor: Any, largest: float = LARGEST) -> None:
    """Raise InputError unless all of a tensor, torch's or NumPy's, is finite and at most `largest` in size."""
    low, high = float(tensor.min()), float(tensor.max())  # nan where there is one
    if not (-largest <= low and high <= largest):
        if math.isfinite(low) and math.isfinite(high):
            raise InputError(
                f"the model's tensor {name} reaches {max(-low, high):.0f}, beyond fp16; use --dtype bf16 or fp32"
            )
        raise InputError(
            f"the model's tensor {name} holds values that are no finite numbers (its training diverged); "
            "take an earlier checkpoint with --model RUN/checkpoints/step-N"
        )


def panels_of(matrix: Array, panel: int) -> Array:
    """A matrix (O, I) in panels of `panel` rows: (panels, I, panel), the last one filled up with zeros."""
    if missing := -len(matrix) % panel:
        matrix = np.concatenate([matrix, np.zeros((missing, matrix.shape[1]), matrix.dtype)])
    return matrix.reshape(-1, panel, matrix.shape[1]).swapaxes(1, 2)


def rows_of(panels: Array) -> Array:
    """The rows of a matrix in panels: (panels, I, panel) to (O, I), with those that fill up the last panel."""
    return panels.swapaxes(-1, -2).reshape(*panels.shape[:-3], -1, panels.shape[-2])


def _blocks(matrix: Array, panel: int) -> Iterator[tuple[slice, slice]]:
    """Panels of a matrix, and their rows, some BLOCK numbers at a time."""
    count = max(1, BLOCK // max(1, panel * matrix.shape[1]))
    for begin in range(0, -(-len(matrix) // panel), count):
        yield slice(begin, begin + count), slice(panel * begin, panel * (begin + count))
