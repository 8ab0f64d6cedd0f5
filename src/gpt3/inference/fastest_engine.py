"""The fastest engine for a model's class and device; and a message while its kernels are compiled, once on each machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpt3.errors import InputError, one_line
from gpt3.inference.engine import Engine
from gpt3.inference.packing import check
from gpt3.inference.reference_engine import ReferenceEngine
from gpt3.inference.torch_engine import TorchEngine
from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder.load import TORCH_DTYPES
from gpt3.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PATIENCE_SECONDS = 2.0
NOTE = "compiling the kernels for this machine, once; some 15 seconds"


def make_engine(model: PreTrainedModel, weight_format: str = "fp32", take: bool = False) -> Engine:
    """An engine for a model, whose weights it may copy: the model need not be kept.

    Args:
        model: a causal model of transformers, on its device.
        weight_format: fp32, fp16, bf16 or int8, on a CPU; other devices compute in the model's own format.
        take: the model may be emptied, so that its weights are not held twice.

    Raises:
        InputError: weights that are not finite (the tensor is named), or a format that no engine here has for this model.
    """

    without = None  # why the CPU engine is not taken
    if isinstance(model, GPT3ForCausalLM) and model.device.type != "cpu":
        for name, parameter in model.named_parameters():
            check(name, parameter)
        return TorchEngine(model)
    if isinstance(model, GPT3ForCausalLM):
        try:
            from gpt3.inference.cpu_engine import CpuEngine
        except (ImportError, OSError, RuntimeError) as error:  # also: no folder for numba's cache can be written
            without = f"numba does not work here ({one_line(error)}; NUMBA_CACHE_DIR may name a folder to write to)"
        else:
            if CpuEngine.supports(model):
                return CpuEngine(model, weight_format, take)
            without = f"activation {model.config.activation_function!r} has no fast kernel"
    if weight_format == "int8":
        reason = without or f"model type {model.config.model_type!r} has no fast kernels"
        raise InputError(f"--quantize int8 is not available: {reason}. Leave it out, or use --dtype bf16.")
    if without:
        say(f"{without}: decoding is several times slower")
    for name, parameter in model.named_parameters():
        check(name, parameter)
    if model.device.type == "cpu" and weight_format != "fp32":
        model.to(dtype=TORCH_DTYPES[weight_format])  # type: ignore[call-arg]  # transformers wraps it without types
    return ReferenceEngine(model)


def compiling() -> bool:
    """Whether a kernel was not in numba's cache, so that it is being compiled or was."""
    kernels = sys.modules.get("gpt3.inference.kernels")
    dispatchers = [x for x in vars(kernels).values() if hasattr(x, "stats")] if kernels is not None else []
    return any(dispatcher.stats.cache_misses for dispatcher in dispatchers)


@contextmanager
def told_when_compiling(tell: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Call `tell` from another thread if a kernel is compiled and that takes longer than PATIENCE_SECONDS.

    Yields:
        What ends the watch before the block does, once the first token is there.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PATIENCE_SECONDS):
            if compiling():
                tell(NOTE)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield over.set
    finally:
        over.set()
