"""Muon on sharded matrices: each is put together on one rank, which alone orthogonalizes it.

torch's Muon computes on DTensors operator by operator, and each of its some fifteen products communicates. Here the ranks take
turns as owners: of as many matrices as there are ranks, each rank gets one whole and returns its rows, in two exchanges for
all of them. Momentum stays sharded as the weights are, and so does the state that a checkpoint holds. (Liu et al. 2025, arXiv
2502.16982, algorithm 1, gathers every matrix on every rank; here the work is shared out, too.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from gpt3.training.tensor_parallel import part_of


class ShardedMuon(torch.optim.Muon):
    """torch's Muon, whose step on weights that FSDP2 has sharded by rows takes two exchanges for as many matrices as ranks."""

    _among: DeviceMesh | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure`, if any, computes the loss and the gradients first."""
        weights = [
            (weight, group) for group in self.param_groups for weight in group["params"] if weight.grad is not None
        ]
        if not weights or not isinstance(weights[0][0], DTensor):
            return super().step(closure)
        loss = None if closure is None else torch.enable_grad()(closure)()
        ranks = self._ranks(weights[0][0].device_mesh)
        # the largest first, so that the matrices of one exchange cost about the same; in the same order on every rank
        weights.sort(key=lambda pair: -pair[0].numel() * min(pair[0].shape))
        for first in range(0, len(weights), ranks.size()):
            self._exchange(
                weights[first : first + ranks.size()], ranks.get_group(), ranks.get_local_rank(), ranks.size()
            )
        return loss

    def _ranks(self, mesh: DeviceMesh) -> DeviceMesh:
        """The ranks that share one copy of the model, as one dimension; of several copies (HSDP) all do the same."""
        if self._among is None:
            names = tuple(name for name in mesh.mesh_dim_names or () if name != "replicate")
            inner = mesh if mesh.ndim == 1 else mesh[names]
            self._among = inner if inner.ndim == 1 else inner._flatten()
        return self._among

    def _exchange(self, weights: Sequence[tuple[DTensor, dict[str, Any]]], ranks: Any, rank: int, size: int) -> None:
        """Step on at most `size` matrices; rank i orthogonalizes the i-th."""
        parts = [self._momentum(weight, group) for weight, group in weights]
        sent = torch.cat([part.flatten() for part in parts])
        here = [part.numel() for part in parts] + [0] * (size - len(parts))  # numbers of this rank, by owner
        there = [0] * size  # of this rank's own matrix, by the rank that holds them
        if rank < len(weights):
            places = [rectangle(weights[rank][0], other) for other in range(size)]
            there = [len(rows) * len(columns) for rows, columns in places]
        whole = sent.new_empty(sum(there))
        dist.all_to_all_single(whole, sent, there, here, group=ranks)
        if rank < len(weights):
            weight, group = weights[rank]
            update = whole.new_empty(weight.shape)
            for (rows, columns), part in zip(places, whole.split(there), strict=True):
                update[rows.start : rows.stop, columns.start : columns.stop] = part.view(len(rows), len(columns))
            update = _zeropower_via_newtonschulz(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            whole = torch.cat([
                update[rows.start : rows.stop, columns.start : columns.stop].flatten() for rows, columns in places
            ])  # fmt: skip
        updates = torch.empty_like(sent)
        dist.all_to_all_single(updates, whole.reshape(-1), here, there, group=ranks)
        for (weight, group), update in zip(weights, updates.split(here[: len(weights)]), strict=True):
            held = weight.to_local()
            held.mul_(1 - group["lr"] * group["weight_decay"])
            rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], weight.shape)
            held.add_(update.view_as(held), alpha=-rate)

    def _momentum(self, weight: DTensor, group: dict[str, Any]) -> torch.Tensor:
        """This rank's rows of the update before it is orthogonalized, in bfloat16 as torch's Muon computes it."""
        gradient: Any = weight.grad
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        gradient, held = gradient.to_local(), state["momentum_buffer"].to_local()
        held.lerp_(gradient, 1 - group["momentum"])
        return (gradient.lerp(held, group["momentum"]) if group["nesterov"] else held).bfloat16()


def rectangle(matrix: DTensor, rank: int) -> tuple[range, range]:
    """Rows and columns of a matrix that one of the ranks which share it holds.

    Rows over all of them, as FSDP2 cuts them; with tensor parallelism rows or columns over neighbours, and rows of that part.
    A DTensor's own order of rows: to orthogonalize commutes with any other.
    """
    sizes = dict(zip(matrix.device_mesh.mesh_dim_names or ("shard",), matrix.device_mesh.shape, strict=True))
    shards, parts = sizes.get("shard", 1), sizes.get("tensor", 1)
    rows, columns = (range(n) for n in matrix.shape)
    if parts > 1 and matrix.placements[-1].is_shard(1):
        columns = part_of(columns, parts, rank % parts)
    elif parts > 1:
        rows = part_of(rows, parts, rank % parts)
    return part_of(rows, shards, rank // parts), columns
