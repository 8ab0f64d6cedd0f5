"""A GPT-3 model's weights as the CPU engine reads them: layers stacked, matrices in fp32, fp16, bf16 or int8.

int8 is symmetric, one scale per output channel: q = round(w / s), s = max |w| of the row / 127. Embedding and output head, tied,
are stored once. Biases, norms and position embeddings, 1% of the whole, stay float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.inference.arrays import Array, Weights

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM

WeightFormat = Literal["fp32", "fp16", "bf16", "int8"]
WEIGHT_FORMATS: tuple[str, ...] = get_args(WeightFormat)
STORED = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}
LARGEST_FP16 = 65504.0


class Matrix:
    """Room for a matrix, or a stack of them, in a format; and its rows' scales.

    Args:
        shape: (..., O, I).
        weight_format: one of WEIGHT_FORMATS.
    """

    def __init__(self, shape: tuple[int, ...], weight_format: str) -> None:
        self.weight = huge(shape, STORED[weight_format])
        self.scale = torch.ones(shape[:-1])

    def put(self, matrix: Tensor, *where: int) -> None:
        """Store a float matrix (O, I) at `where` in the stack."""
        target, scale = self.weight[where], self.scale[where]
        if self.weight.dtype == torch.int8:
            scale.copy_(matrix.float().abs().amax(-1) / 127)
            scale.masked_fill_(scale == 0, 1.0)
            torch.round(matrix.float() / scale[:, None], out=(rounded := torch.empty(matrix.shape)))
            target.copy_(rounded)
        else:
            target.copy_(matrix)

    def stored(self) -> Array:
        """The weights as the kernels know their formats: fp16 as uint16, bf16 as int16."""
        bits = {torch.float16: torch.uint16, torch.bfloat16: torch.int16}.get(self.weight.dtype, self.weight.dtype)
        array: Array = self.weight.view(bits).numpy()
        return array


def pack(model: GPT3ForCausalLM, weight_format: str, take: bool = False) -> Weights:
    """Copy a model's weights into the engine's arrays.

    Args:
        model: on any device, in any float format; not changed, unless:
        weight_format: one of WEIGHT_FORMATS.
        take: leave each matrix empty once it is copied, so that the whole is not held twice; the model is of no more use.

    Raises:
        InputError: a weight that is not finite, or (fp16) too large for the format; the tensor is named.
    """
    from gpt3.inference.microkernel import HALVES

    if weight_format == "fp16" and not HALVES:
        raise InputError("this CPU has no instruction that widens fp16; give --dtype bf16 or fp32")
    config = model.config
    L, C, F = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    A = config.num_attention_heads * config.head_dim
    V = min(config.real_vocab_size or config.vocab_size, config.vocab_size)
    largest = LARGEST_FP16 if weight_format == "fp16" else torch.finfo(torch.float32).max

    with torch.no_grad():
        tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
        for name, tensor in tensors.items():
            stored = tensor.ndim == 2 and name != "transformer.wpe.weight"  # in the format; the rest stays float32
            check(name, tensor, largest if stored else torch.finfo(torch.float32).max)
        stacks = {
            "qkv": Matrix((L, 3 * A, C), weight_format),
            "proj": Matrix((L, C, A), weight_format),
            "fc": Matrix((L, F, C), weight_format),
            "out": Matrix((L, C, F), weight_format),
        }
        names = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "out": "mlp.c_proj"}
        fields: dict[str, Any] = {}
        for key, stack in stacks.items():
            bias = torch.empty(stack.scale.shape)
            for layer in range(L):
                module = f"transformer.h.{layer}.{names[key]}"
                matrix = tensors.pop(f"{module}.weight")
                stack.put(matrix, layer)
                if take:
                    model.get_parameter(f"{module}.weight").data = matrix.new_empty(0)
                bias[layer].copy_(tensors[f"{module}.bias"])
            fields |= {key: stack.stored(), f"{key}_scale": stack.scale.numpy(), f"{key}_bias": bias.numpy()}
        for norm in ("ln_1", "ln_2"):
            lines = [
                tensors[f"transformer.h.{layer}.{norm}.{part}"] for layer in range(L) for part in ("weight", "bias")
            ]
            fields[norm] = torch.stack([line.float().cpu() for line in lines]).view(L, 2, C).numpy()
        fields["ln_f"] = torch.stack(
            [tensors[f"transformer.ln_f.{part}"].float().cpu() for part in ("weight", "bias")]
        ).numpy()
        fields["wpe"] = tensors["transformer.wpe.weight"].to("cpu", torch.float32, copy=True).numpy()

        wte = Matrix((V, C), weight_format)
        wte.put(tensors["transformer.wte.weight"][:V])
        head = wte
        if "lm_head.weight" in tensors:  # a head of its own: tied ones are listed under wte's name only
            head = Matrix((V, C), weight_format)
            head.put(tensors["lm_head.weight"][:V])
        fields |= {"wte": wte.stored(), "wte_scale": wte.scale.numpy()}
        fields |= {"head": head.stored(), "head_scale": head.scale.numpy(), "head_bias": np.zeros(V, np.float32)}
    return Weights(**fields)


def huge(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty tensor in memory of numpy's, which asks Linux for large pages: decoding streams through all of it every token."""
    count = math.prod(shape) * dtype.itemsize
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(count, dtype=np.uint8)).view(dtype).view(shape)


def check(name: str, tensor: Tensor, largest: float = torch.finfo(torch.float32).max) -> None:
    """Raise InputError unless all of a tensor is finite and at most `largest` in size."""
    low, high = torch.aminmax(tensor.detach())  # nan where there is one
    if not (-largest <= float(low) and float(high) <= largest):
        if bool(torch.isfinite(tensor).all()):
            raise InputError(
                f"the model's tensor {name} reaches {max(-float(low), float(high)):.0f}, beyond fp16; use --dtype bf16 or fp32"
            )
        raise InputError(
            f"the model's tensor {name} holds values that are no finite numbers (its training diverged); "
            "take an earlier checkpoint with --model RUN/checkpoints/step-N"
        )
