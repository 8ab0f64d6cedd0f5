"""Run by test_fake_ranks.py: the real model, optimizer and step of one rank of many, none of which is there.

A process group that only pretends to communicate, a device without kernels (stub_accelerator.py) and fake tensors: nothing is
computed, but every allocation and every collective of the step is asked for. Argument: a JSON list of cases; prints what each
asked for as JSON.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import sys
import warnings
from typing import Any

import numpy as np
import stub_accelerator as stub
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3.ladder.presets import preset
from gpt3.training import model_building
from gpt3.training.distributed import Compute, World
from gpt3.training.fitting import choose_exchange, memory_of
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan
from gpt3.training.trainer import Trainer


class Collectives(TorchDispatchMode):
    """How often each collective ran; torch's CommDebugMode loses count of modules in gradient checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = collections.Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if DTensor in types:
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func._opname:
            self.counts[func._opname.strip("_")] += 1
        return func(*args, **(kwargs or {}))


class FlashAttention(torch.autograd.Function):
    """What flash attention allocates and keeps; on a device that nobody knows torch would keep the probabilities."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@dataclasses.dataclass(frozen=True)
class Pretended(World):
    """A rank whose small messages need no others."""

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def empty(model: Any, part: Any, seed: int, device: torch.device, weights: Any = None) -> None:
    """In place of `model_building.fill`: memory without values."""
    for module in part.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None and weight.is_meta and module is not model.lm_head:
                module._parameters[name] = torch.nn.Parameter(torch.empty(weight.shape, device=device))
    model.lm_head.weight = model.transformer.wte.weight


def unfaked(function: Any) -> Any:
    """The function outside of fake tensors: a mesh looks into real ones for its rank."""

    def work(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)

    return work


class Tracked:
    """A model whose every forward pass begins the tracker's account of its modules anew."""

    def __init__(self, model: Any) -> None:
        self._orig_mod, self.tracker = model, None

    def __call__(self, **batch: Any) -> Any:
        self.tracker.reset_mod_stats()
        return self._orig_mod(**batch)


class Windows:
    def __init__(self, context: int) -> None:
        self.context = context

    def batch(self, numbers: list[int]) -> np.ndarray:
        return np.zeros((len(numbers), self.context + 1), np.int64)


def examined(case: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Numbers on this rank, collectives of a step, its peak of memory by part, and the estimate of it."""
    ranks, micro, accumulation = case["ranks"], case.get("micro_batch", 1), case.get("accumulation", 1)
    sharing = ranks // case.get("options", {}).get("tensor_parallel", 1)
    shape = dataclasses.replace(preset(case["model"]), n_layers=case.get("layers", 4))
    dist.init_process_group("fake", store=FakeStore(), rank=case.get("rank", 0), world_size=ranks)
    options = TrainOptions(
        steps=4, context=shape.context, batch_tokens=micro * accumulation * sharing * shape.context, micro_batch=micro,
        ramp_tokens=0, device="cpu", dtype="bf16", recipe="paper", **{"parallel": "fsdp", **case.get("options", {})},
    )  # fmt: skip
    compute = Compute(device, torch.bfloat16, 1e12)
    world = Pretended(case.get("rank", 0), ranks, None, options.tensor_parallel or 1)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = model_building.build_model(options, shape, 0, compute, world)
        forward = Tracked(model)
        plan = make_plan(options, 10**12, shape=shape)
        exchange = choose_exchange(plan, options, shape, compute, world)
        parts = (model, forward, Windows(shape.context), 0, compute, world, exchange)
        trainer = Trainer(options, plan, *parts)  # type: ignore[arg-type]
        model.train()
        held = [weight.to_local() for weight in model.parameters()]
        forward.tracker = tracker = FSDPMemTracker(model, trainer.optimizer)
        with Collectives() as collectives:
            trainer.one_step()  # and make the optimizer's state
        with tracker:
            trainer.one_step()
        peak = tracker.get_tracker_snapshot("peak")[device]
    dist.destroy_process_group()
    memory = memory_of(options, shape, plan, compute, world, exchange)
    return {
        "numbers": sum(tensor.numel() for tensor in held),
        "empty": sum(tensor.numel() == 0 for tensor in held),
        "collectives": dict(collectives.counts),
        "peak": {getattr(kind, "name", kind): size for kind, size in peak.items() if size},
        "estimate": {**vars(memory), "total": memory.total},
    }  # fmt: skip


def main(cases: list[dict[str, Any]]) -> None:
    device = stub.register()
    stub.count_reads()
    model_building.fill = empty
    model_building.init_device_mesh = unfaked(dist.device_mesh.init_device_mesh)
    DeviceMesh.__getitem__ = unfaked(DeviceMesh.__getitem__)
    DeviceMesh._flatten = unfaked(DeviceMesh._flatten)
    DeviceMesh._concatenate = staticmethod(unfaked(DeviceMesh._concatenate))
    torch.nn.functional.scaled_dot_product_attention = lambda query, key, value, **options: FlashAttention.apply(
        query, key, value
    )
    with contextlib.redirect_stdout(sys.stderr):
        found = [examined(case, device) for case in cases]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
