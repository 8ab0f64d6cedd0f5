"""Orthogonal matrices of those that ranks hold in parts: each is put together on one rank, which alone orthogonalizes it.

Operator by operator, each of some fifteen products would communicate. Here the ranks take turns as owners: of as many matrices
as there are ranks, each rank gets one whole and returns its parts, in two exchanges for all of them. (Liu et al. 2025, arXiv
2502.16982, algorithm 1, gathers every matrix on every rank; here the work is shared out, too.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from gpt3.training.optimizers.orthogonal import orthogonalized
from gpt3.training.tensor_parallel import part_of


def sharing_ranks(mesh: DeviceMesh) -> DeviceMesh:
    """The ranks that share one copy of the model, as one dimension; of several copies (HSDP) all do the same."""
    names = tuple(name for name in mesh.mesh_dim_names or () if name != "replicate")
    inner = mesh if mesh.ndim == 1 else mesh[names]
    return inner if inner.ndim == 1 else inner._flatten()


def orthogonalize_shards(
    weights: Sequence[DTensor], parts: Sequence[torch.Tensor], dtype: torch.dtype, ranks: DeviceMesh
) -> list[torch.Tensor]:
    """`gpt3.training.optimizers.orthogonal.orthogonalize` of matrices that ranks hold in parts.

    Args:
        weights: they say how the matrices are cut.
        parts: what this rank holds of each matrix.
        ranks: `sharing_ranks` of the weights' mesh.

    Returns:
        This rank's part of each result.
    """
    group, rank, size = ranks.get_group(), ranks.get_local_rank(), ranks.size()
    # the largest first, so that the matrices of one exchange cost about the same; in the same order on every rank
    order = sorted(range(len(weights)), key=lambda i: -weights[i].numel() * min(weights[i].shape))
    found: dict[int, torch.Tensor] = {}
    for first in range(0, len(order), size):
        some = order[first : first + size]  # the i-th belongs to rank i
        sent = torch.cat([parts[i].to(dtype).flatten() for i in some])
        here = [parts[i].numel() for i in some] + [0] * (size - len(some))  # numbers of this rank, by owner
        there = [0] * size  # of this rank's own matrix, by the rank that holds them
        if rank < len(some):
            places = [rectangle(weights[some[rank]], other) for other in range(size)]
            there = [len(rows) * len(columns) for rows, columns in places]
        whole = sent.new_empty(sum(there))
        dist.all_to_all_single(whole, sent, there, here, group=group)
        if rank < len(some):
            matrix = whole.new_empty(weights[some[rank]].shape)
            for (rows, columns), part in zip(places, whole.split(there), strict=True):
                matrix[rows.start : rows.stop, columns.start : columns.stop] = part.view(len(rows), len(columns))
            matrix = orthogonalized(matrix[None], dtype)[0]
            whole = torch.cat([
                matrix[rows.start : rows.stop, columns.start : columns.stop].flatten() for rows, columns in places
            ])  # fmt: skip
        results = torch.empty_like(sent)
        dist.all_to_all_single(results, whole, here, there, group=group)
        found.update(zip(some, results.split(here[: len(some)]), strict=True))
    return [found[i].view_as(part) for i, part in enumerate(parts)]


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
