"""One contender of the training benchmark, in a process of its own: ``python contenders.py REQUEST.json`` prints times as JSON.

The file imports only torch and the contender, because a peer may live in a Python that has no gpt3. A contender is a function
from the request to a model, a loss of (inputs, targets) and an optimizer, each as its own trainer makes them; the step around
them is the same for all: autocast, forward, backward, clip at 1.0, AdamW, gradients to None.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

LEARNING_RATE, DECAY, BETAS = 1e-4, 0.1, (0.9, 0.95)


class Contender(NamedTuple):
    """What takes part in a step."""

    model: torch.nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    """From inputs and targets, both (B, T) int64, to the mean loss in nats."""
    optimizer: torch.optim.Optimizer


Request = dict[str, Any]


def gpt3(request: Request, device: torch.device) -> Contender:
    """This package, as `gpt3 train` runs it."""
    from gpt3.ladder.presets import preset
    from gpt3.model import GPT3ForCausalLM
    from gpt3.training import TrainOptions
    from gpt3.training.optimizer import make_optimizer

    model = GPT3ForCausalLM(preset(request["model"]).config()).to(device)  # type: ignore[arg-type]
    forward: Any = torch.compile(model) if request["compile"] else model
    tokens = request["batch"] * request["context"]

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        keywords = {"num_items_in_batch": tokens, "skip_logits": True, "use_cache": False}
        return forward(input_ids=inputs, shift_labels=targets, **keywords).loss

    return Contender(model, loss, make_optimizer(model, TrainOptions(), LEARNING_RATE))


def nanogpt(request: Request, device: torch.device) -> Contender:
    """nanoGPT's model and optimizer: all layers dense, tanh GELU, whole logits."""
    sys.path.insert(0, request["nanogpt"])
    from model import GPT, GPTConfig

    config = GPTConfig(
        block_size=request["context"], vocab_size=request["vocab_size"], n_layer=request["n_layers"],
        n_head=request["n_heads"], n_embd=request["d_model"], dropout=0.0, bias=True,
    )  # fmt: skip
    model = GPT(config).to(device)
    forward = torch.compile(model) if request["compile"] else model
    optimizer = model.configure_optimizers(DECAY, LEARNING_RATE, BETAS, device.type)
    return Contender(model, lambda inputs, targets: forward(inputs, targets)[1], optimizer)


def transformers(request: Request, device: torch.device) -> Contender:
    """transformers' GPT2LMHeadModel with its own loss, and torch's fused AdamW as its Trainer takes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=request["vocab_size"], n_positions=request["context"], n_embd=request["d_model"],
        n_layer=request["n_layers"], n_head=request["n_heads"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(device)  # type: ignore[arg-type]
    model.train()
    forward: Any = torch.compile(model) if request["compile"] else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=True)
    return Contender(
        model, lambda inputs, targets: forward(input_ids=inputs, labels=inputs, shift_labels=targets).loss, optimizer
    )


def litgpt(request: Request, device: torch.device) -> Contender:
    """litGPT's model, loss and optimizer as its `pretrain` makes them; embeddings tied, rotary positions of its own."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        block_size=request["context"], padded_vocab_size=request["vocab_size"], vocab_size=request["vocab_size"],
        n_layer=request["n_layers"], n_head=request["n_heads"], n_embd=request["d_model"], parallel_residual=False,
    )  # fmt: skip
    model = GPT(config).to(device)
    model.transformer.wte.weight = model.lm_head.weight
    forward = torch.compile(model) if request["compile"] else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=DECAY, fused=device.type == "cuda"
    )
    return Contender(model, lambda inputs, targets: chunked_cross_entropy(forward(inputs), targets), optimizer)


MAKERS: dict[str, Callable[[Request, torch.device], Contender]] = {
    maker.__name__: maker for maker in (gpt3, nanogpt, transformers, litgpt)
}


def timed_steps(request: Request) -> dict[str, Any]:
    """Build the contender, warm up, time its steps.

    Args:
        request: `name` of the contender, the shape (`model`, `n_layers`, `n_heads`, `d_model`, `vocab_size`), `batch`,
            `context`, `dtype` (fp32 or bf16), `device`, `compile`, `seed`, `warmup` (steps not counted), `tokens` (a file of
            int64, (steps, B, T + 1), flat).

    Returns:
        seconds and cpu_seconds of each timed step, losses of every step, peak_bytes, parameters, the versions used.
    """
    device = torch.device(request["device"])
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    torch.manual_seed(request["seed"])
    contender = MAKERS[request["name"]](request, device)
    windows = torch.frombuffer(bytearray(Path(request["tokens"]).read_bytes()), dtype=torch.int64)
    windows = windows.view(-1, request["batch"], request["context"] + 1)
    half = request["dtype"] == "bf16"
    seconds, cpu_seconds, losses = [], [], []
    for window in windows:
        synchronize(device)
        start, cpu_start = time.perf_counter(), time.process_time()
        batch = window.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16) if half else contextlib.nullcontext():
            loss = contender.loss(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(contender.model.parameters(), 1.0)
        contender.optimizer.step()
        contender.optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "seconds": seconds[request["warmup"] :],
        "cpu_seconds": cpu_seconds[request["warmup"] :],
        "losses": losses,
        "peak_bytes": peak_bytes(device),
        "parameters": sum(weight.numel() for weight in contender.model.parameters()),
        "torch": torch.__version__,
    }


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_bytes(device: torch.device) -> int | None:
    """Most memory in use so far: the device's, or this process's on a CPU. None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def gemm(request: Request) -> dict[str, Any]:
    """FLOP/s of plain matrix products in the request's dtypes, as `gpt3 train` measures its peak; and what auto means here."""
    from gpt3.training.device import choose_compute, gemm_flops

    compute = choose_compute(request["device"], "auto")
    device = compute.device
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        "device": str(device),
        "auto": next((name for name, dtype in dtypes.items() if dtype == compute.dtype), "fp32"),
        "flops": {name: gemm_flops(device, dtypes[name], seconds=1.0) for name in request["dtypes"]},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


if __name__ == "__main__":
    # Python puts this file's folder first on the path, where `options` and others would hide modules of the peers.
    sys.path.pop(0)
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = gemm(asked) if asked["name"] == "gemm" else timed_steps(asked)
    print("\n" + json.dumps(answer))
