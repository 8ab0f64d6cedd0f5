"""Whether a device computes what the CPU does: a tiny model's loss, gradients and next tokens, before anything is trusted to it.

Drivers, kernels and versions of torch have been wrong silently (pytorch#163597, #174861, #181133 and others: attention on Apple's
GPUs). The check takes about a second, once for each device, version of torch and driver.
"""

from __future__ import annotations

import contextlib
import copy
import json
import platform
from dataclasses import dataclass
from typing import Any

import torch

from gpt3.corpus.prepare import cache_folder
from gpt3.durable import write_text
from gpt3.errors import InputError

CACHE = "devices.json"
LIMITS = {torch.float32: 0.005, torch.bfloat16: 0.03, torch.float16: 0.01}
"""Differences from the CPU's float32 that are taken for rounding, as a share of the value's own size.
float32 may be TF32 on a GPU, whose products keep 10 bits."""
SHAPE: dict[str, Any] = {
    "vocab_size": 257, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32,
    "max_position_embeddings": 96, "sliding_window": 16, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
CONTEXT, PROMPT, NEW = 64, 40, 8


@dataclass(frozen=True)
class DeviceCheck:
    """What a device made of the tiny model."""

    device: str
    """Its name, and versions of torch and of its driver."""
    differences: dict[str, float]
    """By what was computed: the largest difference from the CPU, as a share of the size of what the CPU computed."""
    faults: list[str]
    """Those beyond the limit, in words; none: the device computes rightly."""


def check_device(device: torch.device, trust: bool = False) -> None:
    """Refuse a device that computes otherwise than the CPU; the CPU itself is not checked.

    Args:
        trust: ``--trust-device``: check nothing.

    Raises:
        InputError: with the figures.
    """
    if device.type == "cpu" or trust:
        return
    found = known_check(device)
    if found.faults:
        raise InputError(
            f"{found.device} does not compute what the CPU does: {'; '.join(found.faults)}. Update torch or the driver, use "
            "--device cpu, or continue all the same with --trust-device"
        )


def known_check(device: torch.device) -> DeviceCheck:
    """The check's result, from the cache if this device, torch and driver were checked before; a failed one is made again."""
    file, name = cache_folder() / CACHE, name_of(device)
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8"))
    with contextlib.suppress(KeyError, TypeError):
        return DeviceCheck(name, dict(known[name]), [])
    found = examine(device)
    if not found.faults:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps({**known, name: found.differences}, indent=1))
    return found


def name_of(device: torch.device) -> str:
    """Device, torch and driver, such as ``NVIDIA H100, driver 12080, torch 2.13.0+cu130``."""
    name, driver = device.type, platform.platform()
    if device.type == "cuda":
        name, driver = (
            torch.cuda.get_device_name(device),
            str(getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")()),
        )
    elif device.type == "mps":
        name, driver = f"{platform.machine()} GPU", f"macOS {platform.mac_ver()[0]}"
    return f"{name}, driver {driver}, torch {torch.__version__}"


def formats_of(device: torch.device) -> list[torch.dtype]:
    """Number formats that are checked: float32, and the 16-bit ones that the device has."""
    if device.type != "cuda":
        return [torch.float32]
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return [torch.float32, torch.float16, *([torch.bfloat16] if bf16 else [])]


def examine(device: torch.device, formats: list[torch.dtype] | None = None) -> DeviceCheck:
    """Compute a training step and a few tokens on the device and on the CPU, where in float32."""
    from gpt3.model import GPT3Config, GPT3ForCausalLM

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = GPT3ForCausalLM(GPT3Config(**SHAPE))
    with torch.no_grad():
        for weight in model.parameters():  # large enough for attention to look at something
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.15 if weight.dim() > 1 else 0.3))
    tokens = torch.randint(SHAPE["vocab_size"], (2, CONTEXT + 1), generator=generator)
    expected = computed(model, tokens, torch.float32)
    differences, faults = dict[str, float](), list[str]()
    for dtype in formats or formats_of(device):
        there = computed(moved(model, device), tokens, dtype)
        for name, value in there.items():
            error = float((value - expected[name]).norm() / expected[name].norm())
            text = f"{name} in {str(dtype).removeprefix('torch.')}"
            differences[text] = round(error, 6)
            if not error <= LIMITS[dtype]:
                faults.append(f"{text} differ by {error:.1%} (limit {LIMITS[dtype]:.0%})")
    return DeviceCheck(name_of(device), differences, faults)


def moved(model: Any, device: torch.device) -> Any:
    """A copy of the model on the device."""
    return copy.deepcopy(model).to(device)


def computed(model: Any, tokens: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Losses, gradients and the logits of next tokens, float64 on the CPU.

    Args:
        tokens: (2, CONTEXT + 1).
        dtype: of the products while training, and of the weights that generate.
    """
    from gpt3.inference.engine import Run
    from gpt3.inference.torch_engine import TorchEngine
    from gpt3.model.banded_attention import has_windowed_flash
    from gpt3.model.packed_documents import cumulative_lengths, document_positions

    device: torch.device = model.device
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    model.train().zero_grad(set_to_none=True)
    there = tokens.to(device)
    inputs: dict[str, Any] = {"input_ids": there[:, :-1], "shift_labels": there[:, 1:].contiguous()}
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        each = model(**inputs, skip_logits=True, use_cache=False, loss_reduction="none").loss
        model(**inputs, skip_logits=True, use_cache=False).loss.backward()
    packed = torch.zeros(0)
    if device.type == "cpu" or has_windowed_flash(device, dtype, SHAPE["head_dim"]):  # else a mask, as padding has
        positions = document_positions(tokens[:, :-1], int(tokens[0, CONTEXT // 3]))
        documents = {"position_ids": positions.to(device), "cu_seq_lens_q": cumulative_lengths(positions).to(device)}
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            packed = model(**inputs, **documents, skip_logits=True, use_cache=False, loss_reduction="none").loss
    gradients = {name: weight.grad.to(**exact) for name, weight in model.named_parameters()}
    engine = TorchEngine(model.to(dtype))
    cache = engine.new_cache(2, CONTEXT)
    logits = [engine.forward(cache, [Run(row, tokens[row, : PROMPT - row].tolist()) for row in (0, 1)])]
    for step in range(NEW):  # all devices read the same tokens: a near tie must not part them
        logits.append(engine.forward(cache, [Run(row, [int(tokens[row, PROMPT - row + step])]) for row in (0, 1)]))
    found = {
        "losses": each.detach().to(**exact),
        "gradients of attention": torch.cat([value.flatten() for name, value in gradients.items() if ".attn." in name]),
        "other gradients": torch.cat([value.flatten() for name, value in gradients.items() if ".attn." not in name]),
        "logits of next tokens": torch.cat([part.to(**exact) for part in logits]),
    }
    return found | ({"losses of packed documents": packed.to(**exact)} if len(packed) else {})
