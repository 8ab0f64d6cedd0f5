"""Which engine runs a model: the fastest there is for its class and its device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gpt3.inference.engine import Engine
from gpt3.inference.packing import check
from gpt3.inference.reference_engine import ReferenceEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_engine(model: PreTrainedModel, weight_format: str = "fp32") -> Engine:
    """An engine for a model, whose weights it may copy: the model need not be kept.

    Args:
        model: a causal model of transformers, on its device.
        weight_format: fp32, fp16, bf16 or int8, for the CPU engine; other devices compute in the model's own format.

    Raises:
        InputError: weights that are not finite (the tensor is named).
    """
    from gpt3.model import GPT3ForCausalLM

    if isinstance(model, GPT3ForCausalLM) and model.device.type != "cpu":
        from gpt3.inference.torch_engine import TorchEngine

        for name, parameter in model.named_parameters():
            check(name, parameter)
        return TorchEngine(model)
    if isinstance(model, GPT3ForCausalLM):
        try:
            from gpt3.inference.cpu_engine import CpuEngine
        except ImportError as error:
            print(f"gpt3: numba does not load here ({error}): decoding is several times slower", file=sys.stderr)
            return ReferenceEngine(model)
        if CpuEngine.supports(model):
            return CpuEngine(model, weight_format)
        activation = model.config.activation_function
        print(f"gpt3: activation {activation!r} has no fast kernel: decoding is several times slower", file=sys.stderr)
    return ReferenceEngine(model)
