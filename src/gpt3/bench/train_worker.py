"""The worker of `gpt3 bench train`: training steps of one system, in a process of its own (see gpt3.bench.harness.call).

Only torch is imported at the top, because a peer may be installed in a Python that has no gpt3. Each system is a function from
the request and the device to its model, its loss and its optimizer, as its own trainer makes them. The step around them is the
same for all: autocast, forward, backward, gradients clipped at 1.0, AdamW, gradients to None.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LEARNING_RATE, DECAY, BETAS = 1e-4, 0.1, (0.9, 0.95)

Request = dict[str, Any]
Loss = Callable[[Any, Tensor, Tensor], Tensor]
"""From the model (compiled or not), inputs and targets, both (B, T) int64, to the mean loss in nats."""
Training = tuple[torch.nn.Module, Loss, torch.optim.Optimizer]


def gpt3(request: Request, device: torch.device) -> Training:
    """This package, as `gpt3 train` runs it."""
    from gpt3.ladder.presets import preset
    from gpt3.model import GPT3ForCausalLM
    from gpt3.training import lean
    from gpt3.training.optimizers import make_optimizer
    from gpt3.training.options import TrainOptions

    model = GPT3ForCausalLM(preset(request["model"]).config()).to(device)  # type: ignore[arg-type]
    dtype = torch.float32 if request["dtype"] == "fp32" else torch.bfloat16
    if not request["compile"] and lean.fits(model, device, dtype):
        lean.install(model, lean.choose(model, request["batch"] * request["context"], dtype), dtype)
    keywords = {"num_items_in_batch": request["batch"] * request["context"], "skip_logits": True, "use_cache": False}

    def loss(forward: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        return forward(input_ids=inputs, shift_labels=targets, **keywords).loss

    return model, loss, make_optimizer(model, TrainOptions(optimizer="adamw"), LEARNING_RATE)


def nanogpt(request: Request, device: torch.device) -> Training:
    """nanoGPT's model and optimizer: all layers dense, tanh GELU, whole logits."""
    sys.path.insert(0, request["nanogpt"])
    from model import GPT, GPTConfig

    model = GPT(GPTConfig(**request["shape"], block_size=request["context"], dropout=0.0, bias=True)).to(device)
    optimizer = model.configure_optimizers(DECAY, LEARNING_RATE, BETAS, device.type)
    return model, lambda forward, inputs, targets: forward(inputs, targets)[1], optimizer


def transformers(request: Request, device: torch.device) -> Training:
    """transformers' GPT2LMHeadModel with its own loss, and torch's fused AdamW as its Trainer uses it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    no_dropout: Any = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(**request["shape"], n_positions=request["context"], use_cache=False, **no_dropout)
    model = GPT2LMHeadModel(config).to(device).train()  # type: ignore[arg-type]

    def loss(forward: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        return forward(input_ids=inputs, labels=inputs, shift_labels=targets).loss

    return model, loss, adamw(model, fused=True)


def litgpt(request: Request, device: torch.device) -> Training:
    """litGPT's model, loss and optimizer as its `pretrain` makes them; embeddings tied, rotary positions."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    sizes = {"block_size": request["context"], "padded_vocab_size": request["shape"]["vocab_size"]}
    model = GPT(Config(**request["shape"], **sizes, parallel_residual=False)).to(device)
    model.transformer.wte.weight = model.lm_head.weight

    def loss(forward: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        return chunked_cross_entropy(forward(inputs), targets)

    return model, loss, adamw(model, fused=device.type == "cuda")


def adamw(model: torch.nn.Module, fused: bool) -> torch.optim.Optimizer:
    """torch's AdamW with the settings of all systems."""
    return torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=fused)


SYSTEMS: dict[str, Callable[[Request, torch.device], Training]] = {
    system.__name__: system for system in (gpt3, nanogpt, transformers, litgpt)
}


def timed_steps(request: Request) -> dict[str, Any]:
    """Make a system, warm it up, time its steps.

    Args:
        request: `name` of the system, `model` (a preset) and its `shape` (n_layer, n_head, n_embd, vocab_size), `batch`,
            `context`, `dtype` (fp32 or bf16), `device`, `compile`, `seed`, `warmup` (steps that are not timed), `tokens`
            (steps, B, T + 1), `nanogpt` (a checkout).

    Returns:
        seconds and cpu_seconds of each timed step, losses of every step, peak_bytes, parameters.
    """
    device = torch.device(request["device"])
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(request["seed"])
    model, loss_of, optimizer = SYSTEMS[request["name"]](request, device)
    forward = torch.compile(model) if request["compile"] else model
    half = request["dtype"] == "bf16"
    seconds, cpu_seconds, losses = [], [], []
    for tokens in torch.tensor(request["tokens"]):
        synchronize(device)
        start, cpu_start = time.perf_counter(), time.process_time()
        batch = tokens.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16) if half else contextlib.nullcontext():
            loss = loss_of(forward, batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "seconds": seconds[request["warmup"] :],
        "cpu_seconds": cpu_seconds[request["warmup"] :],
        "losses": losses,
        "peak_bytes": peak_bytes(device),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    torch.cuda.synchronize(device) if device.type == "cuda" else getattr(torch, device.type).synchronize()


def peak_bytes(device: torch.device) -> int | None:
    """The most memory used so far: on CUDA of the device, else of this process. None where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose modules could hide those of a peer
    print("\n" + json.dumps(timed_steps(json.loads(sys.stdin.readline()))))
