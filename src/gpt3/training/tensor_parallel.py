"""Tensor parallelism (Shoeybi et al. 2019, arXiv 1909.08053): each block's matrices split over neighbouring processes.

torch's `parallelize_module` does it, by this plan; everything that is not named is whole on each process:

    wte, lm_head (tied)   entries of the vocabulary; the loss is computed on each process's part of the logits
    attn.c_attn           heads
    mlp.c_fc              rows
    attn.c_proj           columns, by head
    mlp.c_proj            columns

A block then exchanges activations twice forward and twice backward. The residual stream is whole on every process, and so are the
batches: neighbours that share the matrices compute the same sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)

from gpt3.model import GPT3ForCausalLM

Rows = TypeVar("Rows", Tensor, range)
Place = tuple[slice, ...]
"""Where a part lies in a whole tensor."""


class HeadwiseParallel(ColwiseParallel):
    """Splits c_attn, whose rows are (query, key, value) × heads × width: each process has its heads of all three.

    As a DTensor its rows are therefore ordered by process first (`by_process`). Checkpoints have the model's order.
    """

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        for own, parameter in list(module.named_parameters()):
            module.register_parameter(own, nn.Parameter(by_process(parameter.detach(), device_mesh.size())))
        super()._partition_linear_fn(name, module, device_mesh)


def by_process(rows: Tensor, processes: int) -> Tensor:
    """Rows of (3, processes, …) as (processes, 3, …): what is along the first dimension of c_attn's weight or bias."""
    return rows.unflatten(0, (3, processes, -1)).transpose(0, 1).flatten(0, 2)


class Whole(ParallelStyle):
    """A module that every process computes whole, its parameters DTensors like the others, so that one optimizer takes all."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(module: nn.Module, inputs: Any, mesh: DeviceMesh) -> Any:
            return tuple(DTensor.from_local(x, mesh, (Replicate(),), run_check=False) for x in inputs)

        def leave(module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            return output.to_local()

        return distribute_module(module, device_mesh, None, enter, leave)


def split_block(block: Any, mesh: DeviceMesh) -> None:
    """Split one block's matrices over `mesh`, one-dimensional; every process has the whole block before."""
    styles: dict[str, ParallelStyle] = {"ln_1": Whole(), "ln_2": Whole()}
    styles |= {"attn.c_attn": HeadwiseParallel(), "attn.c_proj": RowwiseParallel()}
    styles |= {"mlp.c_fc": ColwiseParallel(), "mlp.c_proj": RowwiseParallel()}
    parallelize_module(block, mesh, styles, src_data_rank=None)
    block.attn.num_heads //= mesh.size()


def split_rest(model: GPT3ForCausalLM, mesh: DeviceMesh) -> None:
    """Split embedding, head and loss over `mesh`. Logits that are returned are whole again."""
    styles: dict[str, ParallelStyle] = {"transformer.wte": RowwiseParallel(input_layouts=Replicate())}
    styles |= {"transformer.wpe": Whole(), "transformer.ln_f": Whole()}
    styles |= {"lm_head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)}
    parallelize_module(model, mesh, styles, src_data_rank=None)
    model.lm_head.weight = model.transformer.wte.weight
    model.register_forward_pre_hook(_with_logits, with_kwargs=True)
    model.register_forward_hook(_without_parts, with_kwargs=True)
    loss_parallel().__enter__()  # for good: a process trains one model


def _with_logits(module: nn.Module, inputs: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The loss comes from logits, of which each process has its part; the model's own loss without logits knows no parts."""
    return inputs, {**options, "skip_logits": False}


def _without_parts(module: nn.Module, inputs: Any, options: dict[str, Any], output: Any) -> Any:
    """Plain tensors, and no logits where none were wanted."""
    if output.loss is not None:
        output.loss = output.loss.full_tensor() if isinstance(output.loss, DTensor) else output.loss
    if options.get("shift_labels") is not None or options.get("labels") is not None:
        output.logits = None
    elif isinstance(output.logits, DTensor):
        output.logits = output.logits.full_tensor()
    return output


def held_of(tensor: Tensor, name: str, coordinate: Sequence[int] | None = None) -> list[Place]:
    """What a process holds of a tensor, in the model's own order of rows: the place of each stretch of neighbouring rows.

    Args:
        tensor: a plain one, which is all there, or a DTensor of FSDP2, tensor parallelism or both.
        name: the parameter's, or one of its optimizer state; that of c_attn tells its order.
        coordinate: of the process in the DTensor's mesh; None: this process.
    """
    if not isinstance(tensor, DTensor) or not tensor.dim():
        return [tuple(slice(0, size) for size in tensor.shape)]
    mesh = tensor.device_mesh
    names, at = mesh.mesh_dim_names or ("",) * mesh.ndim, coordinate or mesh.get_coordinate() or ()
    cuts = list(zip(names, tensor.placements, mesh.mesh.shape, at, strict=True))
    rows, columns = torch.arange(tensor.shape[0]), range(tensor.shape[1] if tensor.dim() > 1 else 0)
    if "tensor" in names and ".attn.c_attn." in name:
        rows = by_process(rows, mesh["tensor"].size())
    for _, placement, processes, process in sorted(cuts, key=lambda cut: cut[0] != "tensor"):  # FSDP2 cuts what is left
        if placement.is_shard(1):
            columns = part_of(columns, processes, process)
        elif not placement.is_replicate():
            rows = part_of(rows, processes, process)
    breaks = (rows.diff() != 1).nonzero().flatten() + 1
    rest = (columns, *map(range, tensor.shape[2:])) if tensor.dim() > 1 else ()
    others = [slice(each.start, each.stop) for each in rest]
    return [
        (slice(int(stretch[0]), int(stretch[-1]) + 1), *others) for stretch in rows.tensor_split(breaks) if len(stretch)
    ]


def parts_of(tensor: Tensor, places: Sequence[Place]) -> list[tuple[Place, Tensor]]:
    """What a process holds of a tensor, cut into the parts whose `places` `held_of` names."""
    held: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    if not held.dim():
        return [((), held)]
    counts = [place[0].stop - place[0].start for place in places]
    return list(zip(places, held.split(counts), strict=True)) if places else []


def part_of(rows: Rows, parts: int, part: int) -> Rows:
    """One of `parts` pieces of ⌈rows / parts⌉ rows, as torch cuts them: the last ones have fewer, or none."""
    each = -(-len(rows) // parts)
    return rows[part * each : (part + 1) * each]
